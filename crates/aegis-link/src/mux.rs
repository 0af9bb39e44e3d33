//! The protocol without any I/O: bytes in, events out; requests in, bytes out.
//!
//! One [`Mux`] is one side. It owns every byte that waits for the peer or for
//! the program, and every bound on them:
//!
//! | bound | number |
//! |---|---|
//! | received and not yet read, per stream | [`WINDOW`] |
//! | written and not yet sent, per stream | [`SEND_BUFFER`] |
//! | streams the peer may have open | 16 on the host, [`MAX_STREAMS`] in the guest |
//! | received messages not yet taken | [`MESSAGE_WINDOW`] |
//! | control frames waiting to be sent | [`MAX_CONTROL`] |
//!
//! Streams opened by the host are odd, those of the guest even, and grow within
//! an epoch; a frame for a number that was used and is gone is ignored, since
//! it crossed our reset, one for a number never used is a violation.
//!
//! ```text
//!                      Quiesce ──►              save, restore elsewhere
//!   flowing ───────────────────────► quiet ─────────────────────────────► (new host) hunting
//!      ▲                            │   │                                     │ Resync, epoch+1 ──►
//!      └──────── Unquiesce ──► ─────┘   └───────────── ◄── Resynced ──────────┘ flowing again
//! ```
//!
//! Only the host drives this. A host that meets a broken frame while flowing
//! ends the link; a guest hunts for the next Resync, because a restore that cut
//! a frame looks just like that.

use std::collections::{HashMap, VecDeque};

use crate::frame::{FrameError, Kind, Reader};
use crate::message::{MAX_MESSAGE, StreamId};
use stream::{Owner, Stream};

mod receive;
mod stream;
mod transmit;

/// Bytes a side may have sent on one stream beyond what the other has read.
pub const WINDOW: u32 = 256 * 1024;

/// Bytes one stream takes from its writer ahead of the channel.
pub const SEND_BUFFER: usize = 64 * 1024;

/// Bytes of messages, frame headers counted in, a side may have sent beyond
/// what the other has taken. Must hold the longest message with room to spare,
/// because credit comes back only when a message is taken whole.
pub const MESSAGE_WINDOW: u32 = 1024 * 1024;

/// Streams one side may have opened at a time. A session has two of them.
pub const MAX_STREAMS: usize = 2048;

/// Control frames that may wait. Only a peer that provokes answers and reads
/// none of them gets there.
pub const MAX_CONTROL: usize = 16 * 1024;

/// Streams a guest may have opened at a time: the log, and room to grow.
const MAX_GUEST_STREAMS: usize = 16;

/// Credit is returned in pieces of at least this much: few frames, and the
/// sender still has three quarters of a window left.
const CREDIT_STEP: u32 = WINDOW / 4;

/// Payload of one data frame. Small enough that a keystroke behind some busy
/// streams waits for milliseconds, large enough to keep the overhead under 1 %.
const DATA_CHUNK: usize = 16 * 1024;

/// Bytes and broken frames a host passes over while it looks for the answer to
/// a Resync. What an interrupted guest can have left in the device is less.
const MAX_GARBAGE: usize = 1024 * 1024;
const MAX_BROKEN_FRAMES: u32 = 256;

const _: () = assert!(MAX_MESSAGE < (MESSAGE_WINDOW / 2 + 1) as usize);

/// Which side of the link this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// aegis-vmm.
    Host,
    /// aegis-harness.
    Guest,
}

/// What the peer did that the protocol forbids. The link is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The bytes are no frame.
    #[error("The peer sent bytes that are no frame")]
    Frame(#[source] FrameError),
    /// It did not answer a Resync within the bytes that may precede the answer.
    #[error("The peer did not find back into the protocol")]
    Lost,
    /// A frame of an epoch that has not begun.
    #[error("The peer sent a frame of epoch {0}, which has not begun")]
    Epoch(u32),
    /// A kind of frame this role never gets, or not in this state.
    #[error("The peer sent a frame of kind {0:?} out of place")]
    OutOfPlace(Kind),
    /// A frame for a stream that was never opened, or opened out of order.
    #[error("The peer used stream {0}, which it may not")]
    Stream(StreamId),
    /// More bytes than it had credit for.
    #[error("The peer sent more than its credit on stream {0}")]
    Credit(StreamId),
    /// A longer message than may be.
    #[error("The peer sent a message longer than {MAX_MESSAGE} bytes")]
    MessageTooLong,
    /// It makes us answer and does not read the answers.
    #[error("The peer does not read what it asks for")]
    Unread,
}

/// What came of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum MuxEvent {
    /// A message. Give `charge` back by [`Mux::release`] once it is taken.
    Message {
        /// The JSON text.
        bytes: Vec<u8>,
        /// Window bytes it occupies.
        charge: u32,
    },
    /// The stream has bytes, an end or a reset for its reader.
    Readable(StreamId),
    /// The stream takes bytes again, or never will.
    Writable(StreamId),
    /// Host: the guest is quiet.
    Quiesced,
    /// The new epoch is in force; all streams and calls of the old are gone,
    /// and stream numbers start over.
    Resynced,
}

