//! The layer of a kit's programs: a small read-only file system with each in
//! `/usr/bin`, above the image. It is made again when one of the programs is
//! another than it was.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use aegis_core::fault::{Fault, Symbol};
use aegis_core::tools::SQFSTAR;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::Command;

/// The layer and what it was made of, in the instance's folder.
const IMAGE: &str = "inject.squashfs";
const STAMP: &str = "inject.stamp";
/// Where the programs are in the guest.
const FOLDERS: [&str; 2] = ["usr/", "usr/bin/"];
/// A tar archive is made of blocks of this size (tar(5)).
const BLOCK: u64 = 512;
/// The longest name in the header of a tar archive, in bytes.
const LONGEST_NAME: usize = 100;
/// Most of sqfstar's words that an error repeats, in characters.
const LAST_WORDS: usize = 300;

/// Why there is no layer.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    #[error("cannot read the kit's program {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the kit's program {path} has a name that is too long")]
    Name { path: PathBuf },
    #[error("cannot make {path}")]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the kit adds programs to the image, and sqfstar is not installed")]
    NoTool,
    #[error("cannot make {path}: sqfstar ended with {status}: {last_words}")]
    Tool {
        path: PathBuf,
        status: ExitStatus,
        last_words: String,
    },
}

impl From<InjectError> for Fault {
    fn from(error: InjectError) -> Self {
        let fault = |symbol| Fault::from_error(symbol, &error);
        match &error {
            InjectError::Read { .. } => fault(Symbol::KitBroken)
                .with_hint("install the kit again, or make the instance anew"),
            InjectError::Name { .. } => fault(Symbol::KitBroken),
            InjectError::NoTool => {
                fault(Symbol::Unsupported).with_hint("install the package squashfs-tools")
            }
            InjectError::Make { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                fault(Symbol::NoSpace).with_hint("free some space on the disk of the instance")
            }
            InjectError::Make { .. } | InjectError::Tool { .. } => fault(Symbol::Internal),
        }
    }
}

/// The layer of these programs, made if it is missing or old; `None` without
/// programs.
///
/// # Errors
/// A program is gone, or the layer cannot be made.
pub async fn ensure(dir: &Path, programs: &[PathBuf]) -> Result<Option<PathBuf>, InjectError> {
    if programs.is_empty() {
        return Ok(None);
    }
    let (image, stamp) = (dir.join(IMAGE), dir.join(STAMP));
    let now = stamp_of(programs).await?;
    let same = fs::read_to_string(&stamp)
        .await
        .is_ok_and(|before| before == now);
    if same && image.exists() {
        return Ok(Some(image));
    }
    make(&image, programs).await?;
    // After the layer: a crash between makes it once more.
    let failed = |source| InjectError::Make {
        path: stamp.clone(),
        source,
    };
    fs::write(&stamp, now).await.map_err(failed)?;
    Ok(Some(image))
}

/// Tells one state of the programs from another.
async fn stamp_of(programs: &[PathBuf]) -> Result<String, InjectError> {
    let mut stamp = String::new();
    for path in programs {
        let file = fs::metadata(path).await.map_err(read(path))?;
        stamp.push_str(&format!(
            "{} {} {} {}.{:09}\n",
            path.display(),
            file.ino(),
            file.len(),
            file.mtime(),
            file.mtime_nsec()
        ));
    }
    Ok(stamp)
}

async fn make(image: &Path, programs: &[PathBuf]) -> Result<(), InjectError> {
    let tool = SQFSTAR.places.iter().find(|tool| Path::new(tool).exists());
    let tool = tool.ok_or(InjectError::NoTool)?;
    let fresh = image.with_extension("new");
    let failed = |source| InjectError::Make {
        path: image.to_owned(),
        source,
    };
    match fs::remove_file(&fresh).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut child = Command::new(tool)
        .args(["-quiet", "-no-progress", "-root-owned", "-mkfs-time", "0"])
        .args(["-comp", "zstd", "-processors", "1"])
        .arg(&fresh)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let written = match child.stdin.take() {
        Some(mut archive) => write_archive(&mut archive, programs).await,
        None => Ok(()),
    };
    let output = child.wait_with_output().await.map_err(failed)?;
    if !output.status.success() {
        let last_words = String::from_utf8_lossy(&output.stderr)
            .trim()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(LAST_WORDS)
            .collect();
        return Err(InjectError::Tool {
            path: image.to_owned(),
            status: output.status,
            last_words,
        });
    }
    // Its own failure tells more than that it stopped reading.
    written?;
    File::open(&fresh)
        .await
        .map_err(failed)?
        .sync_all()
        .await
        .map_err(failed)?;
    fs::rename(&fresh, image).await.map_err(failed)
}

