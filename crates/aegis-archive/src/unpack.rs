//! From a stream to files, never outside the destination.
//!
//! The stream may come from a hostile guest: names with `..` are refused, no link
//! is walked through on the host, set-user-id bits are not taken over, devices are
//! not made, and nothing is opened that was there before.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use tar::{Archive, Entry, EntryType};

use crate::beneath::Beneath;
use crate::place::{Place, Source, There, place, target};
use crate::{ArchiveError, Summary};

/// Bytes read at a time; a run of zeros of this length becomes a hole.
const BLOCK: usize = 64 * 1024;

/// Folders whose time and mode are set when they are left; deeper ones get theirs at
/// once.
const MAX_OPEN_FOLDERS: usize = 4096;

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackOptions {
    /// Any archive, put into the destination as it is, which must be a folder.
    pub whole: bool,
    /// The destination belongs to who made the archive: links in it are followed
    /// and all modes kept.
    pub trusted: bool,
    /// Give files to the owners that the archive names.
    pub owners: bool,
}

/// Writes what an archive holds to `destination`.
///
/// # Errors
/// What stands in the way. What was written before it stays.
pub fn unpack(
    from: impl Read,
    destination: &Path,
    options: UnpackOptions,
    stop: &AtomicBool,
) -> Result<Summary, ArchiveError> {
    let mut archive = Archive::new(BufReader::with_capacity(BLOCK, from));
    let entries = archive.entries().map_err(ArchiveError::Read)?;
    let mut unpacker: Option<Unpacker<'_>> = None;
    for entry in entries {
        if stop.load(Ordering::Relaxed) {
            return Err(ArchiveError::Interrupted);
        }
        let mut entry = entry.map_err(ArchiveError::Read)?;
        if matches!(
            entry.header().entry_type(),
            EntryType::XGlobalHeader | EntryType::XHeader
        ) {
            continue;
        }
        let name = name_of(&entry)?;
        let unpacker = match &mut unpacker {
            Some(unpacker) => unpacker,
            None => {
                let place = choose(destination, &name, entry.header().entry_type(), options)?;
                unpacker.insert(Unpacker::new(place, options, stop)?)
            }
        };
        unpacker.entry(&mut entry, &name)?;
    }
    match unpacker {
        Some(mut unpacker) => {
            unpacker.leave_all();
            Ok(unpacker.summary)
        }
        // An empty tar file is one of an empty tree.
        None if options.whole => Ok(Summary::default()),
        None => Err(ArchiveError::Empty),
    }
}

fn name_of<R: Read>(entry: &Entry<'_, R>) -> Result<PathBuf, ArchiveError> {
    let name = entry.path().map_err(ArchiveError::Read)?;
    // The library cuts the dot off, which says that the content is meant.
    match entry.path_bytes().starts_with(b"./") && !name.starts_with(".") {
        true => Ok(Path::new(".").join(name)),
        false => Ok(name.into_owned()),
    }
}

fn choose(
    destination: &Path,
    first: &Path,
    kind: EntryType,
    options: UnpackOptions,
) -> Result<Place, ArchiveError> {
    let there = match std::fs::metadata(destination) {
        Ok(data) if data.is_dir() => There::Directory,
        Ok(_) => There::Other,
        // A link that leads nowhere is replaced, not followed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match std::fs::symlink_metadata(destination) {
                Ok(_) => There::Other,
                Err(_) => There::Nothing,
            }
        }
        Err(error) => return Err(ArchiveError::file("read", destination)(error)),
    };
    if options.whole {
        return match there {
            There::Directory => Ok(Place::Into(destination.to_owned())),
            There::Nothing | There::Other => {
                Err(crate::place::PlaceError::NoFolder(destination.to_owned()).into())
            }
        };
    }
    let source = match kind {
        EntryType::Directory if first.starts_with(".") => Source::Contents,
        EntryType::Directory => Source::Directory,
        _ => Source::Other,
    };
    Ok(place(destination, there, source)?)
}

struct Unpacker<'a> {
    place: Place,
    beneath: Beneath,
    options: UnpackOptions,
    stop: &'a AtomicBool,
    /// Folders that are not complete, outermost first.
    folders: Vec<Folder>,
    summary: Summary,
}

/// What a folder gets when it is complete.
struct Folder {
    path: PathBuf,
    mode: Mode,
    modified: TimeSpec,
}