/// What a read gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadState {
    /// So many bytes, at least one.
    Data(usize),
    /// Nothing yet.
    Empty,
    /// The peer will send no more.
    End,
    /// The stream is gone.
    Reset,
}

/// What a write takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteState {
    /// So many bytes, at least one.
    Taken(usize),
    /// The buffer is full.
    Full,
    /// This side has finished the stream.
    Finished,
    /// The stream is gone.
    Reset,
}

#[derive(Debug)]
struct OutgoingMessage {
    tag: u64,
    bytes: Vec<u8>,
    sent: usize,
    survives_resync: bool,
}

/// One side of the protocol.
#[derive(Debug)]
pub struct Mux {
    role: Role,
    epoch: u32,
    /// Looking for the start of an epoch; all else is passed over.
    hunting: bool,
    garbage: usize,
    broken_frames: u32,
    /// Send nothing but `signals`.
    quiet: bool,
    unanswered_quiesces: u32,

    reader: Reader,
    events: VecDeque<MuxEvent>,

    streams: HashMap<StreamId, Stream>,
    next_stream: StreamId,
    last_peer_stream: StreamId,
    peer_streams: usize,
    own_streams: usize,

    /// Ours, not yet told to the peer, in order.
    unannounced: VecDeque<StreamId>,
    /// Frames about the link itself; sent even in silence.
    signals: VecDeque<Kind>,
    /// Credit and resets.
    control: VecDeque<(Kind, StreamId, u32)>,
    messages: VecDeque<OutgoingMessage>,
    message_credit: u32,
    next_tag: u64,
    /// Streams that have something to send and leave to do so, each once.
    ready: VecDeque<StreamId>,

    assembly: Vec<u8>,
    assembly_charge: u32,
    message_allowance: u32,
    message_taken: u32,
}

impl Mux {
    /// One side of a fresh channel.
    pub fn new(role: Role) -> Mux {
        Mux {
            role,
            epoch: 1,
            hunting: false,
            garbage: 0,
            broken_frames: 0,
            quiet: false,
            unanswered_quiesces: 0,
            reader: Reader::default(),
            events: VecDeque::new(),
            streams: HashMap::new(),
            next_stream: match role {
                Role::Host => 1,
                Role::Guest => 2,
            },
            last_peer_stream: 0,
            peer_streams: 0,
            own_streams: 0,
            unannounced: VecDeque::new(),
            signals: VecDeque::new(),
            control: VecDeque::new(),
            messages: VecDeque::new(),
            message_credit: MESSAGE_WINDOW,
            next_tag: 0,
            ready: VecDeque::new(),
            assembly: Vec::new(),
            assembly_charge: 0,
            message_allowance: MESSAGE_WINDOW,
            message_taken: 0,
        }
    }

    /// The host's side on the channel of a restored guest, whose link was in
    /// `saved_epoch` when it was saved.
    pub fn restored(saved_epoch: u32) -> Mux {
        let mut mux = Mux::new(Role::Host);
        mux.epoch = saved_epoch.wrapping_add(1);
        mux.hunting = true;
        mux.quiet = true;
        mux.signals.push_back(Kind::Resync);
        mux
    }

