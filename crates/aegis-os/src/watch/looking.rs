//! What inotify(7) tells, found out by looking: for kernels without it.
//!
//! ```text
//!  each 500 ms: every watched folder ─► its entries now ─ other than before? ─► events
//!               every watched file   ─► its stamp now   ─┘
//! ```
//!
//! macOS has FSEvents, which tells of folders with all below them and of nothing that is
//! younger than a second or so, and kqueue(2), which wants every file open. A look at the
//! few small folders that are watched here costs microseconds and has no such corners.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks: shorter than people notice.
const LOOK: Duration = Duration::from_millis(500);
/// Events that wait to be taken; more are told as soon as there is room.
const ROOM: usize = 256;

bitflags::bitflags! {
    /// What is to be told of a folder or a file, by the numbers of inotify(7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WatchMask: u32 {
        const MODIFY = 0x2;
        const ATTRIB = 0x4;
        const CLOSE_WRITE = 0x8;
        const MOVED_FROM = 0x40;
        const MOVED_TO = 0x80;
        const MOVE = 0xc0;
        const CREATE = 0x100;
        const DELETE = 0x200;
        const DELETE_SELF = 0x400;
        const MOVE_SELF = 0x800;
        const ONLYDIR = 0x0100_0000;
    }
}

bitflags::bitflags! {
    /// What an event tells, by the numbers of inotify(7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EventMask: u32 {
        const MODIFY = 0x2;
        const ATTRIB = 0x4;
        const CLOSE_WRITE = 0x8;
        const MOVED_FROM = 0x40;
        const MOVED_TO = 0x80;
        const CREATE = 0x100;
        const DELETE = 0x200;
        const DELETE_SELF = 0x400;
        const MOVE_SELF = 0x800;
        const Q_OVERFLOW = 0x4000;
        const IGNORED = 0x8000;
    }
}

/// What came into a folder, what left it, what became other, in the order in which one
/// of them is told.
const CAME: [WatchMask; 2] = [WatchMask::CREATE, WatchMask::MOVED_TO];
const LEFT: [WatchMask; 2] = [WatchMask::DELETE, WatchMask::MOVED_FROM];
const CHANGED: [WatchMask; 3] = [WatchMask::CLOSE_WRITE, WatchMask::MODIFY, WatchMask::ATTRIB];
const GONE: [WatchMask; 2] = [WatchMask::DELETE_SELF, WatchMask::MOVE_SELF];

/// Which of the watched things an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchDescriptor(u64);

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<S> {
    pub wd: WatchDescriptor,
    pub mask: EventMask,
    /// The entry of the folder; `None` where it is about the watched thing itself.
    pub name: Option<S>,
}

/// A file at one moment, as far as a change of it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(found: &std::fs::Metadata) -> Self {
        Self {
            inode: found.ino(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            size: found.size(),
        }
    }
}

/// What there is to see at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sight {
    File(Stamp),
    Folder(BTreeMap<OsString, Stamp>),
}

impl Sight {
    /// Device and inode of what is there, and how it looks.
    fn of(path: &Path) -> io::Result<((u64, u64), Self)> {
        let found = path.metadata()?;
        let identity = (found.dev(), found.ino());
        if !found.is_dir() {
            return Ok((identity, Self::File(Stamp::of(&found))));
        }
        let mut entries = BTreeMap::new();
        for entry in path.read_dir()? {
            let entry = entry?;
            // It may have gone since it was listed.
            if let Ok(found) = entry.path().symlink_metadata() {
                entries.insert(entry.file_name(), Stamp::of(&found));
            }
        }
        Ok((identity, Self::Folder(entries)))
    }

    /// Whether both are of one kind. A file may have the inode of a folder that went.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    mask: WatchMask,
    identity: (u64, u64),
    sight: Sight,
}

