//! A client on the command's terminal.
//!
//! It comes and goes; what it leaves behind is what it typed. One that does not
//! read keeps the command waiting for a while and is then let go, so that a
//! client that hangs cannot stop a service.

use aegis_core::control::ExecEvent;
use aegis_core::fault::{Fault, Symbol};
use aegis_link::Handle;
use aegis_link::message::SessionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::doorway::Visit;
use crate::exec::control;
use crate::exec::ends::Ends;

/// Bytes taken from a client at a time: more than a person types or pastes at once.
const BUFFER: usize = 4096;

/// What a client is sent, in order.
#[derive(Clone, Debug)]
pub(super) enum Word {
    Output(std::sync::Arc<[u8]>),
    /// The command has ended; nothing follows.
    End(ExecEvent),
}

/// Our side of a client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) ends: Ends,
    pub(super) words: mpsc::Receiver<Word>,
    /// Ends with an error when the terminal lets the client go.
    pub(super) kept: oneshot::Receiver<()>,
    /// Where what it types goes.
    pub(super) keys: mpsc::Sender<Vec<u8>>,
    /// Lasts as long as the client.
    pub(super) visit: Visit,
    pub(super) slot: OwnedSemaphorePermit,
}

impl Client {
    /// Serves it until it goes, is let go, or the command has ended.
    pub(super) async fn serve(self, link: Handle, session: SessionId) {
        let Self {
            ends,
            mut words,
            kept,
            keys,
            visit,
            slot,
        } = self;
        let Ends {
            stdin,
            mut stdout,
            stderr,
            mut reader,
            mut writer,
        } = ends;
        // A terminal has one output.
        drop(stderr);
        writer.send(&ExecEvent::Started {}).await;
        let typing = tokio::spawn(forward(stdin, keys));
        let end = tokio::select! {
            end = show(&mut words, &mut stdout) => end,
            () = let_go(kept) => Some(too_slow()),
            // It is gone, or wants to be.
            () = control::obey(&mut reader, &link, session) => None,
        };
        typing.abort();
        drop(stdout);
        if let Some(end) = end {
            writer.send(&end).await;
        }
        drop(visit);
        drop(slot);
    }

    /// Serves a client whose command could not be started.
    pub(super) async fn refuse(self, fault: Fault) {
        let mut writer = self.ends.writer;
        writer.send(&ExecEvent::Failed(fault)).await;
        drop(self.visit);
    }
}

/// Writes what there is to show; `None` when nobody reads it.
async fn show(words: &mut mpsc::Receiver<Word>, stdout: &mut pipe::Sender) -> Option<ExecEvent> {
    while let Some(word) = words.recv().await {
        match word {
            Word::Output(bytes) => stdout.write_all(&bytes).await.ok()?,
            Word::End(event) => return Some(event),
        }
    }
    Some(too_slow())
}

/// Resolves when the terminal lets the client go, which it does not at its end.
async fn let_go(kept: oneshot::Receiver<()>) {
    if kept.await.is_ok() {
        std::future::pending::<()>().await;
    }
}

fn too_slow() -> ExecEvent {
    let fault = Fault::new(
        Symbol::Busy,
        "the terminal was not read for too long, so this client was let go",
    );
    ExecEvent::Failed(fault.with_hint("the command runs on: attach again"))
}

async fn forward(mut stdin: pipe::Receiver, keys: mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = stdin.read(&mut buffer).await {
        if keys.send(buffer[..length].to_vec()).await.is_err() {
            return;
        }
    }
}
