//! A watch on the kit folders and on the folders of the daemons' config.
//!
//! inotify(7), or what stands for it ([`aegis_os::watch`]), tells what changed, not always where it ended up, so a change only
//! says what to read again. Changes come in bursts (an editor writes, renames
//! and deletes), hence the short wait for the end of one; a daemon that writes into
//! its config folder without end does not hold the others up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aegis_core::handle::Handle;
use aegis_os::watch::{EventMask, Inotify, WatchDescriptor, WatchMask};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::homes::Home;

/// A burst is over when nothing happened for this long: longer than editors
/// take between the steps of a save, shorter than people notice.
const QUIET: Duration = Duration::from_millis(150);
/// A burst is told of at the latest after this long.
const LONGEST: Duration = Duration::from_millis(500);
/// Room for a few dozen events with their names.
const BUFFER: usize = 4096;
/// Config files lie this deep below their instance's folder at most, and an
/// instance has no more folders for them: what a daemon makes there is its own.
const DEEPEST: usize = 4;
const MOST_FOLDERS: usize = 64;

/// What is to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The manifests.
    Kits,
    /// The config of this instance's daemons.
    Config(Handle),
}

/// Config files that an instance's daemons have in the home of a user, the one who
/// made the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeConfig {
    pub uid: u32,
    /// The folder for them, below the home.
    pub folder: PathBuf,
    /// The files, below the home.
    pub files: Vec<PathBuf>,
}

/// Follows the folders until the receiver of `changes` is gone. The first kit
/// folder also has the config folders, one per instance; `in_homes` names others.
///
/// # Errors
/// The kernel gives no watch, or its descriptor breaks.
pub async fn watch(
    kit_dirs: Vec<PathBuf>,
    mut in_homes: watch::Receiver<BTreeMap<Handle, HomeConfig>>,
    changes: mpsc::Sender<Changed>,
) -> io::Result<()> {
    let inotify = Inotify::init()?;
    let mut watched = Watched {
        watches: inotify.watches(),
        folders: HashMap::new(),
    };
    let mut events = inotify.into_event_stream(vec![0; BUFFER])?;
    let homes = in_homes.borrow_and_update().clone();
    watched.place(&kit_dirs, &homes);
    loop {
        let mut burst = Burst::default();
        tokio::select! {
            event = events.next() => match event {
                Some(event) => watched.note(&event?, &mut burst),
                None => return Ok(()),
            },
            // Whose sender is gone ends with the receiver of the changes.
            Ok(()) = in_homes.changed() => {}
        }
        let end = Instant::now() + LONGEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(end);
            match tokio::time::timeout_at(quiet, events.next()).await {
                Ok(Some(event)) => watched.note(&event?, &mut burst),
                _ => break,
            }
        }
        // Before the news: what is written after it is read is seen then. A folder
        // that is new may have come with its content.
        let homes = in_homes.borrow_and_update().clone();
        burst.configs.extend(watched.place(&kit_dirs, &homes));
        let kits = burst.kits.then_some(Changed::Kits);
        let configs = burst.configs.into_iter().map(Changed::Config);
        for change in kits.into_iter().chain(configs) {
            if changes.send(change).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// What a burst of events is about.
#[derive(Default)]
struct Burst {
    kits: bool,
    configs: BTreeSet<Handle>,
}

/// The folders under watch.
struct Watched {
    watches: aegis_os::watch::Watches,
    folders: HashMap<WatchDescriptor, About>,
}

/// What a folder under watch may tell of.
#[derive(Default)]
struct About {
    kits: bool,
    /// It holds config of these instances, or may come to hold it.
    configs: BTreeSet<Handle>,
}

impl Watched {
    /// Notes what an event is about.
    fn note(&mut self, event: &aegis_os::watch::Event<std::ffi::OsString>, burst: &mut Burst) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            burst.kits = true;
            let all = self.folders.values().flat_map(|about| &about.configs);
            burst.configs.extend(all.cloned());
            return;
        }
        if let Some(about) = self.folders.get(&event.wd) {
            burst.kits |= about.kits;
            burst.configs.extend(about.configs.iter().cloned());
        }
        if event.mask.contains(EventMask::IGNORED) {
            // The folder is gone; one of its name that comes is another.
            self.folders.remove(&event.wd);
        }
    }

    /// Watches every folder that is there, and no other, and gives the instances of
    /// those that were not watched before. The kernel gives a folder that is watched
    /// already the same descriptor again.
    fn place(
        &mut self,
        kit_dirs: &[PathBuf],
        homes: &BTreeMap<Handle, HomeConfig>,
    ) -> BTreeSet<Handle> {
        let before = std::mem::take(&mut self.folders);
        self.place_kits(kit_dirs);
        for (handle, config) in homes {
            self.place_home(handle, config);
        }
        let mut new = BTreeSet::new();
        for (descriptor, about) in &self.folders {
            let known = before.get(descriptor);
            let is_new =
                |handle: &&Handle| known.is_none_or(|known| !known.configs.contains(*handle));
            new.extend(about.configs.iter().filter(is_new).cloned());
        }
        for descriptor in before.into_keys() {
            if !self.folders.contains_key(&descriptor) {
                // Its folder may have gone, and the watch with it.
                drop(self.watches.remove(descriptor));
            }
        }
        new
    }

    /// Watches a folder, if it is there, for what it may tell of a kit or of a config.
    fn add(&mut self, folder: &Path, mask: WatchMask, of: Option<&Handle>) -> bool {
        let Ok(descriptor) = self.watches.add(folder, mask) else {
            return false;
        };
        let about = self.folders.entry(descriptor).or_default();
        match of {
            Some(handle) => drop(about.configs.insert(handle.clone())),
            None => about.kits = true,
        }
        true
    }

    fn place_kits(&mut self, kit_dirs: &[PathBuf]) {
        for folder in kit_dirs {
            if !self.add(folder, content(), None) {
                // Not there yet: its nearest ancestor will tell of its creation.
                let mut ancestors = folder.ancestors().skip(1);
                ancestors.any(|ancestor| self.add(ancestor, born(), None));
            }
        }
        let Some(own) = kit_dirs.first() else { return };
        for (handle, folders) in config_dirs(own) {
            for folder in folders {
                self.add(&folder, content(), Some(&handle));
            }
        }
    }

    /// Watches the config folder in a home, and those above it for what may come in
    /// its place; the home itself, where much else comes and goes, only while there
    /// is nothing nearer.
    fn place_home(&mut self, handle: &Handle, config: &HomeConfig) {
        let Some(home) = Home::of(config.uid) else {
            return;
        };
        let own = config.folder.components().count();
        for file in &config.files {
            let mut deepest = 0;
            home.folders(file, |depth, _| deepest = depth);
            home.folders(file, |depth, folder| {
                if depth > 0 || deepest == 0 {
                    let mask = if depth < own { above() } else { content() };
                    self.add(folder, mask, Some(handle));
                }
            });
        }
    }
}

