//! The files of keys, beside the registry. Each is written whole and on the disk before
//! it has its name.
//!
//! | file | the key in it |
//! |---|---|
//! | `secrets.key` | the one that values are encrypted with |
//! | `secrets.next.key` | the one that they are being encrypted anew with |
//! | `secrets.ID.key` | one that did not open when a key was needed; it counts again once it opens |
//! | `secrets.new` | a file that is being written |
//!
//! A key that was made in clear stays so until the next rotation, whose key is sealed
//! if it can be. To seal the same key later would hide little, since the disk and
//! backups have had it in clear, and would make those backups the only copy that opens
//! on another host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::key::{KeptKey, Key, KeyId, SealedKey};
use super::sealer::{Sealer, SealerError, seal_surely};
use crate::effects;
use crate::instance::blocking;

/// Most bytes of a key's file.
const LONGEST: u64 = 128 * 1024;

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot {operation} the key {path}")]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the key {0} is open to others: its mode must be 0600")]
    Exposed(PathBuf),
    #[error("{0} is not a key that this version knows")]
    Form(PathBuf),
    #[error("the kernel gives no random bytes")]
    Random(#[source] getrandom::Error),
    #[error("the key {path} does not open")]
    Shut {
        path: PathBuf,
        #[source]
        source: SealerError,
    },
    /// The one before is sealed, and a new one is to be no worse.
    #[error("a new key cannot be sealed")]
    Seal(#[source] SealerError),
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exposed(path) => Some(format!(
                "if nobody else has read it: chmod 600 {0}; else remove it and set the secrets again",
                path.display()
            )),
            Self::Form(path) => Some(format!(
                "put the right file back, or remove {} and set the secrets again",
                path.display()
            )),
            Self::Shut { .. } | Self::Seal(_) => Some(
                "put back what the key was sealed with; 'aegisctl secret status' tells more"
                    .to_owned(),
            ),
            Self::File { .. } | Self::Random(_) => None,
        }
    }
}

/// The key in use, as it can be seen.
#[derive(Debug)]
pub struct Look {
    pub id: KeyId,
    /// The sealer's name and what it opens with; `None` of a key in clear.
    pub sealed: Option<(String, &'static str)>,
    /// Why it does not open, if it does not.
    pub shut: Option<SealerError>,
}

/// The keys of one registry.
#[derive(Debug)]
pub struct KeyStore {
    path: PathBuf,
    sealer: Option<Box<dyn Sealer>>,
    /// Sealed keys that were opened, by what their files say. Opened one at a time:
    /// all units of a boot ask for the same one at once.
    opened: Mutex<BTreeMap<String, Key>>,
    /// Held while the key in use is made.
    making: Mutex<()>,
}

impl KeyStore {
    /// Keys that that sealer seals, if there is one; the one in use is at that path.
    pub fn new(path: PathBuf, sealer: Option<Box<dyn Sealer>>) -> Self {
        Self {
            path,
            sealer,
            opened: Mutex::default(),
            making: Mutex::default(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key to encrypt with; made if there is none. If the one there is does not open
    /// though keys can be sealed and opened here, it is lost: it is put aside, as it is,
    /// and another one is made.
    ///
    /// # Errors
    /// It cannot be read, opened or made.
    pub async fn current(&self) -> Result<Key, KeyError> {
        let _one = self.making.lock().await;
        let Some(kept) = read(&self.path).await? else {
            let (key, kept) = self.fresh(false).await?;
            self.write(&kept, self.path.clone()).await?;
            tracing::info!(
                "made a new key for secrets: {} in {}",
                key.id(),
                self.path.display()
            );
            return Ok(key);
        };
        let shut = match self.open(&self.path, &kept).await {
            Err(KeyError::Shut { path, source }) => KeyError::Shut { path, source },
            other => return other,
        };
        if let KeyError::Shut {
            source: SealerError::Unknown(_),
            ..
        } = shut
        {
            return Err(shut);
        }
        // A sealer that does not work now says nothing about the key.
        let Ok((key, fresh)) = self.fresh(true).await else {
            return Err(shut);
        };
        self.rename(self.path.clone(), self.aside(kept.id()))
            .await?;
        self.write(&fresh, self.path.clone()).await?;
        tracing::warn!(
            "the key {} of secrets is lost, {} takes its place: {}",
            kept.id(),
            key.id(),
            aegis_core::fault::chain(&shut)
        );
        Ok(key)
    }

    /// The key of an id; `None` if there is none. Files are read anew each time: one
    /// that is put back counts at once.
    ///
    /// # Errors
    /// It is there and cannot be read or opened.
    pub async fn find(&self, id: KeyId) -> Result<Option<Key>, KeyError> {
        for path in [self.path.clone(), self.next(), self.aside(id)] {
            if let Some(kept) = read(&path).await?
                && kept.id() == id
            {
                return self.open(&path, &kept).await.map(Some);
            }
        }
        Ok(None)
    }

    /// What the key in use is like, as it opens now; `None` if there is none.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub async fn look(&self) -> Result<Option<Look>, KeyError> {
        let Some(kept) = read(&self.path).await? else {
            return Ok(None);
        };
        let sealed = match &kept {
            KeptKey::Clear(_) => None,
            KeptKey::Sealed(sealed) => Some((
                sealed.sealed_by.clone(),
                self.sealer_of(sealed)
                    .map_or("", |sealer| sealer.bound_to(&sealed.sealed)),
            )),
        };
        let shut = match &kept {
            KeptKey::Clear(_) => None,
            // Not what it was when it was opened first.
            KeptKey::Sealed(sealed) => self.unseal(sealed).await.err(),
        };
        Ok(Some(Look {
            id: kept.id(),
            sealed,
            shut,
        }))
    }

    /// Whether a new key would be sealed: one is, and forgotten.
    ///
    /// # Errors
    /// Why not.
    pub async fn try_sealer(&self) -> Result<&'static str, SealerError> {
        let sealer = self.sealer.as_deref().ok_or(SealerError::None)?;
        let Ok(key) = Key::random() else {
            return Err(SealerError::None);
        };
        let sealed = seal_surely(sealer, &key).await?;
        sealer.forget(key.id(), &sealed).await?;
        Ok(sealer.name())
    }

    /// Makes the key that values are to be encrypted anew with, beside the one in use.
    ///
    /// # Errors
    /// It cannot be made, or not as well as the one before.
    pub async fn make_next(&self) -> Result<Key, KeyError> {
        let before = read(&self.path).await?;
        let must_seal = matches!(before, Some(KeptKey::Sealed(_)));
        let (key, kept) = self.fresh(must_seal).await?;
        self.write(&kept, self.next()).await?;
        Ok(key)
    }

    /// The key that [`Self::make_next`] made, if it did not come to an end.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub async fn unsettled(&self) -> Result<Option<KeyId>, KeyError> {
        Ok(read(&self.next()).await?.map(|kept| kept.id()))
    }

