//! `GET /v1/instances/NAME/logs`: the output of the instance's command, as lines.
//!
//! aegis-vmm writes the log and numbers its lines; `after_seq` goes on after one of
//! them, so that a client whose aegisd ended misses none.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aegis_os::watch::{EventStream, Inotify, WatchMask};
use futures_util::StreamExt;
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{ApiError, Body, Lines, lines};
use super::http::Asked;
use super::shape::time;
use crate::instance::{Instance, InstanceError, blocking};

/// Most lines that `tail` gives: they are held in memory.
const MAX_TAIL: usize = 10_000;
/// Lines read from the files at a time.
const BATCH: usize = 256;
/// Room for the events that come while one is handled; they only say "changed".
const EVENTS: usize = 4096;

/// A line as aegis-vmm writes it.
#[derive(Clone, Debug, Deserialize)]
struct LogLine {
    seq: u64,
    /// Nanoseconds since 1970.
    time: u64,
    stream: String,
    line: String,
    #[serde(default)]
    partial: bool,
}

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    /// Nanoseconds since 1970.
    since: u64,
    after: Option<u64>,
}

impl Wanted {
    fn takes(self, line: &LogLine) -> bool {
        line.time >= self.since && self.after.is_none_or(|after| line.seq > after)
    }
}

pub(super) async fn read(asked: &Asked) -> Result<Response<Body>, ApiError> {
    let number = |name: &str| {
        let text = asked.query.get(name);
        let number = text.map(|text| text.parse::<u64>());
        number
            .transpose()
            .map_err(|_| bad(format!("'{name}' is not a number")))
    };
    let since = asked
        .query
        .get("since")
        .map(|text| text.parse::<Timestamp>());
    let since = since
        .transpose()
        .map_err(|_| bad("'since' is not a time as in RFC 3339"))?;
    let wanted = Wanted {
        since: since
            .map_or(0, |since| since.as_nanosecond().max(0))
            .try_into()
            .unwrap_or(u64::MAX),
        after: number("after_seq")?,
    };
    let tail = number("tail")?;
    let follow = asked.query.get("follow");
    let follow = follow.is_some_and(|follow| matches!(follow.as_str(), "1" | "true"));
    // Output of exec sessions goes to their callers and is kept by nobody.
    let nothing = asked.query.contains_key("exec_id");
    let shared = asked.engine.shared();
    let folder = shared
        .host
        .layout
        .instance(asked.instance.handle())
        .log_dir();
    // Before the first look, so that no line comes unseen between the two.
    let changes = match follow && !nothing {
        true => Some(watch(&folder).map_err(|error| ApiError::of_io("follow the log", &error))?),
        false => None,
    };
    let mut reader = Reader {
        instance: asked.instance.clone(),
        offsets: BTreeMap::new(),
    };
    let first = match tail {
        _ if nothing => VecDeque::new(),
        Some(tail) => {
            let tail = usize::try_from(tail).unwrap_or(MAX_TAIL).min(MAX_TAIL);
            let last = reader.last(tail, wanted).await;
            last.map_err(|error| ApiError::of_instance(&error))?
        }
        None => VecDeque::new(),
    };
    let (lines, response) = lines();
    tokio::spawn(async move {
        for line in first {
            if !send(&lines, &reader.instance, &line).await {
                return;
            }
        }
        if !nothing && let Err(error) = copy(reader, wanted, changes, &lines).await {
            tracing::warn!(
                "cannot read a log for a daemon: {}, ignoring",
                error.fault()
            );
        }
    });
    Ok(response)
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, message)
}

/// Sends what is there, and what comes if changes are followed.
async fn copy(
    mut reader: Reader,
    wanted: Wanted,
    mut changes: Option<EventStream<Vec<u8>>>,
    lines: &Lines,
) -> Result<(), InstanceError> {
    loop {
        loop {
            let batch = reader.next().await?;
            if batch.is_empty() {
                break;
            }
            for line in batch.into_iter().filter(|line| wanted.takes(line)) {
                if !send(lines, &reader.instance, &line).await {
                    return Ok(());
                }
            }
        }
        let Some(changes) = &mut changes else {
            return Ok(());
        };
        tokio::select! {
            event = changes.next() => if !matches!(event, Some(Ok(_))) {
                return Ok(());
            },
            () = lines.closed() => return Ok(()),
        }
    }
}