impl<'a> Unpacker<'a> {
    fn new(
        place: Place,
        options: UnpackOptions,
        stop: &'a AtomicBool,
    ) -> Result<Self, ArchiveError> {
        let (Place::Into(root)
        | Place::As(root, _)
        | Place::ContentsAs(root, _)
        | Place::Contents(root)) = &place;
        Ok(Self {
            beneath: Beneath::open(root, options.trusted)?,
            place,
            options,
            stop,
            folders: Vec::new(),
            summary: Summary::default(),
        })
    }

    fn entry<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        name: &Path,
    ) -> Result<(), ArchiveError> {
        let below = match target(&self.place, name) {
            None => return Ok(()),
            Some(Err(path)) => return Err(ArchiveError::Outside { path }),
            Some(Ok(below)) => below,
        };
        self.leave(&below);
        let full = self.beneath.full(&below);
        let modified = modified(entry);
        let bits = bits(entry, self.options.trusted);
        let mode = mode(bits);
        let link = match entry.header().entry_type() {
            EntryType::Symlink | EntryType::Link => {
                let link = entry.link_name().map_err(ArchiveError::Read)?;
                link.map(std::borrow::Cow::into_owned)
            }
            _ => None,
        };
        let kind = entry.header().entry_type();
        // A hard link leads to a name of the same archive: it stays below as well.
        let linked = match (kind, &link) {
            (EntryType::Link, Some(link)) => match target(&self.place, link) {
                Some(Ok(path)) => Some(self.existing(&path)?),
                _ => return Err(ArchiveError::Outside { path: link.clone() }),
            },
            _ => None,
        };
        let (at, last) = self.beneath.parent(&below)?;
        let failed = |operation| {
            let full = full.clone();
            move |errno: Errno| ArchiveError::file(operation, &full)(errno.into())
        };
        match kind {
            EntryType::Directory => {
                match mkdirat(at, last, Mode::S_IRWXU) {
                    Ok(()) => {}
                    Err(Errno::EEXIST) if is_folder(at, last, self.options.trusted) => {}
                    Err(errno) => return Err(failed("make")(errno)),
                }
                let folder = Folder {
                    path: below.clone(),
                    mode,
                    modified,
                };
                if self.options.owners {
                    own(at, last, entry)?;
                }
                if self.folders.len() < MAX_OPEN_FOLDERS {
                    self.folders.push(folder);
                } else {
                    finish(&mut self.beneath, &folder);
                }
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                clear(at, last).map_err(failed("replace"))?;
                let flags = OFlag::O_WRONLY
                    | OFlag::O_CREAT
                    | OFlag::O_EXCL
                    | OFlag::O_NOFOLLOW
                    | OFlag::O_CLOEXEC;
                let file = openat(at, last, flags, Mode::S_IRUSR | Mode::S_IWUSR);
                let file = File::from(file.map_err(failed("make"))?);
                let written = write(entry, &file, self.stop, &full);
                match written {
                    Ok(bytes) => self.summary.bytes += bytes,
                    Err(error) => {
                        // Half a file is worse than none.
                        clear(at, last).ok();
                        return Err(error);
                    }
                }
                if self.options.owners {
                    own(at, last, entry)?;
                }
                set_mode(at, last, mode).map_err(failed("set the mode of"))?;
                set_time(at, last, modified).map_err(failed("set the time of"))?;
            }
            EntryType::Symlink => {
                clear(at, last).map_err(failed("replace"))?;
                let link = link.unwrap_or_default();
                symlinkat(&link, at, last).map_err(failed("make"))?;
                set_time(at, last, modified).map_err(failed("set the time of"))?;
            }
            EntryType::Link => {
                clear(at, last).map_err(failed("replace"))?;
                if let Some((from, name)) = linked {
                    let made = linkat(&from, name.as_os_str(), at, last, AtFlags::empty());
                    made.map_err(failed("link"))?;
                }
            }
            EntryType::Fifo => {
                clear(at, last).map_err(failed("replace"))?;
                let made = aegis_os::pipes::make_at(at, last, bits);
                if !made.map_err(ArchiveError::file("make", &full))? {
                    self.summary.skipped += 1;
                    return Ok(());
                }
            }
            _ => {
                self.summary.skipped += 1;
                return Ok(());
            }
        }
        self.summary.entries += 1;
        Ok(())
    }

    /// The folder and name of something that was unpacked before.
    fn existing(&mut self, below: &Path) -> Result<(OwnedFd, PathBuf), ArchiveError> {
        let full = self.beneath.full(below);
        let (at, last) = self.beneath.parent(below)?;
        let at = at.try_clone_to_owned();
        Ok((at.map_err(ArchiveError::file("open", &full))?, last.into()))
    }

    /// Completes the folders that `next` is not in.
    fn leave(&mut self, next: &Path) {
        while let Some(folder) = self
            .folders
            .pop_if(|folder| !next.starts_with(&folder.path))
        {
            finish(&mut self.beneath, &folder);
        }
    }

    fn leave_all(&mut self) {
        while let Some(folder) = self.folders.pop() {
            finish(&mut self.beneath, &folder);
        }
    }
}

