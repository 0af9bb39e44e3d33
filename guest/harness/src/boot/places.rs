//! What a root has to have before anything runs in it: directories to mount on, and
//! the files about names. An image may lack them, or have links or files in their
//! place, so every path is looked up within the root (openat2(2), RESOLVE_IN_ROOT)
//! while nothing but its own files can be met there.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Most bytes of a file that are compared with what it should be.
const MAX_COMPARED: u64 = 4096;

/// Why a root cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("Cannot open the root")]
    Root(#[source] Errno),
    #[error("Cannot make the directory {path}")]
    Directory {
        path: String,
        #[source]
        source: Errno,
    },
    #[error("Cannot make the directory {path}: the image has something else there")]
    Taken { path: String },
    #[error("Cannot put a file at {path}: the image has a directory there")]
    NoFile { path: String },
    #[error("Cannot write {path}")]
    File {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// What becomes of something in the image that stands where a directory has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It is removed: without the directory there is no guest.
    Replaced,
    /// It stays, and there is no directory.
    Kept,
}

/// When a file of the image is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// If something is in it.
    Filled,
    /// If it says the same.
    Same,
}

/// A root that nobody else changes.
#[derive(Debug)]
pub(crate) struct Places {
    root: OwnedFd,
}

impl Places {
    pub(crate) fn of(root: &Path) -> Result<Self, PlaceError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(root, flags, Mode::empty()).map_err(PlaceError::Root)?;
        Ok(Self { root })
    }

    /// A directory of the root itself, and no link to one: what the kernel's own
    /// file systems are mounted on.
    pub(crate) fn own_directory(&self, name: &str) -> Result<(), PlaceError> {
        let failed = |source| PlaceError::Directory {
            path: format!("/{name}"),
            source,
        };
        match fstatat(&self.root, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) if kind(&found) == SFlag::S_IFDIR => return Ok(()),
            Ok(_) => {
                unlinkat(&self.root, name, UnlinkatFlags::NoRemoveDir).map_err(failed)?;
            }
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        mkdirat(&self.root, name, Mode::from_bits_truncate(0o755)).map_err(failed)
    }

    /// A directory, which links may lead to. What is missing of its path is made,
    /// the last part with the mode.
    pub(crate) fn directory(
        &self,
        path: &str,
        mode: u32,
        obstacle: Obstacle,
    ) -> Result<OwnedFd, PlaceError> {
        let failed = |source| PlaceError::Directory {
            path: path.to_owned(),
            source,
        };
        let mut parent = self.open(".", OFlag::O_DIRECTORY).map_err(failed)?;
        let mut above = String::new();
        let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            above = format!("{above}/{name}");
            parent = match self.open(&above, OFlag::O_DIRECTORY) {
                // A link to the root itself is no place to mount anything on.
                Ok(found) if name == ".." || !self.is_root(&found).map_err(failed)? => found,
                _ => {
                    match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                        Err(Errno::EEXIST) if obstacle == Obstacle::Kept => {
                            return Err(PlaceError::Taken { path: above });
                        }
                        Err(Errno::EEXIST) => {
                            unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)
                                .and_then(|()| {
                                    mkdirat(&parent, name, Mode::from_bits_truncate(0o755))
                                })
                                .map_err(failed)?;
                        }
                        made => made.map_err(failed)?,
                    }
                    let flags =
                        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    let made = openat(&parent, name, flags, Mode::empty()).map_err(failed)?;
                    if names.peek().is_none() {
                        // The mode given to mkdir(2) is cut by the umask.
                        fs::set_permissions(path_of(&made), Permissions::from_mode(mode)).map_err(
                            |source| PlaceError::File {
                                path: path.to_owned(),
                                source,
                            },
                        )?;
                    }
                    made
                }
            };
        }
        Ok(parent)
    }

    /// What a file can be mounted on: whatever is there but a directory, or an empty
    /// file that is made.
    pub(crate) fn file_place(&self, path: &str) -> Result<OwnedFd, PlaceError> {
        let failed = |errno: Errno| PlaceError::File {
            path: path.to_owned(),
            source: errno.into(),
        };
        match self.find(path) {
            Ok(found) if kind(&fstat(&found).map_err(failed)?) == SFlag::S_IFDIR => {
                return Err(PlaceError::NoFile {
                    path: path.to_owned(),
                });
            }
            Ok(found) => return Ok(found),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.directory(parent, 0o755, Obstacle::Kept)?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&parent, name, flags, Mode::from_bits_truncate(0o644)).map_err(failed)
    }

    /// What is at a path within the root, links followed.
    pub(crate) fn find(&self, path: &str) -> nix::Result<OwnedFd> {
        self.open(path, OFlag::empty())
    }

    /// A file with this text. A link is replaced and never written through; a
    /// directory with something in it stays, since a guest can do without the file.
    pub(crate) fn file(
        &self,
        directory: &str,
        name: &str,
        text: &str,
        keep: Keep,
    ) -> Result<(), PlaceError> {
        let path = format!("{directory}/{name}");
        let failed = |source| PlaceError::File {
            path: path.clone(),
            source,
        };
        if let Ok(Some(before)) = self.content(&path)
            && match keep {
                Keep::Filled => !before.is_empty(),
                Keep::Same => before == text.as_bytes(),
            }
        {
            return Ok(());
        }
        let parent = self.directory(directory, 0o755, Obstacle::Replaced)?;
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EISDIR) => match unlinkat(&parent, name, UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOTEMPTY) => return Ok(()),
                removed => removed.map_err(|errno| failed(errno.into()))?,
            },
            Err(errno) => return Err(failed(errno.into())),
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&parent, name, flags, Mode::from_bits_truncate(0o644));
        let file = file.map_err(|errno| failed(errno.into()))?;
        File::from(file).write_all(text.as_bytes()).map_err(failed)
    }

    /// The beginning of a file; nothing if there is none, or something else.
    fn content(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let Ok(found) = self.find(path) else {
            return Ok(None);
        };
        // Opening a device or a pipe would do more than look.
        if kind(&fstat(&found)?) != SFlag::S_IFREG {
            return Ok(None);
        }
        let mut content = Vec::new();
        File::open(path_of(&found))?
            .take(MAX_COMPARED)
            .read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// Looks a path up within the root, links included.
    fn open(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, path, how)
    }

    fn is_root(&self, found: &OwnedFd) -> nix::Result<bool> {
        let (found, root) = (fstat(found)?, fstat(&self.root)?);
        Ok((found.st_dev, found.st_ino) == (root.st_dev, root.st_ino))
    }
}

