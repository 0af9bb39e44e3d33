//! Images: which are here, bringing and making them, removing them.
//!
//! ```text
//!  PullImage ───► unit aegis-pull-N: aegis-image ────► store ◄─ instances' layers
//!  ImportImage ─► unit aegis-import-N: aegis-image ──────┤▲
//!  RemoveImage, PruneImages ─────────────────────────────┘
//! ```
//!
//! The store's files are the truth; the board shows what was read of them.

mod bring;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aegis_bus::image::{ImageConfig, ImageView, PruneImagesOptions};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::platform::Platform;
use aegis_image::digest;
use aegis_image::document::{self, PlatformError};
use aegis_image::name::ImageName;
use aegis_image::record::{Config, Image, Name};
use aegis_image::store::{Prunable, Store, StoreError};

use crate::board::Board;
use crate::effects;
use crate::host::Host;
use crate::instance::{blocking, supervisor_fault};
use crate::supervisor::SupervisorError;
use crate::supervisor::plan::is_plain_path;

pub use bring::{Archive, Given, import, pull};

/// Why something cannot be done with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("'{name}' does not name an image")]
    Name {
        name: String,
        #[source]
        source: aegis_image::name::NameError,
    },
    #[error("there is no image '{0}' here")]
    Missing(String),
    #[error("'{0}' is the beginning of several images' digests")]
    Ambiguous(String),
    #[error("the image '{name}' that is here is for {found}, not for {wanted}")]
    OtherPlatform {
        name: String,
        found: String,
        wanted: Platform,
    },
    #[error("records of instances cannot be read, so nobody knows what images they use")]
    UnknownUsers,
    #[error("the image '{name}' is used by {}", .users.join(", "))]
    Used { name: String, users: Vec<String> },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the folder of the images {path} cannot be made", path = path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot pass the order to the program that pulls and imports")]
    Pass(#[source] io::Error),
    #[error("the program that pulls and imports ended without a word, as the unit {0}")]
    Silent(String),
    #[error("the program that pulls and imports said something that is not understood")]
    Garbled(#[source] serde_json::Error),
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The program's own words.
    #[error(transparent)]
    Failed(Fault),
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    #[error("it was cancelled")]
    Cancelled,
}

impl ImageError {
    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        let fault = |symbol| Fault::from_error(symbol, self);
        match self {
            Self::Name { .. } | Self::Platform(_) => fault(Symbol::InvalidArgument),
            Self::Missing(name) => fault(Symbol::ImageUnavailable)
                .with_hint(format!("pull it: aegisctl image pull {name}")),
            Self::Ambiguous(_) => fault(Symbol::InvalidArgument).with_hint("give more digits"),
            Self::OtherPlatform { name, wanted, .. } => fault(Symbol::ImagePlatform).with_hint(
                format!("bring the other one here: aegisctl image pull --platform {wanted} {name}"),
            ),
            Self::Used { .. } => fault(Symbol::WrongState)
                .with_hint("delete these instances first: aegisctl instance delete NAME"),
            Self::Store(StoreError::Full { .. }) => fault(Symbol::NoSpace)
                .with_hint("make room: aegisctl image prune, or delete instances"),
            Self::Silent(unit) => fault(Symbol::Internal).with_hint(format!(
                "its words are in the journal: journalctl -u {unit}"
            )),
            Self::Failed(fault) => fault.clone(),
            Self::Supervisor(error) => supervisor_fault(error),
            Self::UnknownUsers => {
                fault(Symbol::RegistryFailed).with_hint("'aegisctl doctor' names them")
            }
            Self::Cancelled => fault(Symbol::Cancelled),
            Self::Store(_) | Self::Folder { .. } | Self::Pass(_) | Self::Garbled(_) => {
                fault(Symbol::Internal)
            }
        }
    }
}

/// What went, for the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Images, by their identity.
    pub images: Vec<String>,
    /// Bytes that are free now.
    pub size: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Images {
    store: Store,
    board: Arc<Board>,
    /// The store's folder as units are told it.
    plain: PathBuf,
    /// Held for reading while an instance is made of an image, and for writing while
    /// images go.
    stays: tokio::sync::RwLock<()>,
}

