//! Log records: the output of the instance command on a byte stream of its own.
//!
//! The guest opens the stream and names it in [`crate::message::Event::Log`].
//! Flow control of the stream is what bounds the guest's memory: a host that
//! does not read makes the command block on its pipe.
//!
//! One record, all numbers little-endian:
//!
//! ```text
//!   0        8        16       17      18       20       24
//!   │sequence│ time_ns│ stream │ flags │ zero   │ length │ line ...
//! ```

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest line in one record in bytes. A longer line is split; all parts but
/// the last are marked partial.
pub const MAX_LINE: usize = 16 * 1024;

const HEADER: usize = 24;
const FLAG_PARTIAL: u8 = 1;

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of the command's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Grows by one per record from 0, over both outputs.
    pub sequence: u64,
    /// Guest time, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Where it was written.
    pub output: Output,
    /// The line goes on in the next record of the same output.
    pub partial: bool,
    /// The bytes without the newline, at most [`MAX_LINE`]; any bytes.
    pub line: Vec<u8>,
}

/// Why a log stream could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The stream failed or ended within a record.
    #[error("Cannot read a log record from the guest")]
    Read(#[source] io::Error),
    /// The bytes are no record.
    #[error("The guest sent a malformed log record")]
    Malformed,
}

/// Reads the next record; `None` at the orderly end of the stream.
///
/// # Errors
/// [`LogError`]; the stream is of no use afterwards.
pub async fn read_record(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<LogRecord>, LogError> {
    let mut header = [0u8; HEADER];
    let first = stream
        .read(&mut header[..1])
        .await
        .map_err(LogError::Read)?;
    if first == 0 {
        return Ok(None);
    }
    stream
        .read_exact(&mut header[1..])
        .await
        .map_err(LogError::Read)?;
    let [
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        s6,
        s7,
        t0,
        t1,
        t2,
        t3,
        t4,
        t5,
        t6,
        t7,
        rest @ ..,
    ] = header;
    let [output, flags, 0, 0, l0, l1, l2, l3] = rest else {
        return Err(LogError::Malformed);
    };
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3]))
        .ok()
        .filter(|length| *length <= MAX_LINE)
        .ok_or(LogError::Malformed)?;
    let output = match output {
        1 => Output::Stdout,
        2 => Output::Stderr,
        _ => return Err(LogError::Malformed),
    };
    let mut line = vec![0; length];
    stream.read_exact(&mut line).await.map_err(LogError::Read)?;
    Ok(Some(LogRecord {
        sequence: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        time_ns: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        output,
        partial: flags & FLAG_PARTIAL != 0,
        line,
    }))
}

/// Writes one record. A line longer than [`MAX_LINE`] is an error.
///
/// # Errors
/// What the stream says, or `InvalidInput` for a line that is too long.
pub async fn write_record(
    stream: &mut (impl AsyncWrite + Unpin),
    record: &LogRecord,
) -> io::Result<()> {
    let length = u32::try_from(record.line.len())
        .ok()
        .filter(|_| record.line.len() <= MAX_LINE)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(HEADER + record.line.len());
    bytes.extend_from_slice(&record.sequence.to_le_bytes());
    bytes.extend_from_slice(&record.time_ns.to_le_bytes());
    bytes.push(match record.output {
        Output::Stdout => 1,
        Output::Stderr => 2,
    });
    bytes.push(if record.partial { FLAG_PARTIAL } else { 0 });
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&record.line);
    stream.write_all(&bytes).await
}

/// Cuts bytes at newlines, and lines that are too long into parts.
#[derive(Debug, Clone, Default)]
pub struct Splitter {
    line: Vec<u8>,
}

impl Splitter {
    /// Takes bytes from the front of `rest` up to the end of a line or part;
    /// true with a part that goes on.
    pub fn next_line(&mut self, rest: &mut &[u8]) -> Option<(Vec<u8>, bool)> {
        let newline = rest.iter().position(|byte| *byte == b'\n');
        let length = newline.unwrap_or(rest.len());
        let room = MAX_LINE - self.line.len();
        if length > room {
            self.line.extend_from_slice(&rest[..room]);
            *rest = &rest[room..];
            return Some((std::mem::take(&mut self.line), true));
        }
        self.line.extend_from_slice(&rest[..length]);
        *rest = &rest[length..];
        newline?;
        *rest = &rest[1..];
        Some((std::mem::take(&mut self.line), false))
    }

    /// One that goes on after `begun`, the first part of a line, cut to [`MAX_LINE`].
    pub fn resume(mut begun: Vec<u8>) -> Splitter {
        begun.truncate(MAX_LINE);
        Splitter { line: begun }
    }

    /// What is left without a newline.
    pub fn finish(self) -> Vec<u8> {
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: Vec<u8>) -> LogRecord {
        LogRecord {
            sequence: 7,
            time_ns: 1 << 60,
            output: Output::Stderr,
            partial: true,
            line,
        }
    }

    #[tokio::test]
    async fn a_record_survives_the_wire() {
        let mut wire = Vec::new();
        let sent = record(b"caf\xff\0".to_vec());
        write_record(&mut wire, &sent).await.unwrap();
        let mut bytes = wire.as_slice();
        assert_eq!(read_record(&mut bytes).await.unwrap(), Some(sent));
        assert_eq!(read_record(&mut bytes).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_oversized_or_cut_record_is_an_error() {
        let mut wire = Vec::new();
        assert!(
            write_record(&mut wire, &record(vec![0; MAX_LINE + 1]))
                .await
                .is_err()
        );
        write_record(&mut wire, &record(vec![0; 10])).await.unwrap();
        assert!(matches!(
            read_record(&mut &wire[..30]).await,
            Err(LogError::Read(_))
        ));
        wire[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(
            read_record(&mut wire.as_slice()).await,
            Err(LogError::Malformed)
        ));
    }

    fn split(chunks: &[&[u8]]) -> (Vec<(usize, bool)>, usize) {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some((line, partial)) = splitter.next_line(&mut rest) {
                lines.push((line.len(), partial));
            }
        }
        (lines, splitter.finish().len())
    }

    #[test]
    fn lines_are_cut_at_newlines_wherever_chunks_end() {
        assert_eq!(
            split(&[b"ab\n\ncd", b"e", b"\nf"]),
            (vec![(2, false), (0, false), (3, false)], 1)
        );
    }

    #[test]
    fn a_line_of_exactly_the_longest_length_is_whole() {
        let longest = [b'x'; MAX_LINE];
        assert_eq!(split(&[&longest, b"\n"]), (vec![(MAX_LINE, false)], 0));
        assert_eq!(
            split(&[&longest, b"y\n"]),
            (vec![(MAX_LINE, true), (1, false)], 0)
        );
        let long = vec![b'x'; MAX_LINE * 2 + 5];
        assert_eq!(
            split(&[&long]),
            (vec![(MAX_LINE, true), (MAX_LINE, true)], 5)
        );
    }
}