    /// The epoch in force.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Takes bytes from the channel; what they mean comes from
    /// [`Mux::poll_event`]. Take all events before the next call.
    ///
    /// # Errors
    /// The peer broke the protocol; the link is of no use afterwards.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut reader = std::mem::take(&mut self.reader);
        reader.push(bytes);
        let outcome = loop {
            match reader.next_frame() {
                Ok(None) => break Ok(()),
                Ok(Some(frame)) => {
                    if let Err(violation) = self.frame(frame) {
                        break Err(violation);
                    }
                }
                Err(error) => {
                    let passed = reader.take_skipped();
                    if let Err(violation) = self.broken(error, passed) {
                        break Err(violation);
                    }
                }
            }
        };
        self.reader = reader;
        outcome?;
        if self.control.len() > MAX_CONTROL {
            return Err(Violation::Unread);
        }
        Ok(())
    }

    /// The next event of what was received, or of what was sent.
    pub fn poll_event(&mut self) -> Option<MuxEvent> {
        self.events.pop_front()
    }

    /// Appends frames for the channel to `out`, stopping soon after it holds
    /// `limit` bytes. Streams take turns, a frame each.
    pub fn transmit(&mut self, out: &mut Vec<u8>, limit: usize) {
        while out.len() < limit {
            if !(self.send_signal(out) || !self.quiet && self.send_flow(out)) {
                break;
            }
        }
    }

    /// Queues a message; a tag for [`Mux::cancel`]. One that does not survive a
    /// resync belongs to a call, which does not either.
    pub fn send_message(&mut self, bytes: Vec<u8>, survives_resync: bool) -> u64 {
        self.next_tag += 1;
        self.messages.push_back(OutgoingMessage {
            tag: self.next_tag,
            bytes,
            sent: 0,
            survives_resync,
        });
        self.next_tag
    }

    /// Takes back a message nothing of which was sent yet.
    pub fn cancel(&mut self, tag: u64) {
        self.messages
            .retain(|message| message.tag != tag || message.sent > 0);
    }

    /// Messages that wait to be sent.
    pub fn queued_messages(&self) -> usize {
        self.messages.len()
    }

    /// Nothing waits on this side but credit: all that was sent or written is out,
    /// and all that was received on streams is read.
    pub fn is_settled(&self) -> bool {
        self.messages.is_empty()
            && self.unannounced.is_empty()
            && self.streams.values().all(Stream::is_settled)
    }

    /// Gives the window of a taken message back to the peer.
    pub fn release(&mut self, charge: u32) {
        self.message_taken = self.message_taken.saturating_add(charge);
        if self.message_taken >= CREDIT_STEP {
            self.message_allowance += self.message_taken;
            self.control
                .push_back((Kind::Credit, 0, self.message_taken));
            self.message_taken = 0;
        }
    }

    /// Opens a stream, `None` if [`MAX_STREAMS`] are open or numbers ran out.
    pub fn open(&mut self) -> Option<StreamId> {
        if self.own_streams >= MAX_STREAMS {
            return None;
        }
        let id = self.next_stream;
        self.next_stream = id.checked_add(2)?;
        self.own_streams += 1;
        self.streams.insert(id, Stream::new(Owner::Program));
        self.unannounced.push_back(id);
        Some(id)
    }

    /// Takes a stream the peer opened; false if there is none that waits.
    pub fn claim(&mut self, id: StreamId) -> bool {
        match self.streams.get_mut(&id) {
            Some(stream) if stream.owner == Owner::Unclaimed => {
                stream.owner = Owner::Program;
                true
            }
            _ => false,
        }
    }

    /// True if the stream was reset, or is no more.
    pub fn is_dead(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_none_or(Stream::is_reset)
    }

    /// Reads from a stream.
    pub fn read(&mut self, id: StreamId, buffer: &mut [u8]) -> ReadState {
        let Some(stream) = self.streams.get_mut(&id) else {
            return ReadState::Reset;
        };
        let state = stream.read(buffer);
        if let Some(credit) = stream.take_credit(CREDIT_STEP) {
            self.control.push_back((Kind::Credit, id, credit));
        }
        state
    }

    /// Writes to a stream.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> WriteState {
        let Some(stream) = self.streams.get_mut(&id) else {
            return WriteState::Reset;
        };
        let state = stream.write(bytes, SEND_BUFFER);
        self.schedule(id);
        state
    }

    /// Closes the sending half after what was written.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.finish();
            self.schedule(id);
        }
    }

    /// The program lets go of a stream: what it finished is still delivered,
    /// anything else is a reset.
    pub fn abandon(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.is_reset() {
            self.remove(id);
        } else if stream.is_finished() {
            stream.owner = Owner::Nobody;
            stream.discard_received();
            if let Some(credit) = stream.take_credit(CREDIT_STEP) {
                self.control.push_back((Kind::Credit, id, credit));
            }
            self.remove_if_over(id);
        } else {
            self.remove(id);
            if let Some(at) = self.unannounced.iter().position(|waiting| *waiting == id) {
                self.unannounced.remove(at);
            } else {
                self.control.push_back((Kind::Reset, id, 0));
            }
        }
    }

    /// Host: asks the guest to fall silent and does so itself;
    /// [`MuxEvent::Quiesced`] follows.
    pub fn quiesce(&mut self) {
        debug_assert_eq!(self.role, Role::Host, "the host drives saves");
        if !self.quiet {
            self.signals.push_back(Kind::Quiesce);
            self.quiet = true;
            self.unanswered_quiesces += 1;
        }
    }

    /// Host: ends the silence.
    pub fn unquiesce(&mut self) {
        if self.quiet && !self.hunting {
            self.signals.push_back(Kind::Unquiesce);
            self.quiet = false;
        }
    }

    fn schedule(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.scheduled
            && stream.announced
            && stream.has_something_to_send()
        {
            stream.scheduled = true;
            self.ready.push_back(id);
        }
    }

    fn remove(&mut self, id: StreamId) {
        if self.streams.remove(&id).is_some() {
            if self.is_own(id) {
                self.own_streams -= 1;
            } else {
                self.peer_streams -= 1;
            }
        }
    }

    fn remove_if_over(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.remove(id);
        }
    }

    fn is_own(&self, id: StreamId) -> bool {
        (id % 2 == 1) == (self.role == Role::Host)
    }
}

#[cfg(test)]
mod tests;
