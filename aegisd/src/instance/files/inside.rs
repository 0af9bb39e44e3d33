//! Files in folders that are in the hands of units and guests: found by descriptors,
//! step by step, so that no link is followed and no pipe waited for. (openat2(2)
//! would do it in one step, but the seccomp filter of `RestrictSUIDSGID=` forbids
//! it.)

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use serde::Serialize;

use super::{InstanceError, encode, failed};
use crate::effects;
use crate::host::{Host, Owner};

/// Largest file that is read, in bytes.
pub(crate) const MAX_FILE: u64 = 1 << 20;
/// Kept by every step: a link is an error, a pipe opens at once.
const SAFE: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Opens a file below a folder for reading.
///
/// # Errors
/// It is missing, or a step to it is a link.
pub(crate) fn open(folder: &Path, name: &Path) -> io::Result<File> {
    let mut at: OwnedFd = File::open(folder)?.into();
    let mut parts = name.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(part) = part else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let kind = match parts.peek() {
            Some(_) => OFlags::RDONLY | OFlags::DIRECTORY,
            None => OFlags::RDONLY,
        };
        at = openat(&at, part, SAFE | kind, Mode::empty())?;
    }
    Ok(at.into())
}

/// A small file below a folder and when it was written; `None` if it is missing
/// or odd.
pub(in crate::instance) fn read(folder: &Path, name: &Path) -> Option<(Vec<u8>, SystemTime)> {
    let mut bytes = Vec::new();
    let file = open(folder, name).ok()?;
    let written = file.metadata().ok()?.modified().ok()?;
    file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some((bytes, written))
}

/// A config file and when it last changed, by content or by coming there. In system
/// mode a file that the administrator wrote is given to the units' user, who could
/// not read it otherwise.
///
/// # Errors
/// It is missing, a link, no file, too large, or cannot be read.
pub(in crate::instance) fn read_config(
    host: &Host,
    folder: &Path,
    name: &Path,
) -> io::Result<(Vec<u8>, SystemTime)> {
    let file = open(folder, name).map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::LOOP.raw_os_error() => {
            io::Error::other("it is a link, which the daemon could not follow")
        }
        _ => error,
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if metadata.len() > MAX_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    if let Some(owner) = host.unit_owner.filter(|owner| metadata.uid() != owner.uid) {
        effects::give_open(&file, owner.uid, owner.gid)?;
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    let came = UNIX_EPOCH + Duration::from_secs(metadata.ctime().try_into().unwrap_or_default());
    let came = came + Duration::from_nanos(metadata.ctime_nsec().try_into().unwrap_or_default());
    Ok((bytes, came))
}

/// Writes a JSON file below a folder where there is none yet, with the folders
/// between.
///
/// # Errors
/// A step to it is a link, or it cannot be written.
pub(super) fn create(
    host: &Host,
    folder: &Path,
    name: &Path,
    value: &impl Serialize,
) -> Result<(), InstanceError> {
    let path = folder.join(name);
    let mut text = encode(&path, value)?;
    text.push(b'\n');
    match write_new(folder, name, &text, host.unit_owner) {
        // The user's own file wins, whatever it holds.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome.map_err(failed("write", &path)),
    }
}

/// Puts a config file that was written elsewhere where the daemons read it, in one
/// step. One with the same content stays as it is.
///
/// # Errors
/// A step to it is a link, or it cannot be written.
pub(in crate::instance) fn bring_config(
    host: &Host,
    folder: &Path,
    name: &Path,
    content: &[u8],
) -> Result<(), InstanceError> {
    if read(folder, name).is_some_and(|(bytes, _)| bytes == content) {
        return Ok(());
    }
    let brought = at_end(folder, name, host.unit_owner, |at, name, owner| {
        effects::replace_at(at, name, content, owner)
    });
    brought.map_err(failed("write", &folder.join(name)))
}

fn write_new(folder: &Path, name: &Path, text: &[u8], owner: Option<Owner>) -> io::Result<()> {
    at_end(folder, name, owner, |at, name, owner| {
        effects::write_new_at(at, name, text, owner)
    })
}

/// Goes to the folder that a file below another one lies in, makes those that are
/// missing, and acts there.
fn at_end(
    folder: &Path,
    name: &Path,
    owner: Option<Owner>,
    act: impl FnOnce(&OwnedFd, &OsStr, Option<(u32, u32)>) -> io::Result<()>,
) -> io::Result<()> {
    let owner = owner.map(|owner| (owner.uid, owner.gid));
    let mut at: OwnedFd = File::open(folder)?.into();
    let mut parts = name.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(part) = part else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if parts.peek().is_none() {
            return act(&at, part, owner);
        }
        let made = effects::make_folder_at(&at, part, 0o700);
        let kind = OFlags::RDONLY | OFlags::DIRECTORY;
        at = openat(&at, part, SAFE | kind, Mode::empty())?;
        match (made, owner) {
            (Ok(()), Some((uid, gid))) => effects::give_open(&at, uid, gid)?,
            (Err(error), _) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Err(io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let host = crate::testing::host(root.path());
        let secret = root.path().join("secret");
        fs::write(&secret, "s").unwrap();
        let folder = root.path().join("folder");
        fs::create_dir_all(folder.join("log")).unwrap();
        fs::write(folder.join("log/command.log"), "x").unwrap();
        symlink(&secret, folder.join("link")).unwrap();
        symlink(root.path(), folder.join("up")).unwrap();
        assert!(open(&folder, Path::new("log/command.log")).is_ok());
        for name in ["link", "up/secret", "../secret", "missing"] {
            assert!(open(&folder, Path::new(name)).is_err(), "{name}");
        }
        let error = read_config(&host, &folder, Path::new("link")).unwrap_err();
        assert!(error.to_string().contains("a link"), "{error}");
        let missing = read_config(&host, &folder, Path::new("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(create(&host, &folder, Path::new("up/new"), &1).is_err());
        assert!(!root.path().join("new").exists());
    }
}
