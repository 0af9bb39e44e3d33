//! The snapshot of a VM: one private file in the instance's folder, written whole
//! or not at all, used once.
//!
//! ```text
//!  begin ──► snapshot.partial ──publish──► snapshot ──open──► verified, loaded
//!                  │                          │                     │
//!                  └───────── remove ─────────┘               spend, before a CPU runs
//! ```
//!
//! A file under the final name is whole and durable, and counts until it is spent: that
//! is durable before the guest in it or the one it was taken of runs on, so that no
//! crash leaves a snapshot behind that the disk has left behind. One that is loaded is
//! spent by bytes that change in place, which a disk takes sooner than the removal of
//! a file; that need not be durable then.
//!
//! | module | what it owns |
//! |---|---|
//! | [`format`] | the bytes and their checks |
//! | [`seal`] | the cipher, where the instance has a key |
//! | [`stamp`] | what a snapshot depends on |
//! | [`template`] | guests that have just begun, used many times |

pub mod format;
pub mod seal;
pub mod stamp;
pub mod template;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_core::control::CommandState;
use aegis_core::fault::{Fault, Symbol};
use aegis_core::snapshot::{SPENT, SnapshotKey};
use aegis_fault_points::around;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::terminal::SavedTerminal;
use format::{FormatError, Reader, Writer};
use stamp::Stamp;

const NAME: &str = "snapshot";
const PARTIAL: &str = "snapshot.partial";

/// Bytes that are written or read at a time.
const BUFFER: usize = 256 * 1024;

/// What stands before the machine's state.
#[derive(Debug, Serialize, Deserialize)]
pub struct Header {
    /// Of the instance and its files.
    pub vm: Stamp,
    /// Of the hypervisor and the machine.
    pub machine: Stamp,
    /// Of the writable disk as the guest left it.
    pub disk: Stamp,
    /// The link's epoch.
    pub epoch: u32,
    pub memory: Memory,
    pub terminal: Option<SavedTerminal>,
}

/// What the VM's owner remembers over a hibernation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub command: CommandState,
    /// When the snapshot was taken, in microseconds since 1970.
    pub saved_at: u64,
}

/// Why a snapshot cannot be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot use {}", path.display())]
    Format {
        path: PathBuf,
        #[source]
        source: FormatError,
    },
    #[error("the snapshot was given up")]
    GivenUp,
}

impl From<&SnapshotError> for Fault {
    fn from(error: &SnapshotError) -> Self {
        let full = match error {
            SnapshotError::Io { source, .. }
            | SnapshotError::Format {
                source: FormatError::Write(source),
                ..
            } => source.kind() == io::ErrorKind::StorageFull,
            SnapshotError::Format { .. } | SnapshotError::GivenUp => false,
        };
        if full {
            return Fault::from_error(Symbol::NoSpace, error)
                .with_hint("free some space on the disk of the instance");
        }
        Fault::from_error(Symbol::Internal, error)
    }
}

/// Where the snapshot of an instance is. Clones are the same place. All operations
/// block on the disk.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
    /// What snapshots are sealed with.
    key: Option<SnapshotKey>,
    /// Grows when a snapshot is wanted or given up: only the newest is made.
    newest: Arc<Mutex<u64>>,
}

