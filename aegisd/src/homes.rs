//! Files in users' homes, as aegisd looks at them in system mode.
//!
//! aegisd may read everything and the user may not, and what a path leads to is the
//! user's to change at any moment. So a path is walked by descriptors, and each step
//! is looked at before it is opened: no link is followed, no pipe waited for, and
//! nothing is read that does not belong to the user, whatever name it was given there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use aegis_os::descriptors::{self, LOOK};
use nix::unistd::{Uid, User};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, fstat, open, openat};
use rustix::io::Errno;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why a file that is there is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    #[error("{0} is a link, which is not followed")]
    Link(PathBuf),
    #[error("{0} does not belong to the user whose home it is in")]
    Foreign(PathBuf),
    #[error("{0} is not a file")]
    NoFile(PathBuf),
    #[error("{0} is larger than 1 MiB")]
    Large(PathBuf),
    #[error("{path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A user's home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    uid: u32,
    path: PathBuf,
}

/// How far a walk came.
struct Walk {
    /// The home and what lies below it, one step each.
    steps: Vec<OwnedFd>,
    end: End,
}

/// Why a walk went no further.
enum End {
    /// It came to its goal.
    There,
    /// The next step does not exist.
    Missing,
    /// The next step is not to be made.
    Refused(HomeError),
}

impl Home {
    /// The home that the user database names; `None` for an unknown user.
    pub(crate) fn of(uid: u32) -> Option<Self> {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
        let path = user.dir;
        path.is_absolute().then_some(Self { uid, path })
    }

    /// Where a path below it lies.
    pub(crate) fn join(&self, below: &Path) -> PathBuf {
        self.path.join(below)
    }

    /// The content of a small file below it; `None` if there is none.
    ///
    /// # Errors
    /// It is there and is not the user's own plain file, or cannot be read.
    pub(crate) fn read(&self, below: &Path) -> Result<Option<Vec<u8>>, HomeError> {
        let path = self.join(below);
        let walk = self.walk(below);
        let found = match (walk.end, walk.steps.last()) {
            (End::There, Some(found)) => found,
            (End::Refused(error), _) => return Err(error),
            _ => return Ok(None),
        };
        let stat = fstat(found).map_err(|error| unreadable(&path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(HomeError::NoFile(path));
        }
        if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > MAX_FILE {
            return Err(HomeError::Large(path));
        }
        // What was looked at, and nothing that has its name by now. Its user may hold a
        // lease on it (fcntl(2)), which is not waited for.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let again = descriptors::path(found).map_err(|error| unreadable(&path, error))?;
        let file = open(again, flags, Mode::empty());
        let file = File::from(file.map_err(|error| unreadable(&path, error))?);
        let mut bytes = Vec::new();
        let read = file.take(MAX_FILE).read_to_end(&mut bytes);
        read.map_err(|error| unreadable(&path, error))?;
        Ok(Some(bytes))
    }

    /// Calls `see` with each folder on the way to a path below it, from the home on,
    /// as far as they are there and the user's own: with how deep below the home it lies,
    /// and with a path that leads to just this folder during the call.
    pub(crate) fn folders(&self, below: &Path, mut see: impl FnMut(usize, &Path)) {
        let Some(parent) = below.parent() else { return };
        for (depth, folder) in self.walk(parent).steps.iter().enumerate() {
            // What has no name any more holds nothing that is looked for.
            if let Ok(path) = descriptors::path(folder) {
                see(depth, &path);
            }
        }
    }

    /// Goes from the home to a path below it.
    fn walk(&self, below: &Path) -> Walk {
        let mut steps = Vec::new();
        // The way to the home is the administrator's. One that is not there, not the
        // user's own, or closed to root holds nothing for us.
        let home = open(&self.path, LOOK | OFlags::DIRECTORY, Mode::empty());
        let own = home.ok().filter(|home| self.owns(home));
        let Some(home) = own else {
            let end = End::Missing;
            return Walk { steps, end };
        };
        steps.push(home);
        let mut path = self.path.clone();
        for part in below.components() {
            path.push(part);
            let next = match (part, steps.last()) {
                (Component::Normal(name), Some(at)) => self.step(at, name, &path),
                _ => Err(unreadable(&path, Errno::INVAL)),
            };
            let end = match next {
                Ok(Some(step)) => {
                    steps.push(step);
                    continue;
                }
                Ok(None) => End::Missing,
                Err(error) => End::Refused(error),
            };
            return Walk { steps, end };
        }
        let end = End::There;
        Walk { steps, end }
    }

    /// Goes one step, which is `path` in words; `None` if it does not exist.
    fn step(&self, at: &OwnedFd, name: &OsStr, path: &Path) -> Result<Option<OwnedFd>, HomeError> {
        let step = match openat(at, name, LOOK | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(step) => step,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(unreadable(path, error)),
        };
        let stat = fstat(&step).map_err(|error| unreadable(path, error))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(HomeError::Link(path.to_owned()));
        }
        if stat.st_uid != self.uid {
            return Err(HomeError::Foreign(path.to_owned()));
        }
        Ok(Some(step))
    }