impl Images {
    /// The images in the layout's folder, which is made if it is missing.
    ///
    /// # Errors
    /// What the system says about the folder.
    pub fn open(host: &Host, board: Arc<Board>) -> Result<Self, ImageError> {
        let root = host.layout.images();
        let failed = |source| ImageError::Folder {
            path: root.clone(),
            source,
        };
        let store = Store::at(&root);
        for folder in [&root, &store.work_folder()] {
            if !folder.is_dir() {
                effects::make_folders(folder).map_err(failed)?;
                effects::protect(folder, 0o700).map_err(failed)?;
                if let Some(owner) = host.unit_owner {
                    effects::give(folder, owner.uid, owner.gid).map_err(failed)?;
                }
            }
        }
        let plain = plain(host, &root).map_err(failed)?;
        let images = Self {
            store,
            board,
            plain,
            stays: tokio::sync::RwLock::default(),
        };
        images.sweep();
        images.show();
        Ok(images)
    }

    /// Removes what pulls left that did not end. Blocks.
    fn sweep(&self) {
        if let Err(error) = self.store.sweep() {
            tracing::warn!("what an earlier pull left stays: {error}, ignoring");
        }
    }

    /// Shows what pulls bring that an earlier aegisd began.
    pub fn await_pulls(self: &Arc<Self>) {
        let this = self.clone();
        // Not one of the runtime's threads: its end would wait for this one.
        std::thread::spawn(move || match this.store.wait_for_pulls() {
            Ok(true) => {
                this.sweep();
                this.show();
            }
            Ok(false) => {}
            Err(error) => tracing::warn!("cannot wait for pulls: {error}, ignoring"),
        });
    }

    /// The store's folder as units are told it.
    pub fn plain(&self) -> &Path {
        &self.plain
    }

    /// The store itself.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Keeps every image here until the guard goes.
    pub async fn keep(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.stays.read().await
    }

    /// Reads the store and shows it.
    pub fn show(&self) {
        let read = || Ok::<_, StoreError>((self.store.images()?, self.store.names()?));
        match read() {
            Ok((images, names)) => {
                let views = images.into_iter().map(|image| {
                    let digits = image.id.digits().to_owned();
                    (digits, Arc::new(view(&image, &names)))
                });
                let views: BTreeMap<_, _> = views.collect();
                self.board.show_images(views);
            }
            Err(error) => tracing::error!("the images cannot be read: {error}, ignoring"),
        }
    }

    /// The image of a name as it was last looked up, or of an identity or the
    /// beginning of one. Blocks.
    ///
    /// # Errors
    /// [`ImageError::Missing`] among others.
    pub fn find(&self, text: &str) -> Result<Image, ImageError> {
        let named = match text.parse::<ImageName>() {
            Ok(name) => self.store.name(&name.to_string())?,
            Err(_) => None,
        };
        if let Some(named) = named
            && let Some(image) = self.store.image(&named.image)?
        {
            return Ok(image);
        }
        let Some(digits) = digest::beginning(text) else {
            return Err(self.missing(text));
        };
        let mut images = self.store.images()?;
        images.retain(|image| image.id.digits().starts_with(digits));
        match images.len() {
            0 => Err(self.missing(text)),
            1 => Ok(images.remove(0)),
            _ => Err(ImageError::Ambiguous(text.to_owned())),
        }
    }

    /// The image of a name or an identity, if guests of a platform run it. Blocks.
    ///
    /// # Errors
    /// [`ImageError::OtherPlatform`], and those of [`Images::find`].
    pub fn find_for(&self, text: &str, wanted: Platform) -> Result<Image, ImageError> {
        let image = self.find(text)?;
        let made_for = image.platform.parse::<document::Platform>();
        let wanted_by_guest = document::Platform::from(wanted);
        match made_for.is_ok_and(|made_for| wanted_by_guest.accepts(&made_for)) {
            true => Ok(image),
            false => Err(ImageError::OtherPlatform {
                name: text.to_owned(),
                found: image.platform,
                wanted,
            }),
        }
    }

    fn missing(&self, text: &str) -> ImageError {
        match text.parse::<ImageName>() {
            Ok(_) => ImageError::Missing(text.to_owned()),
            Err(source) => ImageError::Name {
                name: text.to_owned(),
                source,
            },
        }
    }

