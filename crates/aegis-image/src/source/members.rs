//! The files of a layout or an archive, read where they are.
//!
//! Names come from the image and are not trusted: in a folder every part of a path is
//! opened without following links (GHSA-4587-w9mm-xxvh), and in a tar file a name is
//! only looked up among its regular files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::document::MAX_DOCUMENT;
use crate::error::{LocalError, SourceError};

/// Most entries of an archive: an image has at most a few hundred blobs.
const MAX_ENTRIES: usize = 65536;
/// How compressed files begin: gzip, zstd, xz, bzip2.
const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"];

/// The files of one image.
#[derive(Clone, Debug)]
pub(super) struct Members {
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Folder(Arc<File>),
    Tar {
        file: Arc<File>,
        places: Arc<HashMap<PathBuf, Span>>,
    },
}

/// Where a member is in its archive.
#[derive(Clone, Copy, Debug)]
struct Span {
    at: u64,
    length: u64,
}

/// One file, open. Reading moves nothing that others see.
#[derive(Clone, Debug)]
pub(super) struct Member {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Members {
    /// Opens the files below a folder.
    pub(super) fn of_folder(path: &Path) -> Result<Self, SourceError> {
        let opened = File::open(path).and_then(|folder| match folder.metadata()?.is_dir() {
            true => Ok(folder),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        let folder = opened.map_err(|source| SourceError::File {
            operation: "open the folder",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            kind: Kind::Folder(Arc::new(folder)),
        })
    }

    /// Opens the files in a tar file, by going over all its headers.
    pub(super) fn of_tar(path: &Path) -> Result<Self, SourceError> {
        let failed = |operation| {
            move |source| SourceError::File {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        let file = File::open(path).map_err(failed("open"))?;
        if !file.metadata().map_err(failed("read"))?.is_file() {
            return Err(failed("open")(io::Error::other("it is not a regular file")));
        }
        let mut start = [0; 6];
        let read = file.read_at(&mut start, 0).map_err(failed("read"))?;
        if COMPRESSED
            .iter()
            .any(|magic| start[..read].starts_with(magic))
        {
            return Err(local(path)(LocalError::Compressed));
        }
        let places = places(&file).map_err(local(path))?;
        Ok(Self {
            path: path.to_owned(),
            kind: Kind::Tar {
                file: Arc::new(file),
                places: Arc::new(places),
            },
        })
    }

    /// The folder or file itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a member.
    pub(super) fn open(&self, name: &str) -> Result<Member, SourceError> {
        let found = match &self.kind {
            Kind::Folder(folder) => beneath(folder, name).and_then(|file| {
                let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file);
                let metadata = metadata.ok_or_else(|| LocalError::NotRegular(name.to_owned()))?;
                Ok(Member {
                    left: metadata.len(),
                    file: Arc::new(file),
                    at: 0,
                })
            }),
            Kind::Tar { file, places } => match places.get(Path::new(name)) {
                Some(span) => Ok(Member {
                    file: Arc::clone(file),
                    at: span.at,
                    left: span.length,
                }),
                None => Err(LocalError::Missing(name.to_owned())),
            },
        };
        found.map_err(local(&self.path))
    }

    /// The content of a member that holds JSON.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        let mut member = self.open(name)?;
        if member.left > MAX_DOCUMENT {
            return Err(SourceError::Document {
                what: name.to_owned(),
                place: self.path.display().to_string(),
                source: crate::document::DocumentError::TooLong,
            });
        }
        let mut bytes = Vec::new();
        let read = member.read_to_end(&mut bytes);
        read.map_err(|source| SourceError::File {
            operation: "read",
            path: self.path.join(name),
            source,
        })?;
        Ok(bytes)
    }
}

impl Member {
    pub(super) fn len(&self) -> u64 {
        self.left
    }
}

impl Read for Member {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// An error about an image on this host.
pub(super) fn local(path: &Path) -> impl FnOnce(LocalError) -> SourceError {
    let path = path.to_owned();
    |source| SourceError::Local { path, source }
}

fn beneath(folder: &File, name: &str) -> Result<File, LocalError> {
    let mut open: Option<File> = None;
    let mut parts = Path::new(name).components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(part) = part else {
            return Err(LocalError::Outside(name.to_owned()));
        };
        // A pipe must not make the opening wait for its other end.
        let mut flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        if parts.peek().is_some() {
            flags |= OFlag::O_DIRECTORY;
        }
        let at = open.as_ref().unwrap_or(folder).as_fd();
        let next = openat(at, part, flags, Mode::empty());
        let next = next.map_err(|errno| match errno {
            Errno::ENOENT => LocalError::Missing(name.to_owned()),
            _ => LocalError::NotRegular(name.to_owned()),
        })?;
        open = Some(next.into());
    }
    open.ok_or_else(|| LocalError::Missing(name.to_owned()))
}

fn places(file: &File) -> Result<HashMap<PathBuf, Span>, LocalError> {
    let mut archive = tar::Archive::new(file);
    let mut places = HashMap::new();
    let entries = archive.entries_with_seek().map_err(LocalError::Tar)?;
    for (count, entry) in entries.enumerate() {
        if count == MAX_ENTRIES {
            return Err(LocalError::Entries(MAX_ENTRIES));
        }
        let entry = entry.map_err(LocalError::Tar)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().map_err(LocalError::Tar)?;
        let span = Span {
            at: entry.raw_file_position(),
            length: entry.size(),
        };
        // Written as './blobs/..' by some.
        let plain: PathBuf = path
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        places.insert(plain, span);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn problem(result: Result<Member, SourceError>) -> LocalError {
        match result.unwrap_err() {
            SourceError::Local { source, .. } => source,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn no_path_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("layout"), folder.path().join("secret"));
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        fs::write(&outside, "x").unwrap();
        fs::write(root.join("blobs/sha256/good"), "good").unwrap();
        symlink(&outside, root.join("blobs/sha256/link")).unwrap();
        symlink("sha256", root.join("blobs/md5")).unwrap();
        let pipe = root.join("blobs/pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let members = Members::of_folder(&root).unwrap();
        assert_eq!(members.read("blobs/sha256/good").unwrap(), b"good");
        let open = |name| problem(members.open(name));
        for name in ["blobs/sha256/link", "blobs/md5/good", "blobs", "blobs/pipe"] {
            assert!(matches!(open(name), LocalError::NotRegular(_)), "{name}");
        }
        for name in ["../secret", "/etc/passwd", "blobs/../../secret"] {
            assert!(matches!(open(name), LocalError::Outside(_)), "{name}");
        }
        assert!(matches!(open("nothing"), LocalError::Missing(_)));
    }

    #[test]
    fn a_tar_file_gives_its_regular_files_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        tar.append_data(&mut header, "./blobs/a", &b"good"[..])
            .unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "blobs/b", "/etc/passwd")
            .unwrap();
        tar.into_inner().unwrap();
        let members = Members::of_tar(&path).unwrap();
        assert_eq!(members.read("blobs/a").unwrap(), b"good");
        for name in ["blobs/b", "../blobs/a", "/etc/passwd"] {
            assert!(matches!(
                problem(members.open(name)),
                LocalError::Missing(_)
            ));
        }
        // What is cut off ends early, which the digest then shows.
        let whole = fs::metadata(&path).unwrap().len();
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(514)
            .unwrap();
        assert!(whole > 514);
        assert!(Members::of_tar(&path).is_err() || members.read("blobs/a").unwrap() == b"go");
        fs::write(&path, b"\x1f\x8b\x08").unwrap();
        let error = Members::of_tar(&path).unwrap_err();
        assert!(
            aegis_core::fault::chain(&error).contains("decompress"),
            "{error}"
        );
    }
}
