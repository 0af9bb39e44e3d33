//! The images of one host, as files.
//!
//! ```text
//!  ROOT/
//!   layers/DIGEST.squashfs   one for each layer, read-only, shared by all images
//!   layers/DIGEST.opaque     beside one that hides all layers below it
//!   layers/DIGEST.folders    what it says about folders and symbolic links
//!   images/DIGEST.json       one for each image, by its identity
//!   names/DIGEST.json        one for each name; DIGEST is that of the name
//!   work/                    what is under way, and the locks
//! ```
//!
//! A file has its name only when it is whole and on the disk, and an image only when
//! all its layers are there: a crash leaves at most something in `work/`, and layers
//! that no image has, which the next pull uses and `prune` removes.
//!
//! Several programs work on one store. Whoever makes a layer holds the layer's lock;
//! whoever publishes or removes something holds the store's, for a moment. A pull is
//! marked by a shared lock of `work/` from before its program runs until it has ended.
//! Locks are flock(2)'s, so they end with whoever holds them.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aegis_fault_points::around;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::layer::Folders;
use crate::record::{Image, Name};

const LAYERS: &str = "layers";
const IMAGES: &str = "images";
const NAMES: &str = "names";
const WORK: &str = "work";

/// Why the store cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {operation} {path}", path = path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} of the image store cannot be read", path = path.display())]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the layer {0} of the image is not there any more")]
    LayerGone(Digest),
    #[error("the disk of {path} is full", path = path.display())]
    Full { path: PathBuf },
}

/// The store of one folder. Cheap; holds nothing open.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    #[expect(dead_code, reason = "held, not used")]
    file: File,
}

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prunable {
    /// Images that nothing uses.
    pub images: Vec<Digest>,
    /// Layers that no other image has.
    pub layers: Vec<Digest>,
    /// Bytes that they take.
    pub size: u64,
}