async fn send(lines: &Lines, instance: &Instance, line: &LogLine) -> bool {
    let mut shown: Value = json!({
        "ts": time(line.time / 1000),
        "stream": line.stream,
        "line": line.line,
        "source": "server",
        "instance_id": instance.handle().as_str(),
        "seq": line.seq,
    });
    if line.partial {
        shown["partial"] = json!(true);
    }
    lines.send(&shown).await
}

fn watch(folder: &Path) -> io::Result<EventStream<Vec<u8>>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO;
    inotify.watches().add(folder, mask)?;
    inotify.into_event_stream(vec![0; EVENTS])
}

/// Reads the log's files, which are rotated while they are read.
struct Reader {
    instance: Instance,
    /// How far each file was read, by device and inode.
    offsets: BTreeMap<(u64, u64), u64>,
}

impl Reader {
    /// The next lines; none if there are no more now.
    async fn next(&mut self) -> Result<Vec<LogLine>, InstanceError> {
        let files = self.instance.open_logs().await?;
        let mut offsets = std::mem::take(&mut self.offsets);
        let (read, offsets) = blocking(move || {
            let read = read_on(files.into_iter().map(File::from), &mut offsets);
            (read, offsets)
        })
        .await;
        self.offsets = offsets;
        // A file that cannot be read on is one that is not there any more.
        Ok(read.unwrap_or_default())
    }

    /// The last lines of all that is there.
    async fn last(
        &mut self,
        count: usize,
        wanted: Wanted,
    ) -> Result<VecDeque<LogLine>, InstanceError> {
        let mut last = VecDeque::new();
        loop {
            let batch = self.next().await?;
            if batch.is_empty() {
                return Ok(last);
            }
            last.extend(batch.into_iter().filter(|line| wanted.takes(line)));
            last.drain(..last.len().saturating_sub(count));
        }
    }
}

/// Reads whole lines of files from where they were read to, the oldest file first.
fn read_on(
    files: impl Iterator<Item = File>,
    offsets: &mut BTreeMap<(u64, u64), u64>,
) -> io::Result<Vec<LogLine>> {
    let mut lines = Vec::new();
    let mut seen = BTreeMap::new();
    for file in files {
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        let mut offset = offsets.get(&identity).copied().unwrap_or(0);
        let mut reader = BufReader::new(file);
        reader.seek(SeekFrom::Start(offset))?;
        let mut line = Vec::new();
        while lines.len() < BATCH {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            offset += length as u64;
            // After a crash of its writer a file may end in half a line; the mark of
            // a rotation is no line either.
            lines.extend(serde_json::from_slice::<LogLine>(&line));
        }
        seen.insert(identity, offset);
    }
    *offsets = seen;
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::fs::{OpenOptions, rename};
    use std::io::Write;

    use super::*;

    fn write(path: &Path, seqs: std::ops::Range<u64>) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        for seq in seqs {
            writeln!(
                file,
                r#"{{"seq":{seq},"time":{seq},"stream":"stdout","line":"l{seq}"}}"#
            )
            .unwrap();
        }
    }

    #[test]
    fn lines_are_read_once_through_rotations_and_never_by_halves() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("log.1"), folder.path().join("log"));
        let mut offsets = BTreeMap::new();
        let mut read = || {
            let files = [&old, &new]
                .into_iter()
                .filter_map(|path| File::open(path).ok());
            let lines = read_on(files, &mut offsets).unwrap();
            lines.iter().map(|line| line.seq).collect::<Vec<_>>()
        };
        write(&new, 0..2);
        assert_eq!(read(), [0, 1]);
        let mut file = OpenOptions::new().append(true).open(&new).unwrap();
        file.write_all(br#"{"seq":2,"time":2,"#).unwrap();
        assert!(read().is_empty());
        file.write_all(b"\"stream\":\"stderr\",\"line\":\"\"}\n{\"rotated\":true}\n")
            .unwrap();
        rename(&new, &old).unwrap();
        write(&new, 3..4);
        assert_eq!(read(), [2, 3]);
        assert!(read().is_empty());
    }
}