/// Gives a folder its mode and time. One that is gone or not ours to change is as it is.
fn finish(beneath: &mut Beneath, folder: &Folder) {
    if let Ok((at, last)) = beneath.parent(&folder.path) {
        set_mode(at, last, folder.mode).ok();
        set_time(at, last, folder.modified).ok();
    }
}

/// Makes room for a new entry. A folder is not removed for a file.
fn clear(at: BorrowedFd<'_>, last: &std::ffi::OsStr) -> nix::Result<()> {
    match unlinkat(at, last, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn is_folder(at: BorrowedFd<'_>, last: &std::ffi::OsStr, follow: bool) -> bool {
    let flags = match follow {
        true => AtFlags::empty(),
        false => AtFlags::AT_SYMLINK_NOFOLLOW,
    };
    let found = fstatat(at, last, flags).map(|data| SFlag::from_bits_truncate(data.st_mode));
    found.is_ok_and(|kind| kind & SFlag::S_IFMT == SFlag::S_IFDIR)
}

fn set_mode(at: BorrowedFd<'_>, last: &std::ffi::OsStr, mode: Mode) -> nix::Result<()> {
    // It was made by us a moment ago and is no link.
    fchmodat(at, last, mode, FchmodatFlags::FollowSymlink)
}

fn set_time(at: BorrowedFd<'_>, last: &std::ffi::OsStr, modified: TimeSpec) -> nix::Result<()> {
    utimensat(
        at,
        last,
        &modified,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )
}

fn own<R: Read>(
    at: BorrowedFd<'_>,
    last: &std::ffi::OsStr,
    entry: &Entry<'_, R>,
) -> Result<(), ArchiveError> {
    let id = |id: io::Result<u64>| u32::try_from(id.unwrap_or(0)).unwrap_or(0);
    let uid = Uid::from_raw(id(entry.header().uid()));
    let gid = Gid::from_raw(id(entry.header().gid()));
    let given = fchownat(at, last, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW);
    given.map_err(|errno| ArchiveError::file("give away", Path::new(last))(errno.into()))
}

/// The mode of an entry, in twelve bits; where nobody is trusted, without those that make a
/// program somebody else.
fn bits<R: Read>(entry: &Entry<'_, R>, trusted: bool) -> u32 {
    let mask = if trusted { 0o7777 } else { 0o777 };
    entry.header().mode().unwrap_or(0o600) & mask
}

/// Twelve bits in the type of the platform.
fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits as nix::libc::mode_t)
}

/// The time of an entry, in full where the archive has it.
fn modified<R: Read>(entry: &mut Entry<'_, R>) -> TimeSpec {
    let whole = Duration::from_secs(entry.header().mtime().unwrap_or(0));
    let exact = match entry.pax_extensions() {
        Ok(Some(extensions)) => extensions
            .filter_map(Result::ok)
            .find(|record| record.key() == Ok("mtime"))
            .and_then(|record| seconds(record.value().ok()?)),
        Ok(None) | Err(_) => None,
    };
    TimeSpec::from(exact.unwrap_or(whole))
}

/// Seconds with a fraction, as pax writes them.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    Some(Duration::new(whole.parse().ok()?, digits.parse().ok()?))
}

/// Writes the content; what is zero is left as a hole.
fn write<R: Read>(
    entry: &mut Entry<'_, R>,
    mut file: &File,
    stop: &AtomicBool,
    path: &Path,
) -> Result<u64, ArchiveError> {
    let failed = || ArchiveError::file("write", path);
    let mut block = vec![0; BLOCK];
    let mut length = 0;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(ArchiveError::Interrupted);
        }
        let mut filled = 0;
        while filled < BLOCK {
            match entry.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
        if filled == 0 && length < entry.size() {
            return Err(ArchiveError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        if filled == 0 {
            file.set_len(length).map_err(failed())?;
            return Ok(length);
        }
        length += filled as u64;
        let content = &block[..filled];
        let written = match content.iter().all(|byte| *byte == 0) {
            true => file.seek(SeekFrom::Start(length)).map(drop),
            false => file.write_all(content),
        };
        written.map_err(failed())?;
    }
}
