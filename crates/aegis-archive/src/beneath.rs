//! A folder that is never left: paths below it are walked part by part.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use crate::ArchiveError;

/// Mode of folders that an archive does not name, before the umask.
const IMPLIED: Mode = Mode::from_bits_truncate(0o777);

/// An open folder and the way to the last place below it. Keeping the way open
/// makes a tree with many files in one folder cheap.
#[derive(Debug)]
pub(crate) struct Beneath {
    root: OwnedFd,
    path: PathBuf,
    follow: bool,
    open: Vec<(OsString, OwnedFd)>,
}

impl Beneath {
    /// Opens the folder. With `follow` links that are in it are followed, which is
    /// right where it belongs to who made the archive.
    pub(crate) fn open(path: &Path, follow: bool) -> Result<Self, ArchiveError> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let root = nix::fcntl::open(path, flags, Mode::empty());
        let root = root.map_err(|errno| ArchiveError::file("open", path)(errno.into()))?;
        Ok(Self {
            root,
            path: path.to_owned(),
            follow,
            open: Vec::new(),
        })
    }

    /// The full path of something below, for messages.
    pub(crate) fn full(&self, below: &Path) -> PathBuf {
        self.path.join(below)
    }

    /// The folder that holds `below`, made if it is missing, and the last part.
    pub(crate) fn parent<'a>(
        &mut self,
        below: &'a Path,
    ) -> Result<(BorrowedFd<'_>, &'a OsStr), ArchiveError> {
        let parts: Vec<&OsStr> = below
            .components()
            .filter_map(|part| match part {
                Component::Normal(part) => Some(part),
                _ => None,
            })
            .collect();
        let Some((last, folders)) = parts.split_last() else {
            return Err(ArchiveError::Outside {
                path: below.to_owned(),
            });
        };
        let same = self.open.iter().zip(folders);
        let same = same.take_while(|((open, _), part)| open == *part).count();
        self.open.truncate(same);
        for depth in same..folders.len() {
            let part = folders[depth];
            let at = self.deepest();
            let opened = match self.enter(at, part) {
                Err(Errno::ENOENT) => match mkdirat(at, part, IMPLIED) {
                    Ok(()) | Err(Errno::EEXIST) => self.enter(at, part),
                    Err(errno) => Err(errno),
                },
                opened => opened,
            };
            let folder: PathBuf = folders[..=depth].iter().collect();
            let opened = opened.map_err(|errno| self.refused(&folder, errno))?;
            self.open.push((part.to_owned(), opened));
        }
        Ok((self.deepest(), last))
    }

    fn deepest(&self) -> BorrowedFd<'_> {
        self.open
            .last()
            .map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    fn enter(&self, at: BorrowedFd<'_>, part: &OsStr) -> nix::Result<OwnedFd> {
        let mut flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        if !self.follow {
            flags |= OFlag::O_NOFOLLOW;
        }
        openat(at, part, flags, Mode::empty())
    }

    fn refused(&self, folder: &Path, errno: Errno) -> ArchiveError {
        let path = self.full(folder);
        match errno {
            Errno::ELOOP | Errno::ENOTDIR => ArchiveError::Through { path },
            errno => ArchiveError::file("open", &path)(io::Error::from(errno)),
        }
    }
}
