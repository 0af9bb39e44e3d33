//! The log of the instance's command: a bounded, rotated file of JSON lines, the
//! source of `aegisctl logs`; every line goes to our own log (the journal) too.
//!
//! ```text
//!  guest ──stream──► task per boot ──bounded queue──► thread ──► command.log
//!                                                          └───► journal
//! ```
//!
//! Whatever is slow (a disk, the journal) makes the queue full, then the stream's
//! window, then the command's own pipe in the guest; nothing grows. Lines are
//! numbered here, over all boots, so a reader can tell where it was.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use aegis_link::LinkStream;
use aegis_link::log::{LogError, LogRecord, Output, read_record};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::rotated::RotatedFile;

/// Size of one file in bytes; two are kept.
const FILE_LIMIT: u64 = 8 << 20;

/// Records between the link and the disk; each is at most 16 KiB of text.
const QUEUE: usize = 16;

/// More than the longest record takes in JSON: 16 KiB of control characters, six
/// bytes each.
const LONGEST_RECORD: u64 = 128 * 1024;

/// Ends a file that was rotated away: readers go on in the next one.
const ROTATED: &[u8] = b"{\"rotated\":true}\n";

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct LogLine {
    seq: u64,
    /// Guest time, nanoseconds since 1970.
    time: u64,
    stream: StreamName,
    line: String,
    /// Bytes that are no UTF-8 were replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    lossy: bool,
    /// The line goes on in the next record of its stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StreamName {
    Stdout,
    Stderr,
}

/// The open log. Dropping it ends the thread after what is queued.
#[derive(Debug)]
pub struct CommandLog {
    queue: mpsc::Sender<LogRecord>,
    writer: JoinHandle<()>,
}

impl CommandLog {
    /// Opens or makes the log.
    ///
    /// # Errors
    /// What the system says about the file or the thread.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let mut file = RotatedFile::open(path, FILE_LIMIT)?;
        let next = recover(&mut file)?;
        let (queue, records) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("command-log".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || write(file, next, records))?;
        Ok(Self { queue, writer })
    }

    /// Where records go that come another way than by [`CommandLog::copy`]. To be
    /// dropped before the log is closed.
    pub fn queue(&self) -> mpsc::Sender<LogRecord> {
        self.queue.clone()
    }

    /// Copies a guest's log stream until it ends. A guest that breaks the format
    /// loses its log, nothing else.
    pub fn copy(&self, mut stream: LinkStream) -> impl Future<Output = ()> + Send + use<> {
        let queue = self.queue.clone();
        async move {
            loop {
                match read_record(&mut stream).await {
                    Ok(Some(record)) => {
                        if queue.send(record).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    // A guest that ends does so without closing its streams.
                    Err(LogError::Read(_)) => return,
                    Err(error @ LogError::Malformed) => {
                        warn!("the log of the command ends early: {error}, ignoring");
                        return;
                    }
                }
            }
        }
    }

    /// Waits until all that was queued is in the file. Blocks; all copies must
    /// have ended.
    pub fn close(self) {
        drop(self.queue);
        if self.writer.join().is_err() {
            warn!("the log writer failed, ignoring");
        }
    }
}

fn write(mut file: RotatedFile, mut next: u64, mut records: mpsc::Receiver<LogRecord>) {
    let mut failing = false;
    while let Some(record) = records.blocking_recv() {
        let line = LogLine::new(next, &record);
        next += 1;
        match record.output {
            Output::Stdout => info!(target: "command", stream = "stdout", "{}", line.line),
            Output::Stderr => info!(target: "command", stream = "stderr", "{}", line.line),
        }
        let written = append(&mut file, &line);
        if let Err(error) = &written
            && !failing
        {
            warn!(
                "cannot write {}: {error}; lines are lost",
                file.path().display()
            );
        }
        failing = written.is_err();
    }
}

fn append(file: &mut RotatedFile, line: &LogLine) -> io::Result<()> {
    let mut json = serde_json::to_vec(line)?;
    json.push(b'\n');
    if file.is_full_for(json.len()) {
        file.append(ROTATED)?;
        file.rotate()?;
    }
    file.append(&json)
}

/// Takes back a line that a crash cut off and finds the next number.
fn recover(file: &mut RotatedFile) -> io::Result<u64> {
    let (length, tail) = read_tail(file.path())?;
    let complete = tail
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    if complete < tail.len() {
        file.truncate(length - (tail.len() - complete) as u64)?;
    }
    let last = |bytes: &[u8]| {
        bytes
            .rsplit(|byte| *byte == b'\n')
            .find_map(|line| serde_json::from_slice::<LogLine>(line).ok())
            .map(|line| line.seq.saturating_add(1))
    };
    if let Some(next) = last(&tail[..complete]) {
        return Ok(next);
    }
    let before = match read_tail(&crate::rotated::previous(file.path())) {
        Ok((_, tail)) => tail,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(last(&before).unwrap_or(0))
}

/// The length of a file and its end, at least one whole record of it.
fn read_tail(path: &Path) -> io::Result<(u64, Vec<u8>)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(2 * LONGEST_RECORD)))?;
    let mut tail = Vec::new();
    file.take(2 * LONGEST_RECORD).read_to_end(&mut tail)?;
    Ok((length, tail))
}

impl LogLine {
    fn new(seq: u64, record: &LogRecord) -> Self {
        let line = String::from_utf8_lossy(&record.line);
        Self {
            seq,
            time: record.time_ns,
            stream: match record.output {
                Output::Stdout => StreamName::Stdout,
                Output::Stderr => StreamName::Stderr,
            },
            lossy: matches!(line, std::borrow::Cow::Owned(_)),
            line: line.into_owned(),
            partial: record.partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn record(line: &[u8]) -> LogRecord {
        LogRecord {
            sequence: 0,
            time_ns: 5,
            output: Output::Stderr,
            partial: false,
            line: line.to_vec(),
        }
    }

    fn log(path: &Path, lines: &[&[u8]]) {
        let log = CommandLog::open(path.to_owned()).unwrap();
        for line in lines {
            log.queue.blocking_send(record(line)).unwrap();
        }
        log.close();
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_a_cut_line_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/command.log");
        log(&path, &[b"one", b"t\xffwo"]);
        let whole = fs::read_to_string(&path).unwrap();
        assert_eq!(
            whole,
            "{\"seq\":0,\"time\":5,\"stream\":\"stderr\",\"line\":\"one\"}\n\
             {\"seq\":1,\"time\":5,\"stream\":\"stderr\",\"line\":\"t\u{fffd}wo\",\"lossy\":true}\n"
        );
        fs::write(&path, format!("{whole}{{\"seq\":2,\"ti")).unwrap();
        log(&path, &[b"three"]);
        let lines = fs::read_to_string(&path).unwrap();
        assert!(lines.starts_with(&whole));
        assert!(lines[whole.len()..].starts_with("{\"seq\":2,"));
        assert_eq!(lines.lines().count(), 3);
    }

    #[test]
    fn a_rotated_file_says_so_and_numbers_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("command.log");
        let mut file = RotatedFile::open(path.clone(), 100).unwrap();
        for seq in 0..3 {
            append(&mut file, &LogLine::new(seq, &record(b"a line"))).unwrap();
        }
        drop(file);
        let before = fs::read_to_string(crate::rotated::previous(&path)).unwrap();
        assert!(before.ends_with("{\"rotated\":true}\n"));
        fs::write(&path, b"").unwrap();
        let mut file = RotatedFile::open(path, 100).unwrap();
        let next = recover(&mut file).unwrap();
        assert!(next == 1 || next == 2, "{next}");
    }
}
