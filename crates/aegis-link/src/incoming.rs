//! What the other side sends, and the answers to it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use crate::endpoint::{LinkError, Shared};
use crate::message::{Call, Event, Fault, Reply, Symbol};
use crate::stream::LinkStream;

/// One thing the other side sent.
#[derive(Debug)]
pub enum Received {
    /// Something happened.
    Event {
        /// What.
        event: Event,
        /// The stream the event names, unless it is gone already.
        stream: Option<LinkStream>,
    },
    /// A question.
    Call {
        /// What is asked.
        call: Call,
        /// The streams it names, in the order of [`Call::streams`].
        streams: Vec<LinkStream>,
        /// Where the answer goes.
        responder: Responder,
    },
    /// Guest only: the host is a new one that knows nothing of what was open.
    /// All streams and calls are gone; say hello again.
    Resynced,
}

/// A received thing and what it weighs.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) received: Received,
    /// Window bytes to give back once it is taken.
    pub(crate) charge: u32,
    pub(crate) epoch: u32,
}

/// What the other side sends, in order. Dropping it ends the link.
#[derive(Debug)]
pub struct Incoming {
    shared: Arc<Shared>,
}

impl Incoming {
    pub(crate) fn new(shared: Arc<Shared>) -> Incoming {
        Incoming { shared }
    }

    /// The next event or call. Cancel-safe. Keep taking: what waits here holds
    /// back further messages of the other side, though never replies to calls
    /// within its window.
    ///
    /// # Errors
    /// Why the link ended, once everything before that was taken.
    pub async fn next(&mut self) -> Result<Received, LinkError> {
        poll_fn(|context| {
            let mut state = self.shared.lock();
            if let Some(queued) = state.inbox.pop_front() {
                if queued.epoch == state.mux.epoch() {
                    state.mux.release(queued.charge);
                }
                drop(state);
                self.shared.wake();
                return Poll::Ready(Ok(queued.received));
            }
            if let Some(end) = &state.end {
                return Poll::Ready(Err(end.clone()));
            }
            state.inbox_waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.shared.end(LinkError::Closed);
        // What waits holds streams, whose drop takes the lock.
        let inbox = std::mem::take(&mut self.shared.lock().inbox);
        drop(inbox);
    }
}

/// Answers one call. Dropped without an answer it answers with a fault.
#[derive(Debug)]
pub struct Responder {
    shared: Arc<Shared>,
    id: u64,
    epoch: u32,
    answered: bool,
}

impl Responder {
    pub(crate) fn new(shared: Arc<Shared>, id: u64, epoch: u32) -> Responder {
        Responder {
            shared,
            id,
            epoch,
            answered: false,
        }
    }

    /// Sends the answer.
    pub fn reply(mut self, outcome: Result<Reply, Fault>) {
        self.answered = true;
        self.shared.reply(self.id, self.epoch, outcome);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            let fault = Fault::new(Symbol::Unsupported, "the call was not answered");
            self.shared.reply(self.id, self.epoch, Err(fault));
        }
    }
}
