//! The writable layer of an instance: a sparse file with an ext4 file system,
//! made at the first start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use aegis_core::fault::{Fault, Symbol};
use aegis_core::tools::MKE2FS;
use aegis_core::vm_spec::Disk;
use tokio::process::Command;

/// Most of mke2fs's words that an error repeats, in characters.
const LAST_WORDS: usize = 300;

/// Why there is no writable layer.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("cannot make the disk {path}")]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make the disk {path} longer")]
    Lengthen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot format the disk {path}: mke2fs is not installed")]
    NoMke2fs { path: PathBuf },
    #[error("cannot start {program}")]
    Start {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot format the disk {path}: mke2fs ended with {status}: {last_words}")]
    Format {
        path: PathBuf,
        status: ExitStatus,
        last_words: String,
    },
}

impl From<DiskError> for Fault {
    fn from(error: DiskError) -> Self {
        let full = match &error {
            DiskError::Make { source, .. } | DiskError::Lengthen { source, .. } => {
                source.kind() == io::ErrorKind::StorageFull
            }
            DiskError::Format { last_words, .. } => last_words.contains("No space left"),
            DiskError::NoMke2fs { .. } | DiskError::Start { .. } => false,
        };
        if full {
            return Fault::from_error(Symbol::NoSpace, &error)
                .with_hint("free some space on the disk of the instance");
        }
        match error {
            DiskError::NoMke2fs { .. } => Fault::from_error(Symbol::Unsupported, &error)
                .with_hint("install the package e2fsprogs"),
            _ => Fault::from_error(Symbol::Internal, &error),
        }
    }
}

/// Makes the disk if it is missing. It appears under its name only when it is
/// whole: a crash leaves at most a file that the next call overwrites. One that is too
/// small is made longer; the guest makes its file system larger then.
///
/// # Errors
/// Why it could not be made or made longer.
pub async fn ensure(disk: &Disk) -> Result<(), DiskError> {
    let found = fs::metadata(&disk.path);
    if let Ok(found) = found {
        return lengthen(disk, found.len());
    }
    let make = |source| DiskError::Make {
        path: disk.path.clone(),
        source,
    };
    let unfinished = disk.path.with_extension("img.new");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(make)?;
    file.set_len(disk.size).map_err(make)?;
    format(&disk.path, &unfinished).await?;
    publish(file, &unfinished, &disk.path).await.map_err(make)
}

fn lengthen(disk: &Disk, size: u64) -> Result<(), DiskError> {
    if size >= disk.size {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).open(&disk.path);
    file.and_then(|file| file.set_len(disk.size))
        .map_err(|source| DiskError::Lengthen {
            path: disk.path.clone(),
            source,
        })
}

async fn format(disk: &Path, file: &Path) -> Result<(), DiskError> {
    let program = MKE2FS
        .places
        .iter()
        .find(|program| Path::new(program).exists())
        .ok_or_else(|| DiskError::NoMke2fs {
            path: disk.to_owned(),
        })?;
    // No blocks are kept back for root: the guest's root is the only user. Inode
    // tables stay holes until they are used.
    let output = Command::new(program)
        .args(["-q", "-F", "-t", "ext4", "-m", "0"])
        .args(["-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"])
        .arg(file)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| DiskError::Start { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let last_words = String::from_utf8_lossy(&output.stderr)
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LAST_WORDS)
        .collect();
    Err(DiskError::Format {
        path: disk.to_owned(),
        status: output.status,
        last_words,
    })
}

/// Writes the file through to the disk and gives it its name. Blocks, so it runs
/// on a thread of its own.
async fn publish(file: File, unfinished: &Path, path: &Path) -> io::Result<()> {
    let (unfinished, path) = (unfinished.to_owned(), path.to_owned());
    let publish = move || {
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    tokio::task::spawn_blocking(publish)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[tokio::test]
    async fn a_missing_disk_is_made_sparse_and_an_existing_one_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk {
            path: dir.path().join("disk.img"),
            size: 1 << 30,
        };
        ensure(&disk).await.unwrap();
        let made = fs::metadata(&disk.path).unwrap();
        assert_eq!(made.len(), 1 << 30);
        assert!(made.blocks() * 512 < 16 << 20, "{}", made.blocks());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let magic = &fs::read(&disk.path).unwrap()[1080..1082];
        assert_eq!(magic, 0xEF53_u16.to_le_bytes());
        let sized = async |size| {
            let path = disk.path.clone();
            ensure(&Disk { path, size }).await.unwrap();
            let file = fs::read(&disk.path).unwrap();
            assert_eq!(&file[..4], b"mine");
            file.len()
        };
        fs::write(&disk.path, b"mine").unwrap();
        assert_eq!(sized(4).await, 4);
        assert_eq!(sized(4096).await, 4096);
        assert_eq!(sized(1).await, 4096);
    }

    #[tokio::test]
    async fn a_disk_that_is_too_small_is_an_error_and_does_not_appear() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk {
            path: dir.path().join("disk.img"),
            size: 1024,
        };
        let error = ensure(&disk).await.unwrap_err();
        assert!(matches!(error, DiskError::Format { .. }), "{error}");
        assert!(!disk.path.exists());
    }
}