    /// Puts the next key in the place of the one in use, which goes, unless one of these
    /// ids, that values are encrypted with, is its own.
    ///
    /// # Errors
    /// A file cannot be changed.
    pub async fn promote_next(&self, used: &BTreeSet<KeyId>) -> Result<(), KeyError> {
        match read(&self.path).await? {
            Some(kept) if used.contains(&kept.id()) => {
                self.rename(self.path.clone(), self.aside(kept.id()))
                    .await?;
            }
            Some(KeptKey::Sealed(sealed)) => self.forget(&self.path, &sealed).await?,
            Some(KeptKey::Clear(_)) | None => {}
        }
        self.rename(self.next(), self.path.clone()).await?;
        self.opened.lock().await.clear();
        Ok(())
    }

    /// Removes the next key.
    ///
    /// # Errors
    /// Its file cannot be removed.
    pub async fn drop_next(&self) -> Result<(), KeyError> {
        self.discard(self.next()).await
    }

    /// Removes what an interrupted write left.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn drop_unwritten(&self) -> Result<(), KeyError> {
        let path = self.unwritten();
        blocking(move || match path.try_exists() {
            Ok(false) => Ok(()),
            _ => remove(&path),
        })
        .await
    }

    /// Removes the keys put aside that no value is encrypted with any more.
    ///
    /// # Errors
    /// The folder cannot be read, or a file cannot be removed.
    pub async fn drop_unused(&self, used: &BTreeSet<KeyId>) -> Result<(), KeyError> {
        let folder = self.folder();
        let names = blocking(move || {
            let entries = std::fs::read_dir(&folder).map_err(failed("list", &folder))?;
            let names = entries
                .filter_map(Result::ok)
                .map(|entry| entry.file_name());
            Ok::<Vec<_>, KeyError>(names.collect())
        });
        for name in names.await? {
            let name = name.to_string_lossy();
            let middle = name.strip_prefix("secrets.");
            let id = middle.and_then(|rest| KeyId::parse(rest.strip_suffix(".key")?));
            if let Some(id) = id
                && !used.contains(&id)
            {
                self.discard(self.aside(id)).await?;
            }
        }
        Ok(())
    }