impl Watched {
    /// Looks again; what changed, by its entry, and whether it is still there.
    fn look(&mut self) -> (Vec<(EventMask, Option<OsString>)>, bool) {
        let now = match Sight::of(&self.path) {
            Ok((identity, now)) if identity == self.identity && now.is_like(&self.sight) => now,
            _ => {
                let mut told: Vec<_> = self.told(&GONE, None).into_iter().collect();
                told.push((EventMask::IGNORED, None));
                return (told, false);
            }
        };
        let before = std::mem::replace(&mut self.sight, now);
        let mut told = Vec::new();
        match (&before, &self.sight) {
            (Sight::Folder(before), Sight::Folder(now)) => {
                for (name, stamp) in now {
                    let kinds = match before.get(name) {
                        None => &CAME[..],
                        Some(known) if known.inode != stamp.inode => &CAME[..],
                        Some(known) if known != stamp => &CHANGED[..],
                        Some(_) => continue,
                    };
                    told.extend(self.told(kinds, Some(name)));
                }
                let left = before.keys().filter(|name| !now.contains_key(*name));
                told.extend(left.filter_map(|name| self.told(&LEFT, Some(name))));
            }
            (before, now) if before != now => told.extend(self.told(&CHANGED, None)),
            _ => {}
        }
        (told, true)
    }

    /// The first of these kinds that is asked for.
    fn told(
        &self,
        kinds: &[WatchMask],
        name: Option<&OsString>,
    ) -> Option<(EventMask, Option<OsString>)> {
        let kind = kinds.iter().find(|kind| self.mask.contains(**kind))?;
        Some((EventMask::from_bits_truncate(kind.bits()), name.cloned()))
    }
}

#[derive(Debug, Default)]
struct All {
    last: u64,
    watched: HashMap<WatchDescriptor, Watched>,
}

/// The watched folders and files.
#[derive(Clone, Debug, Default)]
pub struct Watches(Arc<Mutex<All>>);

impl Watches {
    /// Watches what is at a path. What is watched already keeps its descriptor and gets
    /// the new mask.
    ///
    /// # Errors
    /// It is not there, or no folder though it is to be one.
    pub fn add(&mut self, path: impl AsRef<Path>, mask: WatchMask) -> io::Result<WatchDescriptor> {
        let path = path.as_ref();
        let (identity, sight) = Sight::of(path)?;
        if mask.contains(WatchMask::ONLYDIR) && matches!(sight, Sight::File(_)) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let mut all = self.lock();
        let known = all.watched.iter_mut();
        let mut same = known.filter(|(_, watched)| watched.identity == identity);
        if let Some((&descriptor, watched)) = same.next() {
            watched.mask = mask;
            path.clone_into(&mut watched.path);
            return Ok(descriptor);
        }
        all.last += 1;
        let descriptor = WatchDescriptor(all.last);
        let watched = Watched {
            path: path.to_owned(),
            mask,
            identity,
            sight,
        };
        all.watched.insert(descriptor, watched);
        Ok(descriptor)
    }

    /// Watches something no more.
    ///
    /// # Errors
    /// It is not watched.
    #[allow(clippy::needless_pass_by_value, reason = "the crate inotify has it so")]
    pub fn remove(&mut self, descriptor: WatchDescriptor) -> io::Result<()> {
        let removed = self.lock().watched.remove(&descriptor);
        removed.map(drop).ok_or(io::ErrorKind::InvalidInput.into())
    }