    fn owns(&self, file: &OwnedFd) -> bool {
        fstat(file).is_ok_and(|stat| stat.st_uid == self.uid)
    }
}

fn unreadable(path: &Path, source: impl Into<io::Error>) -> HomeError {
    HomeError::Read {
        path: path.to_owned(),
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::CWD;

    use super::*;

    /// A home of whoever runs the test.
    fn home(root: &Path) -> Home {
        Home {
            uid: Uid::current().as_raw(),
            path: root.to_owned(),
        }
    }

    #[test]
    fn a_users_own_file_is_read_and_a_missing_one_is_none() {
        let root = tempfile::tempdir().unwrap();
        let home = home(root.path());
        fs::create_dir(root.path().join("kits")).unwrap();
        fs::write(root.path().join("kits/a.json"), "{}").unwrap();
        let read = home.read(Path::new("kits/a.json")).unwrap();
        assert_eq!(read.as_deref(), Some(&b"{}"[..]));
        for missing in ["kits/b.json", "none/a.json", "kits/a.json/b"] {
            assert!(
                home.read(Path::new(missing)).unwrap().is_none(),
                "{missing}"
            );
        }
        let gone = Home {
            path: root.path().join("gone"),
            ..home
        };
        assert!(gone.read(Path::new("a")).unwrap().is_none());
    }

    #[test]
    fn what_is_not_a_plain_file_of_the_user_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let home = home(root.path());
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        symlink(outside.path().join("secret"), root.path().join("file")).unwrap();
        symlink(outside.path(), root.path().join("folder")).unwrap();
        let pipe = root.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let large = File::create(root.path().join("large")).unwrap();
        large.set_len(MAX_FILE + 1).unwrap();
        for (name, words) in [
            ("file", "file is a link"),
            ("folder/secret", "folder is a link"),
            ("pipe", "not a file"),
            ("large", "larger"),
            ("../secret", "cannot be read"),
        ] {
            let error = home.read(Path::new(name)).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
        let another = Home {
            uid: home.uid + 1,
            ..home.clone()
        };
        fs::write(root.path().join("plain"), "").unwrap();
        assert!(another.read(Path::new("plain")).unwrap().is_none());
    }

    #[test]
    fn the_folders_on_the_way_are_told_as_far_as_they_are_there() {
        let root = tempfile::tempdir().unwrap();
        let home = home(root.path());
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        let mut seen = Vec::new();
        home.folders(Path::new("a/b/c/file"), |depth, path| {
            seen.push((depth, fs::read_link(path).unwrap()));
        });
        let paths = [".", "a", "a/b"].map(|below| root.path().join(below).components().collect());
        let expected: Vec<(usize, PathBuf)> = (0..).zip(paths).collect();
        assert_eq!(seen, expected);
    }
}