/// A path that leads to what is open, wherever it is.
pub(crate) fn path_of(open: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", open.as_raw_fd())
}

/// Whether nothing is in a directory.
pub(crate) fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    Ok(fs::read_dir(path_of(directory))?.next().is_none())
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// A root, and a folder outside of it that nothing may reach.
    fn roots() -> (tempfile::TempDir, PathBuf, Places) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let places = Places::of(&root).unwrap();
        (dir, root, places)
    }

    #[test]
    fn what_is_missing_is_made_with_its_mode() {
        let (_dir, root, places) = roots();
        places
            .directory("/var/tmp", 0o1777, Obstacle::Replaced)
            .unwrap();
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode();
        assert_eq!(mode("var") & 0o7777, 0o755);
        assert_eq!(mode("var/tmp") & 0o7777, 0o1777);
        places.own_directory("proc").unwrap();
        assert_eq!(mode("proc") & 0o7777, 0o755);
    }

    #[test]
    fn links_are_followed_within_the_root_and_lead_nowhere_else() {
        let (dir, root, places) = roots();
        fs::create_dir(root.join("run")).unwrap();
        fs::create_dir(root.join("var")).unwrap();
        symlink("/run", root.join("var/run")).unwrap();
        places
            .directory("/var/run/app", 0o755, Obstacle::Kept)
            .unwrap();
        assert!(root.join("run/app").is_dir());

        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        for name in ["absolute", "relative"] {
            let path = format!("/{name}/in");
            let error = places.directory(&path, 0o755, Obstacle::Kept).unwrap_err();
            assert!(matches!(error, PlaceError::Taken { .. }), "{error}");
            places.directory(&path, 0o755, Obstacle::Replaced).unwrap();
            assert!(root.join(name).symlink_metadata().unwrap().is_dir());
        }
        assert!(is_empty(&Places::of(&outside).unwrap().root).unwrap());
    }

    #[test]
    fn what_is_in_the_way_is_replaced_or_named() {
        let (_dir, root, places) = roots();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/", root.join("top")).unwrap();
        for name in ["file", "dev"] {
            fs::write(root.join(name), "").unwrap();
        }
        for path in ["/loop", "/top", "/file/below"] {
            let error = places.directory(path, 0o755, Obstacle::Kept).unwrap_err();
            assert!(path.starts_with(match &error {
                PlaceError::Taken { path } => path.as_str(),
                _ => "",
            }));
            places.directory(path, 0o755, Obstacle::Replaced).unwrap();
        }
        places.own_directory("dev").unwrap();
        symlink("dev", root.join("sys")).unwrap();
        places.own_directory("sys").unwrap();
        for name in ["loop", "top", "file", "dev", "sys"] {
            assert!(
                root.join(name).symlink_metadata().unwrap().is_dir(),
                "{name}"
            );
        }
    }

    #[test]
    fn a_place_for_a_file_is_found_or_made() {
        let (dir, root, places) = roots();
        places.file_place("/made/below/file").unwrap();
        assert!(root.join("made/below/file").metadata().unwrap().is_file());
        places.file_place("/top").unwrap();
        fs::write(root.join("kept"), "text").unwrap();
        symlink("/kept", root.join("link")).unwrap();
        places.file_place("/link").unwrap();
        assert_eq!(fs::read_to_string(root.join("kept")).unwrap(), "text");
        let error = places.file_place("/made").unwrap_err();
        assert!(matches!(error, PlaceError::NoFile { .. }), "{error}");
        let error = places.file_place("/kept/below").unwrap_err();
        assert!(error.to_string().contains("/kept/below"), "{error}");

        let outside = dir.path().join("outside");
        symlink(&outside, root.join("dangling")).unwrap();
        places.file_place("/dangling").unwrap_err();
        assert!(!outside.exists());
    }

    #[test]
    fn a_file_is_kept_or_written_and_a_link_never_followed() {
        let (dir, root, places) = roots();
        let read = |name: &str| fs::read_to_string(root.join("etc").join(name)).unwrap();
        places.file("/etc", "hosts", "new", Keep::Filled).unwrap();
        assert_eq!(read("hosts"), "new");
        places.file("/etc", "hosts", "newer", Keep::Filled).unwrap();
        assert_eq!(read("hosts"), "new");
        fs::write(root.join("etc/hosts"), "").unwrap();
        places.file("/etc", "hosts", "newer", Keep::Filled).unwrap();
        places.file("/etc", "hosts", "newest", Keep::Same).unwrap();
        assert_eq!(read("hosts"), "newest");

        let outside = dir.path().join("outside");
        fs::write(&outside, "theirs").unwrap();
        symlink(&outside, root.join("etc/absolute")).unwrap();
        symlink("hosts", root.join("etc/beside")).unwrap();
        symlink("/proc/nothing", root.join("etc/dangling")).unwrap();
        fs::create_dir(root.join("etc/empty")).unwrap();
        for name in ["absolute", "beside", "dangling", "empty"] {
            places.file("/etc", name, "mine", Keep::Same).unwrap();
            assert_eq!(read(name), "mine");
        }
        assert_eq!(fs::read_to_string(&outside).unwrap(), "theirs");
        assert_eq!(read("hosts"), "newest");
        symlink("hosts", root.join("etc/good")).unwrap();
        places.file("/etc", "good", "mine", Keep::Filled).unwrap();
        assert!(root.join("etc/good").is_symlink());

        fs::create_dir_all(root.join("etc/full/child")).unwrap();
        places.file("/etc", "full", "mine", Keep::Same).unwrap();
        assert!(root.join("etc/full/child").is_dir());
    }
}
