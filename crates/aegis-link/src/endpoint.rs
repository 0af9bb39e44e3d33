//! The task behind a link: moves bytes between a channel and the [`Mux`], and
//! hands messages to whoever waits for them.
//!
//! ```text
//!   Handle ──┐                                  ┌── channel
//!   Incoming ├── Shared { Mutex<State> } ── run ┤   (socket, virtio port)
//!   LinkStream┘        the Mux, who waits       └──
//! ```
//!
//! Every byte and every waiter lies in `State` under one lock, held for short
//! sections without await. The task ends with the link: when the channel ends,
//! when the peer breaks the protocol, on [`Handle::close`], or when
//! [`Incoming`] is dropped.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot, watch};

use crate::handle::Handle;
use crate::incoming::{Incoming, Queued, Received, Responder};
use crate::message::{Fault, Message, Reply, StreamId, Symbol};
use crate::mux::{Mux, MuxEvent, Role, Violation};
use crate::stream::LinkStream;

/// Bytes read from or written to the channel at a time.
const CHUNK: usize = 64 * 1024;

/// Calls of the peer that may be open or have their reply unsent.
const MAX_PEER_CALLS: usize = 4096;
/// The same for a guest, which asks little.
const MAX_GUEST_CALLS: usize = 64;

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
    #[error("Cannot read or write the channel of the link")]
    Io(#[source] Arc<io::Error>),
    /// The other side broke the protocol.
    #[error("The other side broke the protocol of the link")]
    Violation(#[source] Violation),
    /// A message is no JSON of a known form.
    #[error("The other side sent a message that cannot be read")]
    Message(#[source] Arc<serde_json::Error>),
    /// The other side calls without end and takes no reply.
    #[error("The other side has more than {limit} calls open")]
    TooManyCalls {
        /// How many it may have.
        limit: usize,
    },
}

/// Starts one side of a link on a fresh channel; the task runs on the current
/// tokio runtime. The channel must not hold back what is written to it.
pub fn start<C>(channel: C, role: Role) -> (Handle, Incoming)
where
    C: AsyncRead + AsyncWrite + Send + 'static,
{
    start_with(channel, Mux::new(role), role)
}

/// Starts the host's side on the channel of a restored guest, whose link was in
/// `saved_epoch` when it was saved. What the guest had open is gone; it says
/// hello again.
pub fn start_restored<C>(channel: C, saved_epoch: u32) -> (Handle, Incoming)
where
    C: AsyncRead + AsyncWrite + Send + 'static,
{
    start_with(channel, Mux::restored(saved_epoch), Role::Host)
}

fn start_with<C>(channel: C, mux: Mux, role: Role) -> (Handle, Incoming)
where
    C: AsyncRead + AsyncWrite + Send + 'static,
{
    let shared = Arc::new(Shared {
        role,
        state: Mutex::new(State {
            mux,
            readers: HashMap::new(),
            writers: HashMap::new(),
            watchers: HashMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            next_session: 0,
            peer_calls: 0,
            inbox: VecDeque::new(),
            inbox_waker: None,
            quiescing: Vec::new(),
            flushing: Vec::new(),
            settling: Vec::new(),
            end: None,
        }),
        wake: Notify::new(),
        ended: watch::Sender::new(None),
    });
    let (reader, writer) = tokio::io::split(channel);
    let task = Arc::clone(&shared);
    tokio::spawn(async move {
        let end = run(&task, reader, writer).await;
        task.end(end);
    });
    (Handle::new(Arc::clone(&shared)), Incoming::new(shared))
}

/// What all parts of one side share.
#[derive(Debug)]
pub(crate) struct Shared {
    role: Role,
    state: Mutex<State>,
    /// The task has something to send, or to end.
    wake: Notify,
    ended: watch::Sender<Option<LinkError>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) mux: Mux,
    pub(crate) readers: HashMap<StreamId, Waker>,
    pub(crate) writers: HashMap<StreamId, Waker>,
    /// Who waits for the reset of a stream.
    pub(crate) watchers: HashMap<StreamId, Waker>,
    /// Our calls without a reply.
    pub(crate) calls: HashMap<u64, oneshot::Sender<Result<Reply, Fault>>>,
    pub(crate) next_call: u64,
    pub(crate) next_session: u64,
    /// The peer's calls without an answer of ours.
    pub(crate) peer_calls: usize,
    pub(crate) inbox: VecDeque<Queued>,
    pub(crate) inbox_waker: Option<Waker>,
    pub(crate) quiescing: Vec<oneshot::Sender<()>>,
    /// Who waits until everything is on the channel.
    pub(crate) flushing: Vec<oneshot::Sender<()>>,
    /// Who waits until nothing waits any more.
    pub(crate) settling: Vec<oneshot::Sender<()>>,
    pub(crate) end: Option<LinkError>,
}

impl Shared {
    /// The state. A panic elsewhere cannot leave it half-changed in a way that
    /// matters more than ending the link.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the task that there is something to send.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) fn ended(&self) -> watch::Receiver<Option<LinkError>> {
        self.ended.subscribe()
    }

    /// Ends the link for everyone who waits on it; the first reason stays.
    pub(crate) fn end(&self, reason: LinkError) {
        let mut state = self.lock();
        if state.end.is_some() {
            return;
        }
        state.end = Some(reason.clone());
        state.calls.clear();
        state.quiescing.clear();
        state.flushing.clear();
        state.settling.clear();
        let wakers = state.take_wakers();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        self.ended.send_replace(Some(reason));
        self.wake();
    }

    /// Queues a reply, unless the call is of an epoch that is over.
    pub(crate) fn reply(&self, id: u64, epoch: u32, outcome: Result<Reply, Fault>) {
        let mut state = self.lock();
        if state.end.is_some() || state.mux.epoch() != epoch {
            return;
        }
        state.queue_reply(id, outcome);
        drop(state);
        self.wake();
    }

    /// Acts on what the mux made of received or sent bytes.
    fn dispatch(self: &Arc<Self>) -> Result<(), LinkError> {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        if state.end.is_some() {
            return Ok(());
        }
        while let Some(event) = state.mux.poll_event() {
            match event {
                MuxEvent::Readable(id) => {
                    wakers.extend(state.readers.remove(&id));
                    wakers.extend(state.watchers.remove(&id));
                }
                MuxEvent::Writable(id) => wakers.extend(state.writers.remove(&id)),
                MuxEvent::Quiesced => {
                    for waiting in state.quiescing.drain(..) {
                        // Where the receiver is gone nobody waits any more.
                        waiting.send(()).ok();
                    }
                }
                MuxEvent::Resynced => {
                    state.peer_calls = 0;
                    // The host's calls were made in this epoch, which is its first.
                    if self.role == Role::Guest {
                        state.calls.clear();
                        let epoch = state.mux.epoch();
                        state.inbox.push_back(Queued {
                            received: Received::Resynced,
                            charge: 0,
                            epoch,
                        });
                    }
                    wakers.extend(state.take_wakers());
                }
                MuxEvent::Message { bytes, charge } => {
                    let message = serde_json::from_slice(&bytes)
                        .map_err(|source| LinkError::Message(Arc::new(source)))?;
                    self.message(&mut state, message, charge)?;
                    wakers.extend(state.inbox_waker.take());
                }
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn message(
        self: &Arc<Self>,
        state: &mut State,
        message: Message,
        charge: u32,
    ) -> Result<(), LinkError> {
        let epoch = state.mux.epoch();
        let received = match message {
            Message::Ok { id, ok } => {
                state.answer(id, Ok(ok), charge);
                return Ok(());
            }
            Message::Fault { id, fault } => {
                state.answer(id, Err(fault), charge);
                return Ok(());
            }
            Message::Event { event } => {
                let stream = event
                    .stream()
                    .filter(|id| state.mux.claim(*id))
                    .map(|id| LinkStream::new(Arc::clone(self), id, epoch));
                Received::Event { event, stream }
            }
            Message::Call { id, call } => {
                let limit = match self.role {
                    Role::Host => MAX_GUEST_CALLS,
                    Role::Guest => MAX_PEER_CALLS,
                };
                if state.peer_calls + state.mux.queued_messages() >= limit {
                    return Err(LinkError::TooManyCalls { limit });
                }
                state.peer_calls += 1;
                let wanted = call.streams().count();
                let ids: Vec<StreamId> = call.streams().filter(|id| state.mux.claim(*id)).collect();
                if ids.len() < wanted {
                    ids.into_iter().for_each(|id| state.mux.abandon(id));
                    state.mux.release(charge);
                    let fault = Fault::new(Symbol::StreamGone, "a stream of the call is gone");
                    state.queue_reply(id, Err(fault));
                    return Ok(());
                }
                let streams = ids
                    .into_iter()
                    .map(|id| LinkStream::new(Arc::clone(self), id, epoch))
                    .collect();
                let responder = Responder::new(Arc::clone(self), id, epoch);
                Received::Call {
                    call,
                    streams,
                    responder,
                }
            }
        };
        state.inbox.push_back(Queued {
            received,
            charge,
            epoch,
        });
        Ok(())
    }
}

impl State {
    /// Hands a reply to the call that waits for it; one that was given up is
    /// no fault of the peer's.
    fn answer(&mut self, id: u64, outcome: Result<Reply, Fault>, charge: u32) {
        self.mux.release(charge);
        if let Some(waiting) = self.calls.remove(&id) {
            waiting.send(outcome).ok();
        }
    }

    fn queue_reply(&mut self, id: u64, outcome: Result<Reply, Fault>) {
        self.peer_calls = self.peer_calls.saturating_sub(1);
        let message = match outcome {
            Ok(ok) => Message::Ok { id, ok },
            Err(fault) => Message::Fault { id, fault },
        };
        self.mux.send_message(message.to_json(), false);
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        let readers = self.readers.drain().map(|(_, waker)| waker);
        let writers = self.writers.drain().map(|(_, waker)| waker);
        let watchers = self.watchers.drain().map(|(_, waker)| waker);
        readers
            .chain(writers)
            .chain(watchers)
            .chain(self.inbox_waker.take())
            .collect()
    }
}

/// Moves bytes until the link ends, and says why. A peer that takes no more may have
/// sent its last words before, so those are read to the end.
async fn run<C>(
    shared: &Arc<Shared>,
    mut reader: ReadHalf<C>,
    mut writer: WriteHalf<C>,
) -> LinkError
where
    C: AsyncRead + AsyncWrite,
{
    let mut input = vec![0; CHUNK];
    let mut output = Vec::with_capacity(2 * CHUNK);
    let mut sent = 0;
    let mut unsendable = None;
    loop {
        {
            let mut state = shared.lock();
            if let Some(end) = &state.end {
                return end.clone();
            }
            if unsendable.is_none() && sent == output.len() {
                output.clear();
                sent = 0;
                state.mux.transmit(&mut output, CHUNK);
                if output.is_empty() {
                    for waiting in state.flushing.drain(..) {
                        waiting.send(()).ok();
                    }
                    if state.inbox.is_empty() && state.mux.is_settled() {
                        for waiting in state.settling.drain(..) {
                            waiting.send(()).ok();
                        }
                    }
                }
            }
        }
        // Sending made room for writers.
        if let Err(end) = shared.dispatch() {
            return end;
        }
        tokio::select! {
            read = reader.read(&mut input) => {
                let received = match read {
                    Ok(0) => Err(unsendable.take().unwrap_or(LinkError::Eof)),
                    Ok(count) => shared
                        .lock()
                        .mux
                        .receive(&input[..count])
                        .map_err(LinkError::Violation),
                    Err(source) => Err(LinkError::Io(Arc::new(source))),
                };
                if let Err(end) = received.and_then(|()| shared.dispatch()) {
                    return end;
                }
            }
            written = writer.write(&output[sent..]), if unsendable.is_none() && sent < output.len() => {
                match written {
                    Ok(count) => sent += count,
                    Err(source) => unsendable = Some(LinkError::Io(Arc::new(source))),
                }
            }
            () = shared.wake.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests;
