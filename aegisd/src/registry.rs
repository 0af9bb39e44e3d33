//! The registry: what users want, kept across crashes and reboots.
//!
//! It holds intent alone: which instances there are, as what, and whether they
//! are enabled. What runs is the service manager's to say. Only aegisd opens it,
//! and in aegisd only the thread of this module, which owns the connection;
//! everybody else sends it work and waits.
//!
//! ```text
//!   Registry (handle) ──bounded queue──► thread "registry" ──► Store ──► SQLite (WAL)
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`given`] | which versions of secrets units were given |
//! | [`messages`] | messages of instances |
//! | [`record`] | one instance as it is wanted |
//! | [`secrets`] | secrets, as ciphertext |
//! | `store` | the tables: migrations, reading, writing |

pub mod given;
pub mod messages;
pub mod record;
pub mod secrets;
mod store;

use std::path::{Path, PathBuf};
use std::thread;

use aegis_core::fault::{Fault, Symbol};
use aegis_core::handle::Handle;
use aegis_core::secret::SecretName;
use aegis_core::tether::Frame;
use tokio::sync::{mpsc, oneshot};

pub use given::{Given, SecretId, Versions};
pub use messages::{Bounds, Kept, MessageQuery};
pub use record::{Intent, Record};
pub use secrets::{KeptSecret, Owner, Reencrypted};
use store::Store;
pub use store::{Loaded, Quarantined, SCHEMA_VERSION};

/// Calls that may wait for the registry's thread. A call takes about a
/// millisecond, so more than this many at once is an overload to push back on.
const QUEUE: usize = 64;