    fn look(&self) -> Vec<Event<OsString>> {
        let mut all = self.lock();
        let mut events = Vec::new();
        all.watched.retain(|&wd, watched| {
            let (told, stays) = watched.look();
            let told = told.into_iter();
            events.extend(told.map(|(mask, name)| Event { wd, mask, name }));
            stays
        });
        events
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches that nobody looks at yet.
#[derive(Debug, Default)]
pub struct Inotify(Watches);

impl Inotify {
    /// # Errors
    /// None: the kernel has no part in it.
    pub fn init() -> io::Result<Self> {
        Ok(Self::default())
    }

    pub fn watches(&self) -> Watches {
        self.0.clone()
    }

    /// Looks from now on. To be called in a runtime. `buffer` is what the crate inotify
    /// reads into.
    ///
    /// # Errors
    /// None: the kernel has no part in it.
    pub fn into_event_stream<B>(self, buffer: B) -> io::Result<EventStream<B>> {
        drop(buffer);
        let (sender, events) = mpsc::channel(ROOM);
        tokio::spawn(look(self.0, sender));
        Ok(EventStream {
            events,
            buffer: PhantomData,
        })
    }
}

/// Looks until nobody wants to know.
async fn look(watches: Watches, sender: mpsc::Sender<Event<OsString>>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = sender.closed() => return,
            _ = ticks.tick() => {}
        }
        let looked = watches.clone();
        // Folders lie on disks.
        let Ok(events) = tokio::task::spawn_blocking(move || looked.look()).await else {
            return;
        };
        for event in events {
            if sender.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// Changes as they are seen.
#[derive(Debug)]
pub struct EventStream<B> {
    events: mpsc::Receiver<Event<OsString>>,
    buffer: PhantomData<fn() -> B>,
}

impl<B> Stream for EventStream<B> {
    type Item = io::Result<Event<OsString>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(context).map(|event| event.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use futures_util::StreamExt as _;

    use super::*;

    async fn next(stream: &mut EventStream<()>) -> (EventMask, Option<OsString>) {
        let event = tokio::time::timeout(Duration::from_secs(20), stream.next());
        let event = event.await.expect("nothing is told").unwrap().unwrap();
        (event.mask, event.name)
    }

    #[tokio::test]
    async fn what_comes_changes_and_goes_is_told_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let inotify = Inotify::init().unwrap();
        let mask = WatchMask::CREATE | WatchMask::MODIFY | WatchMask::DELETE;
        inotify.watches().add(folder.path(), mask).unwrap();
        let mut stream = inotify.into_event_stream(()).unwrap();
        let name = Some(OsString::from("file"));
        fs::write(&path, "a").unwrap();
        assert_eq!(next(&mut stream).await, (EventMask::CREATE, name.clone()));
        fs::write(&path, "ab").unwrap();
        assert_eq!(next(&mut stream).await, (EventMask::MODIFY, name.clone()));
        let other = folder.path().with_extension("other");
        fs::write(&other, "ab").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(next(&mut stream).await, (EventMask::CREATE, name.clone()));
        fs::remove_file(&path).unwrap();
        assert_eq!(next(&mut stream).await, (EventMask::DELETE, name));
    }

    #[tokio::test]
    async fn only_what_is_asked_for_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let inotify = Inotify::init().unwrap();
        let mut watches = inotify.watches();
        let first = watches.add(folder.path(), WatchMask::DELETE).unwrap();
        let same = watches.add(folder.path(), WatchMask::CREATE).unwrap();
        assert_eq!(first, same, "one folder has one descriptor");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let only = WatchMask::CREATE | WatchMask::ONLYDIR;
        assert!(watches.add(&file, only).is_err());
        assert!(watches.add(folder.path().join("none"), only).is_err());
        let mut stream = inotify.into_event_stream(()).unwrap();
        assert_eq!(next(&mut stream).await.0, EventMask::CREATE);
        fs::remove_file(&file).unwrap();
        fs::write(folder.path().join("next"), "").unwrap();
        assert_eq!(next(&mut stream).await.1, Some(OsString::from("next")));
        watches.remove(same).unwrap();
        assert!(watches.remove(same).is_err());
    }

    #[tokio::test]
    async fn a_folder_that_went_is_watched_no_more() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let inotify = Inotify::init().unwrap();
        let mut watches = inotify.watches();
        let mask = WatchMask::CREATE | WatchMask::DELETE_SELF;
        let first = watches.add(&folder, mask).unwrap();
        let mut stream = inotify.into_event_stream(()).unwrap();
        fs::remove_dir(&folder).unwrap();
        fs::write(&folder, "a file now").unwrap();
        assert_eq!(next(&mut stream).await.0, EventMask::DELETE_SELF);
        assert_eq!(next(&mut stream).await.0, EventMask::IGNORED);
        let second = watches.add(&folder, WatchMask::MODIFY).unwrap();
        assert_ne!(first, second);
        fs::write(&folder, "another content").unwrap();
        assert_eq!(next(&mut stream).await, (EventMask::MODIFY, None));
    }
}
