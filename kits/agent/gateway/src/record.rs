//! `.gateway-state.json`: what must outlive the process, a section for each channel.
//!
//! It is replaced as a whole (write aside, sync, rename), so that it is the old or the new
//! one whenever the process or the machine ends. Writes are made in place, without a thread:
//! the file is small, and what follows a write depends on it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The file's name, in the folder of the config.
pub const FILE: &str = ".gateway-state.json";
const VERSION: u64 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    v: u64,
    #[serde(default)]
    channels: BTreeMap<String, Value>,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot read {FILE}")]
    Read(#[source] io::Error),
    #[error("cannot write {FILE}")]
    Write(#[source] io::Error),
}

/// The file and what it says; cheap to clone.
#[derive(Clone, Debug)]
pub struct Record {
    path: PathBuf,
    content: Arc<Mutex<Content>>,
}

impl Record {
    /// Reads it. One that makes no sense is put aside, and a new one begun.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(folder: &Path) -> Result<Self, RecordError> {
        let path = folder.join(FILE);
        let empty = Content {
            v: VERSION,
            channels: BTreeMap::new(),
        };
        let content = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Content>(&bytes) {
                Ok(content) if content.v == VERSION => content,
                _ => {
                    let aside = path.with_extension("json.bad");
                    tracing::warn!("{FILE} makes no sense and is now {}", aside.display());
                    fs::rename(&path, aside).map_err(RecordError::Write)?;
                    empty
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => empty,
            Err(error) => return Err(RecordError::Read(error)),
        };
        Ok(Self {
            path,
            content: Arc::new(Mutex::new(content)),
        })
    }

    /// A channel's section; the default where there is none or it makes no sense.
    pub fn section<T: DeserializeOwned + Default>(&self, channel: &str) -> T {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(section) = content.channels.get(channel) else {
            return T::default();
        };
        T::deserialize(section).unwrap_or_else(|error| {
            tracing::warn!("the section '{channel}' of {FILE} makes no sense, ignoring: {error}");
            T::default()
        })
    }

    /// Replaces a channel's section, on the disk before this returns.
    ///
    /// # Errors
    /// It cannot be written; the section counts all the same while the process lives.
    pub fn keep<T: Serialize>(&self, channel: &str, section: &T) -> Result<(), RecordError> {
        let section =
            serde_json::to_value(section).map_err(|error| RecordError::Write(error.into()))?;
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.channels.insert(channel.to_owned(), section);
        let bytes =
            serde_json::to_vec(&*content).map_err(|error| RecordError::Write(error.into()))?;
        replace(&self.path, &bytes).map_err(RecordError::Write)
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("json.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_section_is_there_after_a_restart_and_is_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::open(folder.path()).unwrap();
        assert!(record.section::<Vec<u32>>("a").is_empty());
        record.keep("a", &vec![1_u32, 2]).unwrap();
        record.keep("b", &vec![3_u32]).unwrap();
        let again = Record::open(folder.path()).unwrap();
        assert_eq!(again.section::<Vec<u32>>("a"), [1, 2]);
        assert_eq!(again.section::<Vec<u32>>("b"), [3]);
        assert_eq!(again.section::<BTreeMap<String, u8>>("b"), BTreeMap::new());
        let mode = fs::metadata(folder.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_record_that_makes_no_sense_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        for odd in ["{", "{\"v\":2}", ""] {
            fs::write(folder.path().join(FILE), odd).unwrap();
            let record = Record::open(folder.path()).unwrap();
            assert!(record.section::<Vec<u32>>("a").is_empty());
            let aside = folder.path().join(".gateway-state.json.bad");
            assert_eq!(fs::read_to_string(aside).unwrap(), odd);
        }
    }
}
