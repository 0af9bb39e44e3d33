//! inotify on the kit folders and on the folders of the daemons' config.
//!
//! inotify(7) tells what changed, not always where it ended up, so a change only
//! says what to read again. Changes come in bursts (an editor writes, renames
//! and deletes), hence the short wait for the end of one.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aegis_core::handle::Handle;
use futures_util::StreamExt;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::sync::mpsc;

/// A burst is over when nothing happened for this long: longer than editors
/// take between the steps of a save, shorter than people notice.
const QUIET: Duration = Duration::from_millis(150);
/// Room for a few dozen events with their names.
const BUFFER: usize = 4096;

/// What is to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The manifests.
    Kits,
    /// The config of this instance's daemons.
    Config(Handle),
}

/// Follows the folders until the receiver of `changes` is gone. The first kit
/// folder also has the config folders, one per instance.
///
/// # Errors
/// The kernel gives no inotify instance, or its descriptor breaks.
pub async fn watch(kit_dirs: Vec<PathBuf>, changes: mpsc::Sender<Changed>) -> io::Result<()> {
    let inotify = Inotify::init()?;
    let mut watches = inotify.watches();
    let mut events = inotify.into_event_stream(vec![0; BUFFER])?;
    let mut watched = HashMap::new();
    loop {
        place(&kit_dirs, &mut watches, &mut watched);
        let Some(event) = events.next().await else {
            return Ok(());
        };
        let mut burst = BTreeSet::new();
        let mut kits = note(&event?, &watched, &mut burst);
        while let Ok(Some(event)) = tokio::time::timeout(QUIET, events.next()).await {
            kits |= note(&event?, &watched, &mut burst);
        }
        let configs = burst.into_iter().map(Changed::Config);
        for change in kits.then_some(Changed::Kits).into_iter().chain(configs) {
            if changes.send(change).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Notes what an event is about; returns whether it may concern manifests.
fn note(
    event: &inotify::Event<std::ffi::OsString>,
    watched: &HashMap<WatchDescriptor, Handle>,
    configs: &mut BTreeSet<Handle>,
) -> bool {
    if event.mask.contains(EventMask::Q_OVERFLOW) {
        configs.extend(watched.values().cloned());
        return true;
    }
    match watched.get(&event.wd) {
        Some(handle) => {
            configs.insert(handle.clone());
            false
        }
        None => true,
    }
}

/// Watches every folder that is there. The kernel gives a folder that is watched
/// already the same descriptor again.
fn place(
    kit_dirs: &[PathBuf],
    watches: &mut inotify::Watches,
    watched: &mut HashMap<WatchDescriptor, Handle>,
) {
    let content = WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::ATTRIB;
    for folder in kit_dirs {
        if watches.add(folder, content).is_err() {
            // Not there yet: its nearest ancestor will tell of its creation.
            let born = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR;
            let mut ancestors = folder.ancestors().skip(1);
            ancestors.any(|ancestor| watches.add(ancestor, born).is_ok());
        }
    }
    for (handle, folder) in kit_dirs
        .first()
        .map(|own| config_dirs(own))
        .unwrap_or_default()
    {
        if let Ok(descriptor) = watches.add(folder, content) {
            watched.insert(descriptor, handle);
        }
    }
}

fn config_dirs(own: &Path) -> Vec<(Handle, PathBuf)> {
    let Ok(entries) = own.read_dir() else {
        return Vec::new();
    };
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    let named = folders.filter_map(|entry| {
        let handle = entry.file_name().to_str()?.parse().ok()?;
        Some((handle, entry.path()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn manifests_config_and_folders_that_come_later_are_seen() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("kits");
        fs::create_dir(&own).unwrap();
        let later = root.path().join("share/kits");
        let (sender, mut changes) = mpsc::channel(8);
        let task = tokio::spawn(watch(vec![own.clone(), later.clone()], sender));
        tokio::task::yield_now().await;
        let mut write_until = async |path: &Path, wanted: Changed| {
            // The first write may come before the watch is in place.
            loop {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "{}").unwrap();
                let next = tokio::time::timeout(Duration::from_secs(2), changes.recv());
                if next
                    .await
                    .is_ok_and(|change| change.as_ref() == Some(&wanted))
                {
                    return;
                }
            }
        };
        write_until(&own.join("a.json"), Changed::Kits).await;
        let config = Changed::Config("web".parse().unwrap());
        write_until(&own.join("web/gateway.json"), config).await;
        write_until(&later.join("b.json"), Changed::Kits).await;
        task.abort();
    }
}
