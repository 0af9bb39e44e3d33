//! Copying a folder that somebody else may be changing: by descriptors, without
//! following links.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};

use crate::effects;

/// More entries than a kit has: a guard against copying a home directory.
const MOST_ENTRIES: usize = 50_000;
/// Deeper than the folders of a kit are.
const DEEPEST: usize = 32;
/// What version control keeps beside a kit's files.
const LEFT_OUT: [&str; 2] = [".git", ".hg"];
/// Links may lead here: the operating system, which every daemon sees.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt"];

/// Why a folder is not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("cannot copy {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the link {path} leads to {target}, out of the folder")]
    Link { path: PathBuf, target: PathBuf },
    #[error("{path} is neither a file nor a folder")]
    Kind { path: PathBuf },
    #[error("it holds more than {MOST_ENTRIES} files, or folders deeper than {DEEPEST}")]
    TooMuch,
}

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    folder: OwnedFd,
}

impl Folder {
    pub(super) fn of(folder: File) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The names of its regular files.
    ///
    /// # Errors
    /// It is not a folder, or cannot be read.
    pub(super) fn files(&self) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            let name = entry?.file_name().to_owned();
            let kind = kind_of(&self.folder, &name)?;
            if kind == FileType::RegularFile
                && let Ok(name) = name.into_string()
            {
                files.push(name);
            }
        }
        Ok(files)
    }

    /// Opens one of its files for reading.
    ///
    /// # Errors
    /// There is none, or it is a link.
    pub(super) fn open(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(openat(&self.folder, name, flags, Mode::empty())?.into())
    }

    /// Whether there is a program at a path below it.
    pub(super) fn is_program(&self, path: &str) -> bool {
        let found = statat(&self.folder, path, AtFlags::empty());
        found.is_ok_and(|found| {
            FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
                && found.st_mode & 0o111 != 0
        })
    }

    /// Copies all of it into an empty folder, with modes everybody may read by.
    ///
    /// # Errors
    /// What cannot be copied; a part is there then.
    pub(super) fn copy_to(&self, target: &Path) -> Result<(), CopyError> {
        let mut left = MOST_ENTRIES;
        copy(self.folder.as_fd(), Path::new(""), target, &mut left)
    }
}

fn copy(
    from: impl AsFd + Copy,
    below: &Path,
    target: &Path,
    left: &mut usize,
) -> Result<(), CopyError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| CopyError::Io { path, source }
    };
    if below.components().count() > DEEPEST {
        return Err(CopyError::TooMuch);
    }
    for entry in Dir::read_from(from).map_err(|error| failed(below)(error.into()))? {
        let entry = entry.map_err(|error| failed(below)(error.into()))?;
        let name = entry.file_name();
        let text = name.to_string_lossy().into_owned();
        if matches!(text.as_str(), "." | "..") || LEFT_OUT.contains(&text.as_str()) {
            continue;
        }
        *left = left.checked_sub(1).ok_or(CopyError::TooMuch)?;
        let (path, place) = (below.join(&text), target.join(&text));
        let kind = kind_of(from, name).map_err(failed(&path))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match kind {
            FileType::Directory => {
                let inner = openat(from, name, flags | OFlags::DIRECTORY, Mode::empty())
                    .map_err(|error| failed(&path)(error.into()))?;
                effects::make_folder(&place, 0o755)
                    .and_then(|()| effects::protect(&place, 0o755))
                    .map_err(failed(&path))?;
                copy(inner.as_fd(), &path, &place, left)?;
            }
            FileType::RegularFile => {
                let file = openat(from, name, flags, Mode::empty())
                    .map_err(|error| failed(&path)(error.into()))?;
                copy_file(file.into(), &place).map_err(failed(&path))?;
            }
            FileType::Symlink => {
                let link = readlinkat(from, name, Vec::new())
                    .map_err(|error| failed(&path)(error.into()))?;
                let to = PathBuf::from(link.to_string_lossy().into_owned());
                if !stays_inside(below, &to) {
                    return Err(CopyError::Link { path, target: to });
                }
                effects::link(&to, &place).map_err(failed(&path))?;
            }
            _ => return Err(CopyError::Kind { path }),
        }
    }
    Ok(())
}

fn copy_file(mut from: File, place: &Path) -> io::Result<()> {
    let is_program = from.metadata()?.permissions().mode() & 0o111 != 0;
    let mode = if is_program { 0o755 } else { 0o644 };
    effects::copy_file(&mut from, place, mode)
}

/// Whether a link in a folder `below` the top leads to something below the top, or
/// into the operating system.
fn stays_inside(below: &Path, target: &Path) -> bool {
    if target.is_absolute() {
        let plain = !target.components().any(|part| part == Component::ParentDir);
        return plain && SYSTEM.iter().any(|tree| target.starts_with(tree));
    }
    let mut depth = below.components().count();
    for part in target.components() {
        match part {
            Component::ParentDir if depth == 0 => return false,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    true
}

fn kind_of(folder: impl AsFd, name: &CStr) -> io::Result<FileType> {
    let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_folder_or_lead_into_the_system() {
        for (below, target, inside) in [
            ("", "gate", true),
            ("bin", "../lib/x", true),
            ("bin", "../../x", false),
            ("", "..", false),
            ("venv/bin", "/usr/bin/python3", true),
            ("", "/usr/../etc/shadow", false),
            ("", "/etc/passwd", false),
        ] {
            let found = stays_inside(Path::new(below), Path::new(target));
            assert_eq!(found, inside, "{below} {target}");
        }
    }
}
