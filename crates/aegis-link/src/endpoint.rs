//! The task behind a link.

use crate::handle::Handle;
use crate::message::*;
use crate::stream::LinkStream;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// Which side of the link this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// aegis-vmm.
    Host,
    /// aegis-harness.
    Guest,
}

/// Why a link ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The other side closed it.
    #[error("The other side closed the link")]
    Eof,
    /// [`Handle::close`] was called, or [`Incoming`] was dropped.
    #[error("The link was closed")]
    Closed,
    /// The byte channel failed.
    #[error("Cannot read or write the link")]
    Io(#[source] Arc<io::Error>),
    /// The other side broke the protocol.
    #[error("The other side broke the link's protocol")]
    Violation,
}

#[derive(Debug)]
pub(crate) struct Shared;

/// What the other side sends, in order.
#[derive(Debug)]
pub struct Incoming;

/// One thing the other side sent.
#[derive(Debug)]
pub enum Received {
    /// An event, with the stream it names.
    Event {
        event: Event,
        stream: Option<LinkStream>,
    },
    /// A call; answer through its responder.
    Call {
        call: Call,
        streams: Vec<LinkStream>,
        responder: Responder,
    },
}

/// Answers one call; dropping it answers with a fault.
#[derive(Debug)]
pub struct Responder;
impl Responder {
    /// Sends the reply.
    pub fn reply(self, outcome: Result<Reply, Fault>) {
        let _ = outcome;
        unimplemented!()
    }
}

impl Incoming {
    /// The next event or call. Keep taking: events wait in a bounded queue.
    ///
    /// # Errors
    /// Why the link ended; the same from then on.
    pub async fn next(&mut self) -> Result<Received, LinkError> {
        unimplemented!()
    }
}

/// Starts a link on a fresh byte channel; spawns a task on the current runtime.
pub fn start(io: impl AsyncRead + AsyncWrite + Send + 'static, role: Role) -> (Handle, Incoming) {
    let _ = (io, role);
    unimplemented!()
}
/// Starts the host's end on the channel of a restored guest whose link was at `saved_epoch`.
pub fn start_restored(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    saved_epoch: u32,
) -> (Handle, Incoming) {
    let _ = (io, saved_epoch);
    unimplemented!()
}