impl Place {
    /// The place in an instance's folder. With a key all snapshots are sealed.
    pub fn of(folder: &Path, key: Option<SnapshotKey>) -> Self {
        Self {
            folder: folder.to_owned(),
            key,
            newest: Arc::default(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    fn partial(&self) -> PathBuf {
        self.folder.join(PARTIAL)
    }

    /// What a snapshot needs to begin, until another one is wanted or all are given up.
    pub fn ticket(&self) -> Ticket {
        let mut newest = self.lock();
        *newest += 1;
        Ticket(*newest)
    }

    /// Begins a snapshot.
    ///
    /// # Errors
    /// What the file system says, or that it was given up.
    pub fn begin(&self, ticket: Ticket, header: &Header) -> Result<Unfinished, SnapshotError> {
        let newest = self.lock();
        if *newest != ticket.0 {
            return Err(SnapshotError::GivenUp);
        }
        let path = self.partial();
        let failed = at("make", &path);
        let made = around(
            "snapshot.create",
            |error| error,
            || {
                gone(&path)?;
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
            },
        );
        let file = BufWriter::with_capacity(BUFFER, made.map_err(failed)?);
        let writer = Writer::begin(file, header, self.key.as_ref()).map_err(|source| {
            SnapshotError::Format {
                path: path.clone(),
                source,
            }
        })?;
        Ok(Unfinished {
            place: self.clone(),
            ticket,
            writer,
        })
    }

    /// Opens the snapshot, if there is one.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(&self) -> Result<Option<(Stored, Header)>, SnapshotError> {
        Stored::open(self.path(), self.key.as_ref())
    }

    /// Makes sure that the snapshot is never used again, and that nothing that was begun
    /// becomes one. Its room is given back when the file is dropped, which takes a while.
    ///
    /// # Errors
    /// It may be used again.
    pub fn spend(&self) -> Result<File, SnapshotError> {
        let mut newest = self.lock();
        *newest += 1;
        let path = self.path();
        let spent = around(
            "snapshot.spend",
            |error| error,
            || {
                let file = OpenOptions::new().write(true).open(&path)?;
                file.write_all_at(SPENT, 0)?;
                file.sync_data()?;
                fs::remove_file(&path)?;
                Ok(file)
            },
        );
        spent.map_err(at("spend", &path))
    }

    /// Whether anything of a snapshot is here.
    pub fn is_empty(&self) -> bool {
        !self.path().exists() && !self.partial().exists()
    }

    /// Makes sure that there is no snapshot, whole or not, and will be none of what
    /// was begun.
    ///
    /// # Errors
    /// There may be one.
    pub fn remove(&self) -> Result<(), SnapshotError> {
        let mut newest = self.lock();
        *newest += 1;
        let path = self.path();
        let removed = around(
            "snapshot.remove",
            |error| error,
            || {
                gone(&self.partial())?;
                if gone(&path)? {
                    File::open(&self.folder)?.sync_all()?;
                }
                Ok(())
            },
        );
        removed.map_err(at("remove", &path))
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // A number is written whole.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a snapshot is still wanted.
#[derive(Clone, Copy, Debug)]
pub struct Ticket(u64);

/// A snapshot that is being written.
#[derive(Debug)]
pub struct Unfinished {
    place: Place,
    ticket: Ticket,
    writer: Writer<BufWriter<File>>,
}

/// What takes the state of a machine, piece by piece.
pub trait StateSink: Send + 'static {
    /// Adds state.
    ///
    /// # Errors
    /// What the file system says.
    fn state(&mut self, bytes: &[u8]) -> Result<(), SnapshotError>;
}

impl StateSink for Unfinished {
    fn state(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let refused = |source| FormatError::Write(source);
        let written = around("snapshot.write", refused, || self.writer.state(bytes));
        written.map_err(|source| SnapshotError::Format {
            path: self.place.partial(),
            source,
        })
    }
}

impl Unfinished {
    /// Makes it whole and durable; its size in bytes.
    ///
    /// # Errors
    /// What the file system says, or that it was given up; it does not count then.
    pub fn publish(self) -> Result<u64, SnapshotError> {
        let (path, partial) = (self.place.path(), self.place.partial());
        let file = self.writer.end().map_err(|source| SnapshotError::Format {
            path: partial.clone(),
            source,
        })?;
        let failed = at("write", &partial);
        let file = file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        around("snapshot.sync", |error| error, || file.sync_all()).map_err(&failed)?;
        let size = file.metadata().map_err(&failed)?.len();
        let newest = self.place.lock();
        if *newest != self.ticket.0 {
            return Err(SnapshotError::GivenUp);
        }
        let published = around(
            "snapshot.publish",
            |error| error,
            || {
                fs::rename(&partial, &path)?;
                File::open(&self.place.folder)?.sync_all()
            },
        );
        published.map_err(at("publish", &path))?;
        Ok(size)
    }
}

/// A snapshot that is being read.
#[derive(Debug)]
pub struct Stored {
    path: PathBuf,
    reader: Reader<BufReader<File>>,
}

impl Stored {
    /// Opens what is at a path, if anything is, and was not spent.
    ///
    /// # Errors
    /// It cannot be used.
    fn open<T: DeserializeOwned>(
        path: PathBuf,
        key: Option<&SnapshotKey>,
    ) -> Result<Option<(Self, T)>, SnapshotError> {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(at("open", &path)(source)),
        };
        let file = BufReader::with_capacity(BUFFER, file);
        match Reader::begin(file, key) {
            Ok((reader, header)) => Ok(Some((Self { path, reader }, header))),
            Err(FormatError::Spent) => Ok(None),
            Err(source) => Err(SnapshotError::Format { path, source }),
        }
    }

    /// The next piece of state; `None` when all of it was read and is whole.
    ///
    /// # Errors
    /// It is not whole.
    pub fn state(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        self.reader.state().map_err(|source| SnapshotError::Format {
            path: self.path.clone(),
            source,
        })
    }
}

fn at(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io {
        operation,
        path: path.clone(),
        source,
    }
}

/// Removes a file; whether there was one.
fn gone(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn header() -> Header {
        Header {
            vm: Stamp::default().with("memory", "256 MiB"),
            machine: Stamp::default(),
            disk: Stamp::default(),
            epoch: 1,
            memory: Memory {
                command: CommandState::Running { pid: 42 },
                saved_at: 5,
            },
            terminal: None,
        }
    }

    #[test]
    fn a_snapshot_is_private_and_there_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path(), None);
        assert!(place.is_empty() && place.open().unwrap().is_none());
        let mut unfinished = place.begin(place.ticket(), &header()).unwrap();
        unfinished.state(b"state").unwrap();
        let mode = fs::metadata(place.partial()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(place.open().unwrap().is_none());
        let size = unfinished.publish().unwrap();
        assert_eq!(size, fs::metadata(place.path()).unwrap().len());
        let (mut stored, found) = place.open().unwrap().unwrap();
        assert_eq!(found.memory, header().memory);
        assert_eq!(stored.state().unwrap().unwrap(), b"state");
        assert_eq!(stored.state().unwrap(), None);
        place.remove().unwrap();
        assert!(place.is_empty());
    }

    #[test]
    fn one_that_was_spent_does_not_count_and_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path(), None);
        let written = place.begin(place.ticket(), &header()).unwrap();
        written.publish().unwrap();
        assert!(place.open().unwrap().is_some());
        let again = dir.path().join("again");
        fs::hard_link(place.path(), &again).unwrap();
        place.spend().unwrap();
        assert!(place.is_empty());
        assert!(place.spend().is_err(), "there is none");
        // As after a loss of power: the file's end was not durable, what it says is.
        fs::rename(again, place.path()).unwrap();
        assert!(place.open().unwrap().is_none() && !place.is_empty());
        place.remove().unwrap();
        assert!(place.is_empty());
    }

    #[test]
    fn one_that_was_given_up_is_not_published() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path(), None);
        let given_up = place.begin(place.ticket(), &header()).unwrap();
        let late = place.ticket();
        place.remove().unwrap();
        assert!(matches!(given_up.publish(), Err(SnapshotError::GivenUp)));
        assert!(place.begin(late, &header()).is_err() && place.is_empty());
        let overtaken = place.begin(place.ticket(), &header()).unwrap();
        let newer = place.begin(place.ticket(), &header()).unwrap();
        assert!(overtaken.publish().is_err());
        newer.publish().unwrap();
        assert!(!place.is_empty());
    }
}
