//! The control stream of an exec session: newline-delimited JSON, resizes and
//! signals from the client, events to it.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use aegis_core::control::{ExecEvent, ExecInput};
use aegis_link::Handle;
use aegis_link::message::SessionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tracing::warn;

use crate::guest;

/// The longest line of a client in bytes; the longest honest one has about 50.
const MAX_LINE: usize = 4096;

/// Resizes and signals that may wait for the guest; more are lost, as signals are.
const MAX_WAITING: usize = 32;

/// How long a client may leave an event unread.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Both directions of a control stream.
///
/// # Errors
/// When the socket cannot be watched.
pub fn split(socket: StdUnixStream) -> io::Result<(ControlReader, ControlWriter)> {
    socket.set_nonblocking(true)?;
    let (reader, writer) = UnixStream::from_std(socket)?.into_split();
    let reader = ControlReader {
        socket: reader,
        buffer: Vec::new(),
    };
    Ok((reader, ControlWriter { socket: writer }))
}

/// What the client sends.
#[derive(Debug)]
pub struct ControlReader {
    socket: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl ControlReader {
    /// The next request; `None` when the client is gone or sends something that
    /// is none, which is treated alike. Loses nothing when it is dropped.
    async fn next(&mut self) -> Option<ExecInput> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return serde_json::from_slice(&line).ok();
            }
            self.fill().await?;
        }
    }

    /// Resolves when the client is gone; requests are kept.
    pub async fn closed(&mut self) {
        while self.fill().await.is_some() {}
    }

    async fn fill(&mut self) -> Option<()> {
        if self.buffer.len() >= MAX_LINE * MAX_WAITING {
            return None;
        }
        let read = self.socket.read_buf(&mut self.buffer).await;
        (read.ok()? > 0).then_some(())
    }
}

/// What the client is told.
#[derive(Debug)]
pub struct ControlWriter {
    socket: OwnedWriteHalf,
}

impl ControlWriter {
    /// Tells the client. One that is gone or does not read misses it.
    pub async fn send(&mut self, event: &ExecEvent) {
        let mut line = match serde_json::to_vec(event) {
            Ok(line) => line,
            Err(error) => {
                warn!("an exec event cannot be written as JSON: {error}, ignoring");
                return;
            }
        };
        line.push(b'\n');
        let sent = tokio::time::timeout(WRITE_PATIENCE, self.socket.write_all(&line)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!("the client of an exec session does not listen, ignoring");
        }
    }
}

/// Carries out what the client asks until it is gone.
pub async fn obey(reader: &mut ControlReader, link: &Handle, session: SessionId) {
    let (queue, mut requests) = mpsc::channel(MAX_WAITING);
    // The guest may take its time or be paused; the client's end must be seen
    // nevertheless. So reading and asking are two loops.
    let reading = async move {
        while let Some(input) = reader.next().await {
            if queue.try_send(input).is_err() {
                warn!("the guest is slow to take signals; one is lost");
            }
        }
    };
    let asking = async {
        while let Some(input) = requests.recv().await {
            let done = match input {
                ExecInput::Signal(signal) => link.signal(session, signal).await,
                ExecInput::Resize(size) => link.resize(session, guest::tty_size(size)).await,
            };
            if let Err(error) = done {
                tracing::debug!("the guest refused a request of a session: {error}, ignoring");
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = reading => {}
        () = asking => {}
    }
}
