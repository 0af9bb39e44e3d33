//! The guest's console: kept in a bounded file, its end also in memory.
//!
//! The hypervisor writes into a pipe; a thread of its own reads it, since writing
//! to a disk blocks. The thread ends with the last writer of the pipe, that is
//! with the hypervisor.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::warn;

use crate::rotated::RotatedFile;

/// Size of one file in bytes. A boot writes some ten KiB; a guest that fills its
/// console costs the host no more than twice this.
const FILE_LIMIT: u64 = 1 << 20;

/// Bytes of the console's end that are kept in memory for error messages.
const TAIL: usize = 4096;

/// How long the rest of a console may take after its hypervisor's end.
const COMPLETE_PATIENCE: Duration = Duration::from_secs(2);

/// The last lines of a tail that an error message shows.
const TAIL_LINES: usize = 5;

/// The end of a console, growing as the guest writes.
#[derive(Debug)]
pub struct ConsoleTail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    /// Its sender is the thread's and goes with it.
    thread: oneshot::Receiver<Infallible>,
}

/// Starts to keep a console in `path`. Returns the pipe to write to.
///
/// # Errors
/// What the system says about the pipe, the file or the thread.
pub fn keep(path: PathBuf) -> io::Result<(OwnedFd, ConsoleTail)> {
    let file = RotatedFile::open(path, FILE_LIMIT)?;
    let (reader, writer) = io::pipe()?;
    let bytes = Arc::new(Mutex::new(VecDeque::new()));
    let (alive, thread) = oneshot::channel();
    let tail = ConsoleTail {
        bytes: Arc::clone(&bytes),
        thread,
    };
    std::thread::Builder::new()
        .name("console".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || {
            copy(reader, file, &bytes);
            drop(alive);
        })?;
    Ok((writer.into(), tail))
}

fn copy(mut console: PipeReader, mut file: RotatedFile, tail: &Mutex<VecDeque<u8>>) {
    let mut buffer = [0; 4096];
    let mut failing = false;
    loop {
        let bytes = match console.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => &buffer[..length],
        };
        push(tail, bytes);
        let written = if file.is_full_for(bytes.len()) {
            file.rotate().and_then(|()| file.append(bytes))
        } else {
            file.append(bytes)
        };
        if let Err(error) = &written
            && !failing
        {
            warn!("cannot write {}: {error}, ignoring", file.path().display());
        }
        failing = written.is_err();
    }
}

fn push(tail: &Mutex<VecDeque<u8>>, bytes: &[u8]) {
    let mut tail = lock(tail);
    tail.extend(bytes);
    let excess = tail.len().saturating_sub(TAIL);
    tail.drain(..excess);
}

fn lock(tail: &Mutex<VecDeque<u8>>) -> MutexGuard<'_, VecDeque<u8>> {
    // Bytes are bytes, also after a panic of a holder.
    tail.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl ConsoleTail {
    /// Waits until all that the hypervisor wrote is here, once it has ended.
    pub async fn complete(&mut self) {
        let patience = tokio::time::timeout(COMPLETE_PATIENCE, &mut self.thread).await;
        // The channel carries nothing: it ends, or somebody else holds the pipe.
        if patience.is_err() {
            warn!("the console outlives the hypervisor, ignoring");
        }
    }

    /// The last lines, joined with ` | `, without control characters.
    pub fn last_lines(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join(" | ")
    }

    /// What follows `marker` on the last line that holds it.
    pub fn after(&self, marker: &str) -> Option<String> {
        self.lines()
            .iter()
            .rev()
            .find_map(|line| line.split_once(marker).map(|(_, rest)| rest.to_owned()))
    }

    fn lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = lock(&self.bytes).iter().copied().collect();
        readable_lines(&bytes)
    }
}

/// The lines of a console that say something, without control characters.
pub fn readable_lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes)
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
        .filter(|line| !line.trim().is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[tokio::test]
    async fn what_is_written_arrives_and_the_tail_is_bounded_and_harmless() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/console.log");
        let (writer, mut tail) = keep(path.clone()).unwrap();
        let mut console = File::from(writer);
        console.write_all(&vec![b'x'; 3 * TAIL]).unwrap();
        console
            .write_all(b"\nfirst\r\n\x1b[31mharness: boot failed: no disk\r\n")
            .unwrap();
        drop(console);
        tail.complete().await;
        assert!(
            tail.last_lines()
                .ends_with("first | [31mharness: boot failed: no disk")
        );
        assert_eq!(tail.after("boot failed: ").unwrap(), "no disk");
        assert!(lock(&tail.bytes).len() <= TAIL);
        assert!(std::fs::read(path).unwrap().starts_with(&[b'x'; 3 * TAIL]));
    }
}