/// Why the registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Its file cannot be made or opened.
    #[error("cannot open the registry {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: OpenError,
    },
    /// A newer version wrote it.
    #[error(
        "the registry {path} was written by a newer version (its schema is {found}, this version knows up to {known})"
    )]
    TooNew {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    /// A migration, read or write failed.
    #[error("cannot {operation} the registry")]
    Sql {
        operation: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    /// A record cannot be put into words.
    #[error("cannot write down the instance '{handle}'")]
    Encode {
        handle: Handle,
        #[source]
        source: serde_json::Error,
    },
    /// The handle is taken, perhaps in another case or by an unreadable record.
    #[error("there is an instance '{0}' already")]
    Taken(String),
    /// The instance that something was to be kept for was deleted meanwhile.
    #[error("there is no instance '{0}'")]
    NoInstance(Handle),
    #[error("too many messages of '{0}' wait for its guest")]
    TooManyMessages(Handle),
    #[error("there is no secret '{0}'")]
    NoSecret(String),
    #[error("there are secrets of these names already: {}", .0.join(", "))]
    SecretsTaken(Vec<String>),
    #[error("the secret '{name}' is used by {}", .users.join(", "))]
    SecretInUse {
        name: SecretName,
        users: Vec<String>,
    },
    /// The thread that owns it has ended.
    #[error("the registry is closed")]
    Closed,
}

/// Why the registry's file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

impl OpenError {
    fn is_full(&self) -> bool {
        match self {
            Self::Io(error) => error.kind() == std::io::ErrorKind::StorageFull,
            Self::Sql(error) => is_full(error),
        }
    }
}

impl RegistryError {
    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        let fault = |symbol| Fault::from_error(symbol, self);
        match self {
            Self::TooNew { .. } => fault(Symbol::RegistryTooNew)
                .with_hint("install the newer version again, or move the file away to start anew"),
            Self::Taken(_) => fault(Symbol::AlreadyExists)
                .with_hint("choose another name, or delete the instance of that name"),
            Self::Open { source, .. } if source.is_full() => {
                fault(Symbol::NoSpace).with_hint("free some space on the disk of the registry")
            }
            Self::NoInstance(_) => fault(Symbol::NotFound),
            Self::TooManyMessages(name) => fault(Symbol::NoSpace).with_hint(format!(
                "its program takes none: 'aegisctl instance info {name}' shows how it is"
            )),
            Self::NoSecret(name) => fault(Symbol::SecretNotFound)
                .with_hint(format!("set it: aegisctl secret set {name}")),
            Self::SecretsTaken(_) => fault(Symbol::AlreadyExists)
                .with_hint("leave them out, or add --replace; none was changed"),
            Self::SecretInUse { name, .. } => fault(Symbol::SecretInUse).with_hint(format!(
                "delete the instances first; or 'aegisctl secret delete --force {name}', and their next start fails"
            )),
            Self::Open { .. } => fault(Symbol::RegistryFailed)
                .with_hint("check the owner and the permissions of the file and its folder"),
            Self::Sql { source, .. } if is_full(source) => {
                fault(Symbol::NoSpace).with_hint("free some space on the disk of the registry")
            }
            Self::Sql { .. } | Self::Encode { .. } | Self::Closed => fault(Symbol::RegistryFailed),
        }
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

type Work = Box<dyn FnOnce(&mut Store) + Send>;

/// The way to the registry's thread. Clones lead to the same thread, which ends
/// with the last of them.
#[derive(Clone, Debug)]
pub struct Registry {
    queue: mpsc::Sender<Work>,
}

impl Registry {
    /// Opens the registry, makes it if it is missing and migrates it. Blocks.
    ///
    /// # Errors
    /// The file cannot be used, or a newer version wrote it.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let mut store = Store::open(path)?;
        let (queue, mut works) = mpsc::channel::<Work>(QUEUE);
        thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || {
                while let Some(work) = works.blocking_recv() {
                    work(&mut store);
                }
            })
            .map_err(|source| RegistryError::Open {
                path: path.to_owned(),
                source: source.into(),
            })?;
        Ok(Self { queue })
    }

    /// A registry that answers every call with [`RegistryError::Closed`].
    pub fn closed() -> Self {
        Self {
            queue: mpsc::channel(1).0,
        }
    }

    /// Every record, and those that cannot be read.
    ///
    /// # Errors
    /// The table cannot be read at all.
    pub async fn load(&self) -> Result<Loaded, RegistryError> {
        self.call(|store| store.load()).await
    }

    /// Writes a new record and the secrets that are the instance's own.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] where the name is in use without regard to case.
    /// [`RegistryError::NoSecret`] where the record names one that is not there.
    pub async fn insert(&self, record: Record, own: Vec<KeptSecret>) -> Result<(), RegistryError> {
        self.call(move |store| store.insert(&record, &own)).await
    }

    /// Writes a record in place of the one of that handle.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn update(&self, record: Record) -> Result<(), RegistryError> {
        self.call(move |store| store.update(&record)).await
    }

    /// Forgets a record. One that is not there is forgotten already.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn remove(&self, handle: Handle) -> Result<(), RegistryError> {
        self.call(move |store| store.remove(&handle)).await
    }

    /// Writes secrets, all or none.
    ///
    /// # Errors
    /// [`RegistryError::SecretsTaken`] where names are in use, unless they `replace` those.
    pub async fn set_secrets(
        &self,
        owner: Owner,
        secrets: Vec<KeptSecret>,
        replace: bool,
    ) -> Result<(), RegistryError> {
        self.call(move |store| store.set_secrets(&owner, &secrets, replace))
            .await
    }

    /// Every secret, with its owner as [`Owner::key`] has it.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn all_secrets(&self) -> Result<Vec<(String, KeptSecret)>, RegistryError> {
        self.call(|store| store.all_secrets()).await
    }

    /// Puts values encrypted anew in the place of those they were made of, all or none.
    ///
    /// # Errors
    /// They cannot be written.
    pub async fn reencrypt(&self, values: Vec<Reencrypted>) -> Result<(), RegistryError> {
        self.call(move |store| store.reencrypt(&values)).await
    }

    /// All secrets of an owner.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn secrets(&self, owner: Owner) -> Result<Vec<KeptSecret>, RegistryError> {
        self.call(move |store| store.secrets(&owner)).await
    }

    /// The secret of a name.
    ///
    /// # Errors
    /// [`RegistryError::NoSecret`].
    pub async fn secret(&self, owner: Owner, name: String) -> Result<KeptSecret, RegistryError> {
        self.call(move |store| match store.secret(&owner, &name)? {
            Some(secret) => Ok(secret),
            None => Err(RegistryError::NoSecret(name)),
        })
        .await
    }

    /// Forgets a secret; returns the instances that used it.
    ///
    /// # Errors
    /// [`RegistryError::NoSecret`], or [`RegistryError::SecretInUse`] unless forced.
    pub async fn delete_secret(
        &self,
        name: SecretName,
        force: bool,
    ) -> Result<Vec<String>, RegistryError> {
        self.call(move |store| store.delete_secret(&name, force))
            .await
    }

    /// The instances that use a secret.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn secret_users(&self, name: SecretName) -> Result<Vec<String>, RegistryError> {
        self.call(move |store| store.secret_users(&name)).await
    }

    /// Notes what a run of a unit is given, whose machine is found by itself: one `on_disk`
    /// goes on with what it has.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn note_given(
        &self,
        instance: Handle,
        given: Given,
        on_disk: bool,
    ) -> Result<(), RegistryError> {
        self.call(move |store| store.note_given(&instance, &given, on_disk))
            .await
    }

    /// Drops what a unit was given; where nothing is noted nothing is written.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn forget_given(&self, unit: String) -> Result<(), RegistryError> {
        self.call(move |store| store.forget_given(&unit)).await
    }

    /// Notes that a unit's run has booted although a machine was on the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn note_booted(&self, unit: String) -> Result<(), RegistryError> {
        self.call(move |store| store.note_booted(&unit)).await
    }

    /// What the units of an instance were given, and the versions of now of everything
    /// that it could be given.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn given(&self, instance: Handle) -> Result<(Vec<Given>, Versions), RegistryError> {
        self.call(move |store| store.given(&instance)).await
    }

    /// Adds messages under the numbers they have; those whose numbers there are stay as
    /// they are. Of more than `most`, by count and by bytes, the oldest go. Returns how many came.
    ///
    /// # Errors
    /// They cannot be written: none is there then.
    pub async fn add_messages(
        &self,
        instance: Handle,
        frames: Vec<(u64, Frame)>,
        most: (usize, usize),
    ) -> Result<usize, RegistryError> {
        self.call(move |store| store.add_messages(&instance, &frames, most))
            .await
    }

    /// Adds a message under the next number, with when it came in microseconds since
    /// 1970; one that its sender sent before stays as it is.
    ///
    /// # Errors
    /// [`RegistryError::TooManyMessages`], [`RegistryError::NoInstance`].
    pub async fn add_message(
        &self,
        instance: Handle,
        frame: Frame,
        came_at: u64,
        bounds: Bounds,
    ) -> Result<Kept, RegistryError> {
        self.call(move |store| store.add_message(&instance, frame, came_at, bounds))
            .await
    }

    /// Notes that the guest is done with a message, and keeps what tells so. `None` where
    /// it did not wait any more.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn message_is_taken(
        &self,
        instance: Handle,
        seq: u64,
        told: Frame,
    ) -> Result<Option<Kept>, RegistryError> {
        self.call(move |store| store.message_is_taken(&instance, seq, told))
            .await
    }

    /// The number of an instance's newest message; 0 where there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn last_message(&self, instance: Handle) -> Result<u64, RegistryError> {
        self.call(move |store| store.last_message(&instance)).await
    }

    /// The instances with messages that wait for their guest, by their folded handles.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn awaited(&self) -> Result<Vec<(String, u64)>, RegistryError> {
        self.call(Store::awaited).await
    }

    /// How far a channel of an instance is with its messages; 0 where it has not said so.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn watermark(&self, instance: Handle, channel: String) -> Result<u64, RegistryError> {
        self.call(move |store| store.watermark(&instance, &channel))
            .await
    }

    /// Notes how far a channel of an instance is.
    ///
    /// # Errors
    /// [`RegistryError::NoInstance`].
    pub async fn set_watermark(
        &self,
        instance: Handle,
        channel: String,
        seq: u64,
    ) -> Result<(), RegistryError> {
        self.call(move |store| store.set_watermark(&instance, &channel, seq))
            .await
    }

    /// Messages of an instance in the order of their numbers, as JSON texts.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn messages(
        &self,
        instance: Handle,
        query: MessageQuery,
    ) -> Result<Vec<String>, RegistryError> {
        self.call(move |store| store.messages(&instance, &query))
            .await
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |store| {
            // The caller may have gone; the work is done all the same.
            drop(answer.send(work(store)));
        });
        let sent = self.queue.send(work).await;
        sent.map_err(|_| RegistryError::Closed)?;
        answered.await.map_err(|_| RegistryError::Closed)?
    }
}