/// The programs as a tar archive, and nothing of the host but their bytes: not
/// their owners, modes or times.
async fn write_archive(
    archive: &mut (impl AsyncWrite + Unpin),
    programs: &[PathBuf],
) -> Result<(), InjectError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| InjectError::Make { path, source }
    };
    for folder in FOLDERS {
        let header = header(folder, 0, b'5');
        archive
            .write_all(&header)
            .await
            .map_err(failed(Path::new(folder)))?;
    }
    for path in programs {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = format!("usr/bin/{}", name.unwrap_or_default());
        if name.len() >= LONGEST_NAME {
            return Err(InjectError::Name { path: path.clone() });
        }
        let file = File::open(path).await.map_err(read(path))?;
        let size = file.metadata().await.map_err(read(path))?.len();
        let header = header(&name, size, b'0');
        archive.write_all(&header).await.map_err(failed(path))?;
        // Exactly what the header says, should the file change meanwhile.
        let mut content = file.take(size);
        let copied = tokio::io::copy(&mut content, archive);
        let copied = copied.await.map_err(read(path))?;
        if copied != size {
            return Err(read(path)(io::ErrorKind::UnexpectedEof.into()));
        }
        let padding = vec![0; usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0)];
        archive.write_all(&padding).await.map_err(failed(path))?;
    }
    let end = vec![0; 2 * 512];
    archive
        .write_all(&end)
        .await
        .map_err(failed(Path::new("")))?;
    archive.shutdown().await.map_err(failed(Path::new("")))
}

/// A header of a tar archive (the ustar format of tar(5)).
fn header(name: &str, size: u64, kind: u8) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000755");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The checksum is over a header whose checksum is spaces.
    put(148, "        ");
    put(257, "ustar\0");
    put(263, "00");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> InjectError {
    let path = path.to_owned();
    move |source| InjectError::Read { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What unsquashfs lists of an image.
    async fn listed(image: &Path) -> String {
        let output = Command::new("unsquashfs")
            .args(["-lln", "-d", ""])
            .arg(image)
            .output()
            .await
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[tokio::test]
    async fn the_layer_has_the_programs_and_is_made_again_when_one_changes() {
        let dir = tempfile::tempdir().unwrap();
        let tool = dir.path().join("tool");
        std::fs::write(&tool, vec![7; 700]).unwrap();
        let programs = [tool.clone()];
        let image = ensure(dir.path(), &programs).await.unwrap().unwrap();
        let list = listed(&image).await;
        let line = list.lines().find(|line| line.contains("/usr/bin/tool"));
        assert!(
            line.is_some_and(|line| line.starts_with("-rwxr-xr-x 0/0") && line.contains(" 700 ")),
            "{list}"
        );

        let made = std::fs::metadata(&image).unwrap().ino();
        ensure(dir.path(), &programs).await.unwrap();
        assert_eq!(std::fs::metadata(&image).unwrap().ino(), made, "kept");
        std::fs::write(&tool, vec![7; 701]).unwrap();
        ensure(dir.path(), &programs).await.unwrap();
        assert!(listed(&image).await.contains(" 701 "));
    }

    #[tokio::test]
    async fn without_programs_there_is_no_layer_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ensure(dir.path(), &[]).await.unwrap(), None);
        let gone = dir.path().join("gone");
        let fault = Fault::from(ensure(dir.path(), &[gone]).await.unwrap_err());
        assert_eq!(fault.symbol, Symbol::KitBroken);
        assert!(fault.message.contains("/gone"), "{fault}");
    }
}