impl Store {
    /// The store in a folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes the folders that are missing.
    ///
    /// # Errors
    /// What the system says about a folder.
    pub fn prepare(&self) -> Result<(), StoreError> {
        for name in ["", LAYERS, IMAGES, NAMES, WORK] {
            let folder = self.root.join(name);
            let made = step("store.make-folder", || {
                match DirBuilder::new().mode(0o700).create(&folder) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    made => made,
                }
            });
            made.map_err(failed("make", &folder))?;
        }
        Ok(())
    }

    /// The folder of the layers.
    pub fn layers(&self) -> PathBuf {
        self.root.join(LAYERS)
    }

    /// The folder of what is under way.
    pub fn work_folder(&self) -> PathBuf {
        self.root.join(WORK)
    }

    /// Where a layer is, or would be.
    pub fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(format!("{}.squashfs", plain(diff_id)))
    }

    /// Bytes that a layer takes; `None` if it is not here.
    pub fn layer_size(&self, diff_id: &Digest) -> Option<u64> {
        let found = fs::metadata(self.layer(diff_id)).ok()?;
        Some(found.blocks() * 512)
    }

    /// A private folder for one pull. It is removed when it is dropped, and by
    /// [`Store::sweep`] after a crash.
    ///
    /// # Errors
    /// What the system says.
    pub fn work(&self) -> Result<Work, StoreError> {
        let parent = self.work_folder();
        // Without it a sweep could find the folder before its lock is held.
        let _all = self.lock_all()?;
        let folder = step("store.work", || {
            let mut builder = tempfile::Builder::new();
            builder.prefix("pull-").tempdir_in(&parent)
        });
        let folder = folder.map_err(failed("make a folder in", &parent))?;
        let lock = self.lock_file(&folder.path().join("lock"))?;
        lock.lock().map_err(failed("lock", folder.path()))?;
        Ok(Work {
            folder,
            _lock: Lock { file: lock },
        })
    }

    /// Marks a pull until all copies of what is returned are closed, in whichever
    /// program.
    ///
    /// # Errors
    /// What the system says about the folder.
    pub fn mark_pull(&self) -> Result<OwnedFd, StoreError> {
        let folder = self.work_folder();
        let opened = File::open(&folder).map_err(failed("open", &folder))?;
        opened.lock_shared().map_err(failed("lock", &folder))?;
        Ok(opened.into())
    }

    /// Waits for the end of all pulls that are under way now; says whether there were
    /// any.
    ///
    /// # Errors
    /// What the system says about the folder.
    pub fn wait_for_pulls(&self) -> Result<bool, StoreError> {
        let folder = self.work_folder();
        let opened = File::open(&folder).map_err(failed("open", &folder))?;
        match opened.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => {
                opened.lock().map_err(failed("lock", &folder))?;
                Ok(true)
            }
            Err(TryLockError::Error(error)) => Err(failed("lock", &folder)(error)),
        }
    }

    /// Waits until nobody else makes this layer.
    ///
    /// # Errors
    /// What the system says about the lock.
    pub fn lock_layer(&self, diff_id: &Digest) -> Result<Lock, StoreError> {
        let name = format!("{}.lock", plain(diff_id));
        let path = self.work_folder().join(name);
        let file = self.lock_file(&path)?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(Lock { file })
    }

    /// Who removes may be another user than who pulls, so no file is made for it.
    fn lock_all(&self) -> Result<Lock, StoreError> {
        let folder = File::open(&self.root).map_err(failed("open", &self.root))?;
        folder.lock().map_err(failed("lock", &self.root))?;
        Ok(Lock { file: folder })
    }

    fn lock_file(&self, path: &Path) -> Result<File, StoreError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let opened = step("store.lock", || options.open(path));
        opened.map_err(failed("make", path))
    }

    /// Whether a layer that is here hides all layers below it.
    pub fn is_opaque(&self, diff_id: &Digest) -> bool {
        self.opaque_mark(diff_id).exists()
    }

    fn opaque_mark(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(format!("{}.opaque", plain(diff_id)))
    }

    fn folders_file(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(format!("{}.folders", plain(diff_id)))
    }

    /// What a layer says about folders; nothing if that is not known.
    pub fn folders(&self, diff_id: &Digest) -> Folders {
        let known = read(&self.folders_file(diff_id));
        known.ok().flatten().unwrap_or_default()
    }

    /// Keeps what a layer says about folders, before it is added.
    ///
    /// # Errors
    /// What the system says.
    pub fn add_folders(&self, diff_id: &Digest, folders: &Folders) -> Result<(), StoreError> {
        let path = self.folders_file(diff_id);
        // There may be many, and nobody reads them by eye.
        let json = serde_json::to_vec(folders).map_err(io::Error::other);
        self.put(&path, json)
    }

    /// Gives a finished layer its name. `file` lies in a [`Work`] folder; the layer's
    /// lock is held. `opaque`: it hides all layers below it.
    ///
    /// # Errors
    /// What the system says; the file stays where it is.
    pub fn add_layer(&self, file: &Path, diff_id: &Digest, opaque: bool) -> Result<(), StoreError> {
        let place = self.layer(diff_id);
        let named = step("store.add-layer", || {
            let opened = File::open(file)?;
            opened.set_permissions(fs::Permissions::from_mode(0o400))?;
            opened.sync_all()?;
            if opaque {
                File::create(self.opaque_mark(diff_id))?;
            }
            fs::rename(file, &place)?;
            File::open(self.layers())?.sync_all()
        });
        named.map_err(failed("make", &place))
    }

    /// Makes an image known, by its name where it has one.
    ///
    /// # Errors
    /// [`StoreError::LayerGone`] if a layer was removed meanwhile; nothing is changed
    /// then.
    pub fn publish(&self, image: &Image, name: Option<&Name>) -> Result<(), StoreError> {
        let _lock = self.lock_all()?;
        let gone = |layer: &&crate::record::Layer| !self.layer(&layer.diff_id).exists();
        if let Some(layer) = image.layers.iter().find(gone) {
            return Err(StoreError::LayerGone(layer.diff_id.clone()));
        }
        self.write(&self.image_file(&image.id), image)?;
        match name {
            Some(name) => self.write(&self.name_file(&name.name), name),
            None => Ok(()),
        }
    }

    /// The image of an identity.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn image(&self, id: &Digest) -> Result<Option<Image>, StoreError> {
        read(&self.image_file(id))
    }

    /// What a name meant when it was last looked up.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn name(&self, name: &str) -> Result<Option<Name>, StoreError> {
        read(&self.name_file(name))
    }

    /// All images, by their identity. A record that cannot be read is left out, and
    /// the next pull writes it anew.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn images(&self) -> Result<Vec<Image>, StoreError> {
        let mut images: Vec<Image> = self.all(IMAGES)?;
        images.sort_by(|a, b| a.id.digits().cmp(b.id.digits()));
        Ok(images)
    }

    /// All names, in their order.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn names(&self) -> Result<Vec<Name>, StoreError> {
        let mut names: Vec<Name> = self.all(NAMES)?;
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    fn all<T: DeserializeOwned>(&self, folder: &str) -> Result<Vec<T>, StoreError> {
        let folder = self.root.join(folder);
        let paths = entries(&folder)?.map(|entry| entry.path());
        let records = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
        Ok(records.filter_map(|path| read(&path).ok()?).collect())
    }

    /// Forgets a name; its image stays.
    ///
    /// # Errors
    /// What the system says.
    pub fn forget(&self, name: &str) -> Result<(), StoreError> {
        let _lock = self.lock_all()?;
        self.remove(&self.name_file(name))
    }

    /// Which images may go if those of `wanted` stay, and which layers with them. An
    /// image that has a name is kept unless `named_too`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn prunable(
        &self,
        wanted: &BTreeSet<String>,
        named_too: bool,
    ) -> Result<Prunable, StoreError> {
        let named: BTreeSet<String> = self
            .names()?
            .into_iter()
            .map(|name| name.image.to_string())
            .collect();
        let stays = |image: &Image| {
            let id = image.id.to_string();
            wanted.contains(&id) || (!named_too && named.contains(&id))
        };
        let (kept, gone): (Vec<Image>, Vec<Image>) = self.images()?.into_iter().partition(stays);
        let kept: BTreeSet<String> = kept
            .iter()
            .flat_map(|image| &image.layers)
            .map(|layer| plain(&layer.diff_id))
            .collect();
        let mut layers = Vec::new();
        let mut size = 0;
        let folder = self.layers();
        for entry in entries(&folder)? {
            let name = entry.file_name();
            let Some(digest) = name
                .to_str()
                .and_then(|name| name.strip_suffix(".squashfs"))
            else {
                continue;
            };
            if kept.contains(digest) {
                continue;
            }
            if let Some(digest) = unplain(digest) {
                size += entry.metadata().map_or(0, |found| found.blocks() * 512);
                layers.push(digest);
            }
        }
        layers.sort_by(|a, b| a.digits().cmp(b.digits()));
        let images = gone.into_iter().map(|image| image.id).collect();
        Ok(Prunable {
            images,
            layers,
            size,
        })
    }

    /// Removes images, their names, and the layers that no other image has. A pull
    /// under way that misses a layer then ([`Store::publish`]) makes it again.
    ///
    /// # Errors
    /// What the system says; what was removed until then is gone.
    pub fn prune(
        &self,
        wanted: &BTreeSet<String>,
        named_too: bool,
    ) -> Result<Prunable, StoreError> {
        let _lock = self.lock_all()?;
        let prunable = self.prunable(wanted, named_too)?;
        // Names and images first: an image never lacks a layer.
        for name in self.names()? {
            if prunable.images.contains(&name.image) {
                self.remove(&self.name_file(&name.name))?;
            }
        }
        for image in &prunable.images {
            self.remove(&self.image_file(image))?;
        }
        for layer in &prunable.layers {
            self.remove(&self.layer(layer))?;
            self.remove(&self.opaque_mark(layer))?;
            self.remove(&self.folders_file(layer))?;
        }
        Ok(prunable)
    }

    /// Removes one image with its names, and the layers that no other image has.
    ///
    /// # Errors
    /// What the system says; what was removed until then is gone.
    pub fn remove_image(&self, id: &Digest) -> Result<Prunable, StoreError> {
        let others = self.images()?.into_iter().map(|image| image.id.to_string());
        let others = others.filter(|other| *other != id.to_string()).collect();
        self.prune(&others, true)
    }

    /// Removes what pulls left in `work/`: all whose lock nobody holds. Waits for
    /// nobody: where another has the store's lock, the next sweep does it.
    ///
    /// # Errors
    /// What the system says.
    pub fn sweep(&self) -> Result<(), StoreError> {
        let store = File::open(&self.root).map_err(failed("open", &self.root))?;
        match store.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &self.root)(error)),
        }
        let folder = self.work_folder();
        for entry in entries(&folder)? {
            let path = entry.path();
            let is_folder = path.is_dir();
            let lock = match is_folder {
                true => File::open(path.join("lock")),
                false => File::open(&path),
            };
            // Nobody waits for the lock of a folder. Who waits for a layer's may have
            // one of no name then, which costs no more than work that is done twice.
            let lock = match lock.map(|lock| (lock.try_lock(), lock)) {
                Ok((Err(TryLockError::WouldBlock), _)) => continue,
                taken => taken,
            };
            let removed = step("store.sweep", || match is_folder {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            });
            removed.map_err(failed("remove", &path))?;
            drop(lock);
        }
        Ok(())
    }

    fn image_file(&self, id: &Digest) -> PathBuf {
        self.root.join(IMAGES).join(format!("{}.json", plain(id)))
    }

    /// A name has characters that a file's name cannot have.
    fn name_file(&self, name: &str) -> PathBuf {
        let digest = Sha256::digest(name.as_bytes());
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.root.join(NAMES).join(format!("{digits}.json"))
    }

    fn write(&self, path: &Path, record: &impl Serialize) -> Result<(), StoreError> {
        self.put(
            path,
            serde_json::to_vec_pretty(record).map_err(io::Error::other),
        )
    }

    fn put(&self, path: &Path, json: io::Result<Vec<u8>>) -> Result<(), StoreError> {
        let written = step("store.write", || {
            let folder = path.parent().unwrap_or(&self.root);
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&json?)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            File::open(folder)?.sync_all()
        });
        written.map_err(failed("write", path))
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match step("store.remove", || fs::remove_file(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed("remove", path)),
        }
    }
}

/// The folder of one pull.
#[derive(Debug)]
pub struct Work {
    folder: tempfile::TempDir,
    _lock: Lock,
}

impl Work {
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// What is in a folder; nothing before the first pull has made it.
fn entries(folder: &Path) -> Result<impl Iterator<Item = fs::DirEntry> + use<>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries.map_err(failed("read", folder))?),
    };
    Ok(entries.into_iter().flatten().flatten())
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let json = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        json => json.map_err(failed("read", path))?,
    };
    let record = serde_json::from_slice(&json).map_err(|source| StoreError::Record {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(record))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path },
        _ => StoreError::File {
            operation,
            path,
            source,
        },
    }
}

/// A digest as a file's name: `sha256-…`.
fn plain(digest: &Digest) -> String {
    digest.to_string().replacen(':', "-", 1)
}

fn unplain(name: &str) -> Option<Digest> {
    name.replacen('-', ":", 1).parse().ok()
}

fn step<T>(name: &str, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    around(name, |error| error, act)
}

#[cfg(test)]
mod tests;
