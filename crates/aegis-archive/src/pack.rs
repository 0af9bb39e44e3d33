//! From files to a stream.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tar::{Builder, EntryType, Header};

use crate::place::{means_contents, wants_folder};
use crate::{ArchiveError, Summary};

/// Names of files with several links that are kept. Beyond it such files are
/// copied once for each name.
const MAX_LINKS: usize = 65_536;

/// Bytes written at a time.
const BUFFER: usize = 256 * 1024;

/// How a tree is packed.
#[derive(Clone, Copy, Debug, Default)]
pub struct PackOptions {
    /// Copy what the source leads to, if it is a link.
    pub follow: bool,
    /// Keep owners; else everything is said to be root's.
    pub owners: bool,
}

/// Writes the file or tree at `source` as an archive. Its first entry is the source
/// itself, named by its last part, or `.` where its content is meant.
///
/// # Errors
/// What cannot be read or written; the archive has no end then.
pub fn pack(
    source: &Path,
    to: impl Write,
    options: PackOptions,
    stop: &AtomicBool,
) -> Result<Summary, ArchiveError> {
    let mut packer = Packer {
        to: Builder::new(BufWriter::with_capacity(BUFFER, to)),
        options,
        stop,
        links: HashMap::new(),
        summary: Summary::default(),
    };
    let follow = options.follow || wants_folder(source);
    let metadata = match follow {
        true => fs::metadata(source),
        false => fs::symlink_metadata(source),
    };
    let metadata = metadata.map_err(ArchiveError::file("read", source))?;
    let name = match source.file_name() {
        Some(name) if !means_contents(source) => PathBuf::from(name),
        _ => PathBuf::from("./"),
    };
    packer.tree(source.to_owned(), name, &metadata)?;
    let finished = packer.to.into_inner().and_then(|mut to| to.flush());
    finished.map_err(ArchiveError::Write)?;
    Ok(packer.summary)
}

struct Packer<'a, W: Write> {
    to: Builder<BufWriter<W>>,
    options: PackOptions,
    stop: &'a AtomicBool,
    /// The first name of files that have several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    summary: Summary,
}

/// The names of a folder that are still to be packed.
struct Level {
    path: PathBuf,
    name: PathBuf,
    left: std::vec::IntoIter<OsString>,
}

