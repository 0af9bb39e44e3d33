//! Where the key is that secrets are encrypted with.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::effects;

/// Tells keys apart; says nothing about the key.
pub type KeyId = [u8; 8];

/// A key file: the id, then the key.
const FILE_LENGTH: usize = 8 + 32;

/// A key in memory, which is overwritten when it is dropped.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    bytes: Zeroizing<[u8; 32]>,
}

impl Key {
    pub fn from_parts(id: KeyId, bytes: [u8; 32]) -> Self {
        Self {
            id,
            bytes: Zeroizing::new(bytes),
        }
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A place that holds keys. All calls block.
pub trait KeySource: std::fmt::Debug + Send + Sync {
    /// The key for new values; made where there is none yet.
    ///
    /// # Errors
    /// It cannot be read or made.
    fn current(&self) -> Result<Key, KeyError>;

    /// The key of an id; `None` if it is lost.
    ///
    /// # Errors
    /// The place cannot be read.
    fn find(&self, id: KeyId) -> Result<Option<Key>, KeyError>;
}

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
    Open(PathBuf),
    #[error("{0} is not a key: its length is not {FILE_LENGTH} bytes")]
    Length(PathBuf),
    #[error("the kernel gives no random bytes")]
    Random(#[source] getrandom::Error),
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Open(path) => Some(format!(
                "if nobody else has read it: chmod 600 {0}; else remove it and set the secrets again",
                path.display()
            )),
            Self::Length(path) => Some(format!(
                "put the right file back, or remove {} and set the secrets again",
                path.display()
            )),
            Self::File { .. } | Self::Random(_) => None,
        }
    }
}

/// A key in a private file beside the registry.
#[derive(Debug)]
pub struct FileKey {
    path: PathBuf,
}

impl FileKey {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> KeyError {
        let path = self.path.clone();
        move |source| KeyError::File {
            operation,
            path: path.clone(),
            source,
        }
    }

    /// Read anew each time: a file that is put back counts at once.
    fn read(&self) -> Result<Option<Key>, KeyError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = match openat(CWD, &self.path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed("open")(error.into())),
        };
        let metadata = file.metadata().map_err(self.failed("examine"))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(KeyError::Open(self.path.clone()));
        }
        if metadata.len() != FILE_LENGTH as u64 {
            return Err(KeyError::Length(self.path.clone()));
        }
        let mut bytes = Zeroizing::new([0; FILE_LENGTH]);
        file.read_exact(&mut *bytes).map_err(self.failed("read"))?;
        Ok(Some(parse(&bytes)))
    }

    /// Written beside and moved: a crash leaves no key or a whole one.
    fn make(&self) -> Result<Key, KeyError> {
        let mut bytes = Zeroizing::new([0; FILE_LENGTH]);
        getrandom::fill(&mut *bytes).map_err(KeyError::Random)?;
        let fresh = self.path.with_extension("new");
        let made =
            write_private(&fresh, &*bytes).and_then(|()| effects::rename(&fresh, &self.path));
        made.map_err(self.failed("write"))?;
        if let Some(folder) = self.path.parent() {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(self.failed("write"))?;
        }
        tracing::info!("made a new key for secrets: {}", self.path.display());
        Ok(parse(&bytes))
    }
}

impl KeySource for FileKey {
    fn current(&self) -> Result<Key, KeyError> {
        match self.read()? {
            Some(key) => Ok(key),
            None => self.make(),
        }
    }

    fn find(&self, id: KeyId) -> Result<Option<Key>, KeyError> {
        Ok(self.read()?.filter(|key| key.id() == id))
    }
}

fn parse(bytes: &[u8; FILE_LENGTH]) -> Key {
    let (mut id, mut key) = (KeyId::default(), [0; 32]);
    id.copy_from_slice(&bytes[..8]);
    key.copy_from_slice(&bytes[8..]);
    Key::from_parts(id, key)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match effects::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    effects::write_new(path, bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        let source = FileKey::new(path.clone());
        assert!(source.find([0; 8]).unwrap().is_none());
        let key = source.current().unwrap();
        assert_eq!(source.current().unwrap().id(), key.id());
        assert_eq!(source.find(key.id()).unwrap().unwrap().bytes(), key.bytes());
        assert!(source.find([0; 8]).unwrap().is_none());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_cut_short_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        let source = FileKey::new(path.clone());
        source.current().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(source.current(), Err(KeyError::Open(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short").unwrap();
        assert!(matches!(source.current(), Err(KeyError::Length(_))));
    }
}
