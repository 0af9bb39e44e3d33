//! Tells when `gateway.json` may have changed: written, replaced, removed or made, or when
//! a SIGHUP asks for it.
//!
//! The folder is watched, not the file, since editors put a new file in the old one's
//! place. Our own record lies in the same folder; its changes are not told.

use std::io;
use std::path::Path;
use std::time::Duration;

use aegis_os::watch::{EventMask, EventStream, Inotify, WatchMask};
use futures_util::StreamExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config;

/// A burst of changes is over when nothing happened for this long: longer than editors
/// take between the steps of a save, shorter than people notice.
const QUIET: Duration = Duration::from_millis(150);
/// A burst is told of at the latest after this long.
const LONGEST: Duration = Duration::from_secs(1);
/// How often to look for a folder that is gone.
const MISSING: Duration = Duration::from_secs(5);
/// Room for a few dozen events with their names.
const BUFFER: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("cannot watch the config folder")]
    Inotify(#[source] io::Error),
    #[error("cannot take SIGHUP")]
    Signal(#[source] io::Error),
}

/// Follows the config of a folder.
pub struct Watch {
    folder: std::path::PathBuf,
    events: EventStream<Vec<u8>>,
    hangups: Signal,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// # Errors
    /// The kernel gives no watch of the folder.
    pub fn new(folder: &Path) -> Result<Self, WatchError> {
        Ok(Self {
            folder: folder.to_owned(),
            events: open(folder).map_err(WatchError::Inotify)?,
            hangups: signal(SignalKind::hangup()).map_err(WatchError::Signal)?,
        })
    }

    /// Waits until the config may have changed.
    ///
    /// # Errors
    /// The watch is broken.
    pub async fn changed(&mut self) -> Result<(), WatchError> {
        while !self.next().await? {}
        let end = Instant::now() + LONGEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(end);
            match timeout_at(quiet, self.next()).await {
                Ok(told) => {
                    told?;
                }
                Err(_) => return Ok(()),
            }
        }
    }

    /// The next event, and whether it concerns the config.
    async fn next(&mut self) -> Result<bool, WatchError> {
        let event = tokio::select! {
            event = self.events.next() => event,
            Some(()) = self.hangups.recv() => return Ok(true),
        };
        let event = match event {
            Some(event) => event.map_err(WatchError::Inotify)?,
            None => return Err(WatchError::Inotify(io::ErrorKind::UnexpectedEof.into())),
        };
        if event.mask.contains(EventMask::IGNORED) {
            // The folder itself has gone; what is made in its place is another one.
            self.reopen().await;
            return Ok(true);
        }
        let ours = event.name.as_deref() == Some(config::FILE.as_ref());
        Ok(ours || event.mask.contains(EventMask::Q_OVERFLOW))
    }

    async fn reopen(&mut self) {
        loop {
            match open(&self.folder) {
                Ok(events) => {
                    self.events = events;
                    return;
                }
                Err(error) => {
                    tracing::warn!("the config folder is gone, waiting for it: {error}");
                    sleep(MISSING).await;
                }
            }
        }
    }
}

fn open(folder: &Path) -> io::Result<EventStream<Vec<u8>>> {
    let inotify = Inotify::init()?;
    let changes = WatchMask::CLOSE_WRITE
        | WatchMask::MODIFY
        | WatchMask::MOVE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF;
    inotify.watches().add(folder, changes)?;
    inotify.into_event_stream(vec![0; BUFFER])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn each_way_of_changing_the_config_is_told_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(config::FILE);
        let mut watch = Watch::new(folder.path()).unwrap();
        let steps: [(&str, &dyn Fn()); 4] = [
            ("made", &|| fs::write(&path, "{}").unwrap()),
            ("edited", &|| fs::write(&path, "{ }").unwrap()),
            ("replaced", &|| {
                let other = folder.path().join("other");
                fs::write(&other, "{}").unwrap();
                fs::rename(&other, &path).unwrap();
            }),
            ("removed", &|| fs::remove_file(&path).unwrap()),
        ];
        for (what, step) in steps {
            step();
            timeout(SOON, watch.changed()).await.expect(what).unwrap();
        }
        fs::write(folder.path().join(".gateway-state.json"), "{}").unwrap();
        let told = timeout(Duration::from_millis(400), watch.changed()).await;
        assert!(told.is_err(), "a change of another file is told");
    }
}