impl<W: Write> Packer<'_, W> {
    fn tree(&mut self, path: PathBuf, name: PathBuf, data: &Metadata) -> Result<(), ArchiveError> {
        let mut open = Vec::new();
        open.extend(self.entry(path, name, data)?);
        while let Some(level) = open.last_mut() {
            let Some(child) = level.left.next() else {
                open.pop();
                continue;
            };
            let (path, name) = (level.path.join(&child), level.name.join(&child));
            let data = match fs::symlink_metadata(&path) {
                Ok(data) => data,
                // It went meanwhile, as files do.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(ArchiveError::file("read", &path)(error)),
            };
            open.extend(self.entry(path, name, &data)?);
        }
        Ok(())
    }

    /// Writes one entry; returns what is in it, if it is a folder.
    fn entry(
        &mut self,
        path: PathBuf,
        name: PathBuf,
        data: &Metadata,
    ) -> Result<Option<Level>, ArchiveError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(ArchiveError::Interrupted);
        }
        let mut header = self.header(data);
        let kind = data.file_type();
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            self.times(data)?;
            self.append(&mut header, &name, io::empty())?;
            let read = ArchiveError::file("read", &path);
            let names = fs::read_dir(&path).and_then(|entries| {
                let names = entries.map(|entry| Ok(entry?.file_name()));
                names.collect::<io::Result<Vec<_>>>()
            });
            let mut names = names.map_err(read)?;
            names.sort();
            let left = names.into_iter();
            return Ok(Some(Level { path, name, left }));
        }
        if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(ArchiveError::file("read", &path))?;
            header.set_entry_type(EntryType::Symlink);
            self.times(data)?;
            self.link(&mut header, &name, &target)?;
        } else if kind.is_file() {
            match self.first_name(&name, data) {
                Some(first) => {
                    header.set_entry_type(EntryType::Link);
                    self.link(&mut header, &name, &first)?;
                }
                None => self.file(&path, &name, &mut header, data)?,
            }
        } else if kind.is_fifo() {
            header.set_entry_type(EntryType::Fifo);
            self.append(&mut header, &name, io::empty())?;
        } else {
            // Sockets mean nothing without their process, devices nothing elsewhere.
            self.summary.skipped += 1;
        }
        Ok(None)
    }

    fn file(
        &mut self,
        path: &Path,
        name: &Path,
        header: &mut Header,
        data: &Metadata,
    ) -> Result<(), ArchiveError> {
        // It may have become something else meanwhile, a pipe for instance.
        let opened = File::options()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(path);
        let follow = self.options.follow && self.summary.entries == 0;
        let opened = match opened {
            Err(_) if follow => File::open(path),
            opened => opened,
        };
        let file = opened.map_err(ArchiveError::file("open", path))?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(data.len());
        self.times(data)?;
        let content = Exactly {
            from: file,
            left: data.len(),
            stop: self.stop,
        };
        self.append(header, name, content)?;
        self.summary.bytes += data.len();
        Ok(())
    }

    fn header(&self, data: &Metadata) -> Header {
        let mut header = Header::new_gnu();
        header.set_mode(data.mode() & 0o7777);
        header.set_mtime(u64::try_from(data.mtime()).unwrap_or(0));
        if self.options.owners {
            header.set_uid(data.uid().into());
            header.set_gid(data.gid().into());
        } else {
            header.set_uid(0);
            header.set_gid(0);
        }
        header.set_size(0);
        header
    }

    /// A record with the time in full: a header counts whole seconds.
    fn times(&mut self, data: &Metadata) -> Result<(), ArchiveError> {
        if data.mtime_nsec() == 0 || data.mtime() < 0 {
            return Ok(());
        }
        let time = format!("{}.{:09}", data.mtime(), data.mtime_nsec());
        let record = [("mtime", time.as_bytes())];
        self.to
            .append_pax_extensions(record)
            .map_err(ArchiveError::Write)
    }

    /// The name under which a file with several names was packed before.
    fn first_name(&mut self, name: &Path, data: &Metadata) -> Option<PathBuf> {
        if data.nlink() < 2 {
            return None;
        }
        let id = (data.dev(), data.ino());
        if let Some(first) = self.links.get(&id) {
            return Some(first.clone());
        }
        if self.links.len() < MAX_LINKS {
            self.links.insert(id, name.to_owned());
        }
        None
    }

    fn append(
        &mut self,
        header: &mut Header,
        name: &Path,
        content: impl Read,
    ) -> Result<(), ArchiveError> {
        self.summary.entries += 1;
        let appended = self.to.append_data(header, name, content);
        appended.map_err(|error| self.failed(error))
    }

    fn link(
        &mut self,
        header: &mut Header,
        name: &Path,
        target: &Path,
    ) -> Result<(), ArchiveError> {
        self.summary.entries += 1;
        let appended = self.to.append_link(header, name, target);
        appended.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> ArchiveError {
        match self.stop.load(Ordering::Relaxed) {
            true => ArchiveError::Interrupted,
            false => ArchiveError::Write(error),
        }
    }
}

/// A file of exactly the length its header says: what was cut off meanwhile is
/// zero, what was added is left out.
struct Exactly<'a> {
    from: File,
    left: u64,
    stop: &'a AtomicBool,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            // Not the kind of that name, after which a read is tried again.
            return Err(io::Error::other("interrupted"));
        }
        let room = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let mut count = self.from.read(&mut buffer[..room])?;
        if count == 0 {
            buffer[..room].fill(0);
            count = room;
        }
        self.left -= count as u64;
        Ok(count)
    }
}