    /// Removes a name, and its image where that was the last one; or an image by its
    /// identity. `users` has the instances of each image.
    ///
    /// # Errors
    /// It is used, or there is none.
    pub async fn remove(
        self: &Arc<Self>,
        text: &str,
        users: &Users,
    ) -> Result<Removed, ImageError> {
        let _all = self.stays.write().await;
        let (this, text, users) = (self.clone(), text.to_owned(), users.clone());
        blocking(move || {
            let image = this.find(&text)?;
            let names = this.store.names()?;
            let own: Vec<&Name> = names.iter().filter(|name| name.image == image.id).collect();
            let named = text.parse::<ImageName>().ok().map(|name| name.to_string());
            let named = own.iter().find(|name| Some(&name.name) == named.as_ref());
            if let (Some(name), true) = (named, own.len() > 1) {
                this.store.forget(&name.name)?;
                this.show();
                return Ok(Removed::default());
            }
            if let Some(users) = users.get(&image.id.to_string()) {
                return Err(ImageError::Used {
                    name: text,
                    users: users.clone(),
                });
            }
            let gone = this.store.remove_image(&image.id);
            this.show();
            Ok(gone?.into())
        })
        .await
    }

    /// Removes what nothing uses, or only tells of it.
    ///
    /// # Errors
    /// What the store says.
    pub async fn prune(
        self: &Arc<Self>,
        options: PruneImagesOptions,
        users: &Users,
    ) -> Result<Removed, ImageError> {
        let _all = self.stays.write().await;
        let wanted: BTreeSet<String> = users.keys().cloned().collect();
        let this = self.clone();
        blocking(move || {
            let gone = match options.dry_run {
                true => this.store.prunable(&wanted, options.all),
                false => this.store.prune(&wanted, options.all),
            };
            this.show();
            Ok(gone?.into())
        })
        .await
    }
}

/// A folder with a name that units can carry: a link where its own is not so.
fn plain(host: &Host, root: &Path) -> io::Result<PathBuf> {
    if is_plain_path(root) {
        return Ok(root.to_owned());
    }
    let name = host.layout.runtime.join("images");
    if fs::read_link(&name).is_ok_and(|target| target == root) {
        return Ok(name);
    }
    if fs::symlink_metadata(&name).is_ok() {
        effects::remove_file(&name)?;
    }
    effects::link(root, &name)?;
    Ok(name)
}

/// The handles of the instances of each image, by its identity.
pub type Users = BTreeMap<String, Vec<String>>;

impl From<Prunable> for Removed {
    fn from(prunable: Prunable) -> Self {
        Self {
            images: prunable.images.iter().map(ToString::to_string).collect(),
            size: prunable.size,
        }
    }
}

fn view(image: &Image, names: &[Name]) -> ImageView {
    let own = || names.iter().filter(|name| name.image == image.id);
    let config = &image.config;
    ImageView {
        id: image.id.to_string(),
        names: own().map(|name| name.name.clone()).collect(),
        manifest: image
            .manifest
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        platform: image.platform.clone(),
        created: image.created.clone().unwrap_or_default(),
        pulled_at_us: own().map(|name| name.pulled_us).max().unwrap_or_default(),
        size: image.size(),
        layers: image
            .layers
            .iter()
            .map(|layer| (layer.diff_id.to_string(), layer.size))
            .collect(),
        config: ImageConfig {
            env: config.env.clone(),
            entrypoint: config.entrypoint.clone(),
            command: config.cmd.clone(),
            workdir: config.workdir.clone().unwrap_or_default(),
            user: config.user.clone().unwrap_or_default(),
            stop_signal: config.stop_signal.clone().unwrap_or_default(),
            exposed: config.exposed.clone(),
            labels: config.labels.clone(),
        },
    }
}

/// What an image shall say about its programs, as a client puts it.
pub fn config(wanted: ImageConfig) -> Config {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Config {
        env: wanted.env,
        entrypoint: wanted.entrypoint,
        cmd: wanted.command,
        workdir: some(wanted.workdir),
        user: some(wanted.user),
        stop_signal: some(wanted.stop_signal),
        exposed: wanted.exposed,
        labels: wanted.labels,
    }
}