    /// A new key and how it is to be kept.
    async fn fresh(&self, must_seal: bool) -> Result<(Key, KeptKey), KeyError> {
        let key = Key::random().map_err(KeyError::Random)?;
        let sealed = match self.sealer.as_deref() {
            Some(sealer) => seal_surely(sealer, &key).await.map(|sealed| SealedKey {
                id: key.id(),
                sealed_by: sealer.name().to_owned(),
                sealed,
            }),
            None => Err(SealerError::None),
        };
        let kept = match sealed {
            Ok(sealed) => KeptKey::Sealed(sealed),
            Err(error) if must_seal => return Err(KeyError::Seal(error)),
            Err(error) => {
                let why = aegis_core::fault::chain(&error);
                tracing::warn!("the new key of secrets is not sealed: {why}, ignoring");
                KeptKey::Clear(key.clone())
            }
        };
        Ok((key, kept))
    }

    async fn open(&self, path: &Path, kept: &KeptKey) -> Result<Key, KeyError> {
        let sealed = match kept {
            KeptKey::Clear(key) => return Ok(key.clone()),
            KeptKey::Sealed(sealed) => sealed,
        };
        let mut opened = self.opened.lock().await;
        if let Some(key) = opened.get(&sealed.sealed)
            && key.id() == sealed.id
        {
            return Ok(key.clone());
        }
        let key = self.unseal(sealed).await;
        let key = key.map_err(|source| KeyError::Shut {
            path: path.to_owned(),
            source,
        })?;
        opened.insert(sealed.sealed.clone(), key.clone());
        Ok(key)
    }

    async fn unseal(&self, sealed: &SealedKey) -> Result<Key, SealerError> {
        let sealer = self
            .sealer_of(sealed)
            .ok_or_else(|| SealerError::Unknown(sealed.sealed_by.clone()))?;
        let bytes = sealer.unseal(sealed.id, &sealed.sealed).await?;
        Ok(Key::new(sealed.id, bytes))
    }

    fn sealer_of(&self, sealed: &SealedKey) -> Option<&dyn Sealer> {
        let sealer = self.sealer.as_deref()?;
        (sealer.name() == sealed.sealed_by).then_some(sealer)
    }

    async fn forget(&self, path: &Path, sealed: &SealedKey) -> Result<(), KeyError> {
        let Some(sealer) = self.sealer_of(sealed) else {
            return Ok(());
        };
        let forgotten = sealer.forget(sealed.id, &sealed.sealed).await;
        forgotten.map_err(|source| KeyError::Shut {
            path: path.to_owned(),
            source,
        })
    }

    async fn discard(&self, path: PathBuf) -> Result<(), KeyError> {
        if let Some(KeptKey::Sealed(sealed)) = read(&path).await? {
            self.forget(&path, &sealed).await?;
        }
        blocking(move || remove(&path)).await
    }

    async fn write(&self, kept: &KeptKey, path: PathBuf) -> Result<(), KeyError> {
        let (fresh, folder, content) = (self.unwritten(), self.folder(), kept.to_file());
        blocking(move || {
            remove(&fresh)?;
            let written =
                effects::write_new(&fresh, &content).and_then(|()| effects::rename(&fresh, &path));
            if let Err(error) = written {
                // What went wrong first is the news.
                drop(remove(&fresh));
                return Err(failed("write", &path)(error));
            }
            sync(&folder)
        })
        .await
    }

    async fn rename(&self, from: PathBuf, to: PathBuf) -> Result<(), KeyError> {
        let folder = self.folder();
        blocking(move || {
            effects::rename(&from, &to).map_err(failed("rename", &from))?;
            sync(&folder)
        })
        .await
    }

    fn folder(&self) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).to_owned()
    }

    fn next(&self) -> PathBuf {
        self.path.with_extension("next.key")
    }

    fn aside(&self, id: KeyId) -> PathBuf {
        self.path.with_extension(format!("{id}.key"))
    }

    fn unwritten(&self) -> PathBuf {
        self.path.with_extension("new")
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::File {
        operation,
        path,
        source,
    }
}

fn remove(path: &Path) -> Result<(), KeyError> {
    match effects::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> Result<(), KeyError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed("write", folder))
}

async fn read(path: &Path) -> Result<Option<KeptKey>, KeyError> {
    let path = path.to_owned();
    blocking(move || read_blocking(&path)).await
}

fn read_blocking(path: &Path) -> Result<Option<KeptKey>, KeyError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed("open", path)(error.into())),
    };
    let metadata = file.metadata().map_err(failed("examine", path))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(KeyError::Exposed(path.to_owned()));
    }
    // No copy of it is left where it grew from.
    let length = metadata.len().min(LONGEST);
    let room = usize::try_from(length).unwrap_or_default() + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    let taken = file.take(length).read_to_end(&mut content);
    taken.map_err(failed("read", path))?;
    let kept = KeptKey::from_file(&content);
    kept.map(Some)
        .ok_or_else(|| KeyError::Form(path.to_owned()))
}

#[cfg(test)]
mod tests;
