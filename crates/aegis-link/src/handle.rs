//! What a program does with a link: call, open streams, end it.

use crate::endpoint::{LinkError, Shared};
use crate::message::*;
use crate::stream::LinkStream;
use std::sync::Arc;

/// One end of a link. Cheap to clone; all clones are the same link.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) _shared: Arc<Shared>,
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The other side answered that it failed.
    #[error("The guest refused the call")]
    Fault(#[source] Fault),
    /// The link ended before a reply came.
    #[error("The link to the guest ended")]
    Link(#[source] LinkError),
    /// The reply is not one to this call.
    #[error("The guest sent a reply that does not fit the call")]
    UnexpectedReply,
    /// The message is longer than [`MAX_MESSAGE`].
    #[error("The request is {length} bytes long, more than the {MAX_MESSAGE} a message may have")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// Too many streams are open.
    #[error("Too many streams are open on the link")]
    TooManyStreams,
}

/// A running exec session.
#[derive(Debug)]
pub struct ExecSession {
    /// For [`Handle::signal`] and [`Handle::resize`].
    pub session: SessionId,
    /// Process id in the guest.
    pub pid: u32,
    /// Write: stdin (shutdown closes it). Read: stdout, or the terminal's output.
    pub stdio: LinkStream,
    /// Read: stderr; none with a terminal.
    pub stderr: Option<LinkStream>,
}

impl Handle {
    /// Boots.
    pub async fn boot(&self, boot: Boot) -> Result<Booted, CallError> {
        let _ = boot;
        unimplemented!()
    }
    /// Starts a program.
    pub async fn exec(
        &self,
        program: Program,
        tty: Option<TtySize>,
    ) -> Result<ExecSession, CallError> {
        let _ = (program, tty);
        unimplemented!()
    }
    /// Waits for the end of a session (its output streams have ended in the guest by then; drain them to EOF too).
    pub async fn wait(&self, session: SessionId) -> Result<ProcessEnd, CallError> {
        let _ = session;
        unimplemented!()
    }
    /// Signals the process group.
    pub async fn signal(&self, session: SessionId, signal: i32) -> Result<(), CallError> {
        let _ = (session, signal);
        unimplemented!()
    }
    /// Resizes the terminal.
    pub async fn resize(&self, session: SessionId, size: TtySize) -> Result<(), CallError> {
        let _ = (session, size);
        unimplemented!()
    }
    /// Connects to a port on the guest's loopback.
    pub async fn dial(&self, port: u16) -> Result<LinkStream, CallError> {
        let _ = port;
        unimplemented!()
    }
    /// Sets the clock.
    pub async fn set_time(&self, time_ns: u64) -> Result<(), CallError> {
        let _ = time_ns;
        unimplemented!()
    }
    /// Figures.
    pub async fn stats(&self) -> Result<Stats, CallError> {
        unimplemented!()
    }
    /// Is anyone there.
    pub async fn ping(&self) -> Result<(), CallError> {
        unimplemented!()
    }
    /// Orderly stop.
    pub async fn stop(&self, grace_ms: u32) -> Result<(), CallError> {
        let _ = grace_ms;
        unimplemented!()
    }
    /// Any call, untyped.
    pub async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let _ = call;
        unimplemented!()
    }
    /// Sends an event (guest).
    pub fn send_event(&self, event: Event) {
        let _ = event;
        unimplemented!()
    }
    /// Opens a byte stream.
    pub fn open(&self) -> Result<LinkStream, CallError> {
        unimplemented!()
    }
    /// Both sides stop sending at a frame boundary (before a save).
    pub async fn quiesce(&self) -> Result<(), CallError> {
        unimplemented!()
    }
    /// Goes on after a quiesce without a save.
    pub fn unquiesce(&self) {
        unimplemented!()
    }
    /// The epoch of the link, to be kept with a save.
    pub fn epoch(&self) -> u32 {
        unimplemented!()
    }
    /// Ends the link.
    pub fn close(&self) {
        unimplemented!()
    }
    /// Resolves with the reason when the link has ended.
    pub async fn closed(&self) -> LinkError {
        unimplemented!()
    }
}
