//! A private file that never grows beyond a limit: what does not fit begins a
//! new file, and the one before it is kept as `NAME.1`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An open file of this kind. All operations block on the disk.
#[derive(Debug)]
pub struct RotatedFile {
    path: PathBuf,
    file: File,
    length: u64,
    limit: u64,
}

impl RotatedFile {
    /// Opens or makes the file (0600) and its folder (0700); goes on at its end.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: PathBuf, limit: u64) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file = open_at_end(&path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            length,
            limit,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `bytes` more exceed the limit. A file is never rotated while it is
    /// empty, so one record may be longer than the limit.
    pub fn is_full_for(&self, bytes: usize) -> bool {
        self.length > 0 && self.length.saturating_add(bytes as u64) > self.limit
    }

    /// Appends all of it, or nothing: a record that was cut off by a full disk is
    /// taken back.
    ///
    /// # Errors
    /// What the file system says.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }

    /// Renames the file to `NAME.1` and begins a new one.
    ///
    /// # Errors
    /// What the file system says; writing goes on in the old file then.
    pub fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, previous(&self.path))?;
        self.file = open_at_end(&self.path)?;
        self.length = 0;
        Ok(())
    }

    /// Takes back what follows the first `length` bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.length = length;
        Ok(())
    }
}

/// Where the file before this one is kept.
pub fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn open_at_end(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn two_files_hold_the_newest_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/a.log");
        let mut file = RotatedFile::open(path.clone(), 10).unwrap();
        assert!(!file.is_full_for(99));
        file.append(b"12345678").unwrap();
        assert!(file.is_full_for(3));
        file.rotate().unwrap();
        file.append(b"9").unwrap();
        drop(file);
        let mut file = RotatedFile::open(path.clone(), 10).unwrap();
        file.append(b"0").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"90");
        assert_eq!(fs::read(previous(&path)).unwrap(), b"12345678");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
