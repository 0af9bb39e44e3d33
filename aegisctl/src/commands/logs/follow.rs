//! Reading the command's log files through descriptors, and waiting for more.
//!
//! A file is known by its inode, so a file that was rotated away under a reader
//! is read to its end and never twice.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use aegis_os::watch::{EventStream, Inotify, WatchMask};
use futures_util::StreamExt;
use zbus::OwnedFd;

use super::entry::{Entry, Record};
use crate::failure::Failure;

/// How often a file is looked at where the kernel may not tell (a log of another
/// user's), and where there is no file yet.
const POLL: Duration = Duration::from_millis(500);
/// Room for the events that come while one is handled; they only say "changed".
const EVENTS: usize = 4096;

/// The files of a log.
#[derive(Default)]
pub(super) struct Follower {
    files: Vec<LogFile>,
    changes: Option<EventStream<Vec<u8>>>,
}

struct LogFile {
    /// Device and inode.
    identity: (u64, u64),
    reader: BufReader<File>,
    /// What has been read of a line that is still being written.
    line: Vec<u8>,
    rotated: bool,
}

impl Follower {
    /// Takes the files of the log, oldest first. Those known already are read on
    /// from where they were.
    pub(super) fn open(&mut self, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        let mut known = std::mem::take(&mut self.files);
        for descriptor in descriptors {
            let file = File::from(std::os::fd::OwnedFd::from(descriptor));
            let metadata = file.metadata().map_err(unreadable)?;
            let identity = (metadata.dev(), metadata.ino());
            match known.iter().position(|file| file.identity == identity) {
                Some(index) => self.files.push(known.swap_remove(index)),
                None => self.files.push(LogFile {
                    identity,
                    reader: BufReader::new(file),
                    line: Vec::new(),
                    rotated: false,
                }),
            }
        }
        self.changes = self.files.last().and_then(LogFile::watch);
        Ok(())
    }

    /// Every whole record that is there and has not been read.
    pub(super) fn entries(
        &mut self,
        instance: String,
    ) -> impl Iterator<Item = Result<Entry, Failure>> + '_ {
        let mut files = self.files.iter_mut();
        let mut current = files.next();
        std::iter::from_fn(move || {
            loop {
                match current.as_mut()?.next(&instance) {
                    Ok(Some(entry)) => return Some(Ok(entry)),
                    Ok(None) => current = files.next(),
                    Err(failure) => {
                        current = None;
                        return Some(Err(failure));
                    }
                }
            }
        })
    }

    /// Whether the log goes on in a file that is not open yet.
    pub(super) fn is_at_end_of_file(&self) -> bool {
        self.files.last().is_none_or(LogFile::is_over)
    }

    /// Waits until there may be more to print.
    pub(super) async fn changed(&mut self) -> Result<(), Failure> {
        // The next file may not be there yet, and nothing happens to this one any more.
        let over = self.is_at_end_of_file();
        match &mut self.changes {
            Some(changes) if !over => match changes.next().await {
                Some(Ok(_)) => Ok(()),
                Some(Err(error)) => Err(unreadable(error)),
                None => {
                    self.changes = None;
                    Ok(())
                }
            },
            _ => {
                tokio::time::sleep(POLL).await;
                Ok(())
            }
        }
    }
}

impl LogFile {
    /// The next whole record.
    fn next(&mut self, instance: &str) -> Result<Option<Entry>, Failure> {
        loop {
            match self.reader.read_until(b'\n', &mut self.line) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            }
            if self.line.last() != Some(&b'\n') {
                return Ok(None);
            }
            let record = Record::read(&self.line, instance);
            self.line.clear();
            match record {
                Record::Entry(entry) => return Ok(Some(*entry)),
                Record::Rotated => self.rotated = true,
                Record::Garbage => {}
            }
        }
    }

    /// Whether nothing more will be written to it: it was rotated or removed.
    fn is_over(&self) -> bool {
        let links = self.reader.get_ref().metadata().map(|data| data.nlink());
        self.rotated || links.is_ok_and(|links| links == 0)
    }

    /// Changes of the file; `None` where the kernel does not let us watch it.
    fn watch(&self) -> Option<EventStream<Vec<u8>>> {
        let inotify = Inotify::init().ok()?;
        let path = format!("/proc/self/fd/{}", self.reader.get_ref().as_raw_fd());
        // ATTRIB comes with the removal of the last name.
        let mask = WatchMask::MODIFY | WatchMask::ATTRIB;
        inotify.watches().add(path, mask).ok()?;
        inotify.into_event_stream(vec![0; EVENTS]).ok()
    }
}

fn unreadable(source: std::io::Error) -> Failure {
    Failure::Io {
        what: "read the log",
        source,
    }
}
