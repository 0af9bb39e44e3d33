//! Reading the console's files through descriptors, and waiting for more.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use aegis_os::watch::{EventMask, EventStream, Inotify, WatchMask};
use futures_util::StreamExt;
use zbus::OwnedFd;

use crate::failure::Failure;

/// How often is looked where the kernel may not tell (a file of another user's),
/// and where there is no file yet.
const POLL: Duration = Duration::from_millis(500);
/// Room for the events that come while one is handled; they only say "changed".
const EVENTS: usize = 4096;

/// The files of a console, oldest first.
#[derive(Default)]
pub(super) struct Reader {
    files: Vec<File>,
    /// Device and inode of the newest file that was ever taken.
    newest: Option<(u64, u64)>,
    changes: Option<EventStream<Vec<u8>>>,
    renamed: bool,
}

impl Reader {
    /// Takes the files, but those that were taken before.
    pub(super) fn take(&mut self, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        let files = descriptors
            .into_iter()
            .map(|descriptor| File::from(std::os::fd::OwnedFd::from(descriptor)));
        let mut opened = Vec::new();
        for file in files {
            let data = file.metadata().map_err(unreadable)?;
            opened.push(((data.dev(), data.ino()), file));
        }
        let known = opened.iter().rposition(|(id, _)| Some(*id) == self.newest);
        for (id, file) in opened.into_iter().skip(known.map_or(0, |at| at + 1)) {
            self.newest = Some(id);
            self.changes = watch(&file);
            self.renamed = false;
            self.files.push(file);
        }
        Ok(())
    }

    /// What has been written since the last time.
    pub(super) fn read(&mut self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        for file in &mut self.files {
            file.read_to_end(&mut bytes).map_err(unreadable)?;
        }
        // The ones before the newest are complete.
        let complete = self.files.len().saturating_sub(1);
        self.files.drain(..complete);
        Ok(bytes)
    }

    /// Whether the console goes on in a file that is not open yet.
    pub(super) fn wants_next_file(&self) -> bool {
        let removed = |file: &File| file.metadata().is_ok_and(|data| data.nlink() == 0);
        self.renamed || self.changes.is_none() || self.files.last().is_none_or(removed)
    }

    /// Waits until there may be more.
    pub(super) async fn changed(&mut self) -> Result<(), Failure> {
        let Some(changes) = &mut self.changes else {
            tokio::time::sleep(POLL).await;
            return Ok(());
        };
        match changes.next().await {
            Some(Ok(event)) => {
                self.renamed |= event.mask.contains(EventMask::MOVE_SELF);
                Ok(())
            }
            Some(Err(error)) => Err(unreadable(error)),
            None => {
                self.changes = None;
                Ok(())
            }
        }
    }
}

/// Changes of a file; `None` where the kernel does not let us watch it.
fn watch(file: &File) -> Option<EventStream<Vec<u8>>> {
    let inotify = Inotify::init().ok()?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // ATTRIB comes with the removal of the last name.
    let mask = WatchMask::MODIFY | WatchMask::ATTRIB | WatchMask::MOVE_SELF;
    inotify.watches().add(path, mask).ok()?;
    inotify.into_event_stream(vec![0; EVENTS]).ok()
}

fn unreadable(source: std::io::Error) -> Failure {
    Failure::Io {
        what: "read the console",
        source,
    }
}
