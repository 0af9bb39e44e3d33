//! Carrying a program's output to where it goes, and knowing when it is over.
//!
//! A program may leave processes behind that keep its output open, perhaps
//! forever. Its session does not wait for those: once the program has ended,
//! everything it had written is delivered, then what comes within a short while,
//! and then the output is closed; who still writes to it gets EPIPE or SIGHUP.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::valve::{Held, Valve};

/// Bytes moved at a time. The link's own frames are smaller, the pipe larger.
pub(crate) const CHUNK: usize = 32 * 1024;

/// After the end of the program, its output is over when nothing came for so
/// long: a child that it did not wait for may be about to write its last line.
const QUIET: Duration = Duration::from_millis(100);

/// Who writes on after the end of the program is cut off after so long, but not
/// before a whole pipe was delivered, which is what the program itself may have
/// left in it (pipe(7), "Pipe capacity").
const LINGER: Duration = Duration::from_secs(2);
const PIPE_CAPACITY: usize = 64 * 1024;

/// Becomes true when the program has ended.
pub(crate) type Ended = watch::Receiver<bool>;

/// The output of a program, read until it is over.
#[derive(Debug)]
pub(crate) struct Drain<R> {
    from: R,
    ended: Ended,
    buffer: Vec<u8>,
    late: Option<Late>,
    valve: Valve,
    /// What was given last is in the hands of the caller.
    held: Option<Held>,
}

/// What still comes after the end of the program.
#[derive(Debug)]
struct Late {
    cut: Instant,
    delivered: usize,
}

impl<R: AsyncRead + Unpin> Drain<R> {
    pub(crate) fn new(from: R, ended: Ended, valve: Valve) -> Drain<R> {
        Drain {
            from,
            ended,
            buffer: vec![0; CHUNK],
            late: None,
            valve,
            held: None,
        }
    }

    /// The next bytes; `None` once the output is over. Whoever asks has handed over
    /// what came before. After the end the valve is held as long as this lives.
    pub(crate) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.held = None;
        let count = loop {
            let valve = self.valve.clone();
            valve.opened().await;
            tokio::select! {
                biased;
                () = valve.shutting() => {}
                read = self.read() => break read?,
            }
        };
        self.held = Some(self.valve.hold());
        Ok((count > 0).then(|| &self.buffer[..count]))
    }

    /// Loses nothing when it is dropped.
    async fn read(&mut self) -> io::Result<usize> {
        let early = if self.late.is_none() {
            tokio::select! {
                read = self.from.read(&mut self.buffer) => Some(read?),
                _ = self.ended.wait_for(|ended| *ended) => None,
            }
        } else {
            None
        };
        match early {
            Some(count) => Ok(count),
            None => self.read_late().await,
        }
    }

    async fn read_late(&mut self) -> io::Result<usize> {
        let late = self.late.get_or_insert_with(|| Late {
            cut: Instant::now() + LINGER,
            delivered: 0,
        });
        if late.delivered >= PIPE_CAPACITY && Instant::now() >= late.cut {
            return Ok(0);
        }
        match timeout(QUIET, self.from.read(&mut self.buffer)).await {
            Err(_) => Ok(0),
            Ok(read) => {
                let count = read?;
                late.delivered += count;
                Ok(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn all(mut drain: Drain<impl AsyncRead + Unpin>) -> usize {
        let mut count = 0;
        while let Some(bytes) = drain.next().await.unwrap() {
            count += bytes.len();
        }
        count
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_before_the_end_is_delivered_though_the_pipe_stays_open() {
        let (mut writer, reader) = tokio::io::duplex(1 << 20);
        writer.write_all(&[0; 300_000]).await.unwrap();
        let (_tell, ended) = watch::channel(true);
        assert_eq!(all(Drain::new(reader, ended, Valve::new())).await, 300_000);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_taken_while_the_valve_is_shut() {
        let (mut writer, reader) = tokio::io::duplex(1 << 10);
        let (_tell, ended) = watch::channel(false);
        let valve = Valve::new();
        let mut drain = Drain::new(reader, ended, valve.clone());
        writer.write_all(b"before").await.unwrap();
        assert_eq!(drain.next().await.unwrap(), Some(&b"before"[..]));
        assert!(!valve.is_empty());
        valve.shut();
        writer.write_all(b"after").await.unwrap();
        let taken = timeout(Duration::from_secs(60), drain.next()).await;
        assert!(taken.is_err() && valve.is_empty());
        valve.open();
        assert_eq!(drain.next().await.unwrap(), Some(&b"after"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_writes_on_is_cut_off() {
        let (mut writer, reader) = tokio::io::duplex(1 << 10);
        tokio::spawn(async move {
            while writer.write_all(&[0; 100]).await.is_ok() {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        });
        let (_tell, ended) = watch::channel(true);
        assert!(all(Drain::new(reader, ended, Valve::new())).await >= PIPE_CAPACITY);
    }
}