/// Any change in a folder.
fn content() -> WatchMask {
    WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::ATTRIB
}

/// What comes into a folder and leaves it under its name.
fn above() -> WatchMask {
    born() | WatchMask::MOVED_FROM
}

/// What comes into a folder.
fn born() -> WatchMask {
    WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR
}

/// The config folders of instances with the folders in them.
fn config_dirs(own: &Path) -> BTreeMap<Handle, Vec<PathBuf>> {
    let entries = own.read_dir().into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let folder = entry.path();
        let handle = entry.file_name().to_str()?.parse().ok()?;
        // Its user may have made it a link to a folder elsewhere.
        folder.is_dir().then(|| (handle, with_inner(folder)))
    });
    named.collect()
}

/// A folder and those in it, the upper ones first.
fn with_inner(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = vec![folder];
    let mut begin = 0;
    for _ in 0..DEEPEST {
        let inner: Vec<PathBuf> = found[begin..]
            .iter()
            .flat_map(|folder| folders_in(folder))
            .collect();
        begin = found.len();
        found.extend(inner);
        found.truncate(MOST_FOLDERS);
        begin = begin.min(found.len());
    }
    found
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut paths: Vec<PathBuf> = folders.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// No config in homes.
    fn nowhere() -> watch::Receiver<BTreeMap<Handle, HomeConfig>> {
        watch::channel(BTreeMap::new()).1
    }

    /// The first change that is wanted, in good time.
    async fn next(changes: &mut mpsc::Receiver<Changed>, wanted: &Changed) -> bool {
        let deadline = Instant::now() + Duration::from_secs(2);
        while let Ok(Some(change)) = tokio::time::timeout_at(deadline, changes.recv()).await {
            if change == *wanted {
                return true;
            }
        }
        false
    }

    #[tokio::test]
    async fn manifests_config_and_folders_that_come_later_are_seen() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("kits");
        fs::create_dir(&own).unwrap();
        let later = root.path().join("share/kits");
        let (sender, mut changes) = mpsc::channel(8);
        let task = tokio::spawn(watch(vec![own.clone(), later.clone()], nowhere(), sender));
        tokio::task::yield_now().await;
        let mut write_until = async |path: &Path, wanted: Changed| {
            // The first write may come before the watch is in place.
            loop {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "{}").unwrap();
                if next(&mut changes, &wanted).await {
                    return;
                }
            }
        };
        let config = |handle: &str| Changed::Config(handle.parse().unwrap());
        write_until(&own.join("a.json"), Changed::Kits).await;
        write_until(&own.join("web/gateway.json"), config("web")).await;
        write_until(&own.join("web/deep/er/gateway.json"), config("web")).await;
        write_until(&later.join("b.json"), Changed::Kits).await;
        task.abort();
    }

    #[tokio::test]
    async fn a_folder_that_comes_with_its_content_is_told_of_once_it_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("kits");
        fs::create_dir(&own).unwrap();
        let (sender, mut changes) = mpsc::channel(8);
        let task = tokio::spawn(watch(vec![own.clone()], nowhere(), sender));
        tokio::time::sleep(Duration::from_millis(50)).await;
        for _ in 0..2 {
            fs::create_dir_all(own.join("web/sub")).unwrap();
            fs::write(own.join("web/sub/x.json"), "{}").unwrap();
            let wanted = Changed::Config("web".parse().unwrap());
            assert!(next(&mut changes, &wanted).await);
            fs::remove_dir_all(own.join("web")).unwrap();
            assert!(next(&mut changes, &wanted).await, "of its end too");
        }
        task.abort();
    }

    #[tokio::test]
    async fn a_daemon_that_writes_without_end_holds_nobody_up() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("kits");
        fs::create_dir_all(own.join("noisy")).unwrap();
        fs::create_dir_all(own.join("quiet")).unwrap();
        let (sender, mut changes) = mpsc::channel(8);
        let task = tokio::spawn(watch(vec![own.clone()], nowhere(), sender));
        let noisy = own.join("noisy/state");
        let noise = tokio::spawn(async move {
            loop {
                fs::write(&noisy, "x").unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        fs::write(own.join("quiet/gateway.json"), "{}").unwrap();
        let wanted = Changed::Config("quiet".parse().unwrap());
        assert!(next(&mut changes, &wanted).await);
        task.abort();
        noise.abort();
    }
}
