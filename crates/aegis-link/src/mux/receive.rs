//! What a side makes of received frames; every violation is found here.

use super::stream::{Owner, Stream};
use super::{
    CREDIT_STEP, MAX_BROKEN_FRAMES, MAX_GARBAGE, MAX_GUEST_STREAMS, MAX_STREAMS, MESSAGE_WINDOW,
    Mux, MuxEvent, Role, Violation,
};
use crate::frame::{Frame, FrameError, HEADER, Kind};
use crate::message::{MAX_MESSAGE, StreamId};

impl Mux {
    pub(super) fn broken(&mut self, error: FrameError, passed: usize) -> Result<(), Violation> {
        if self.role == Role::Guest {
            self.hunting = true;
            return Ok(());
        }
        if !self.hunting {
            return Err(Violation::Frame(error));
        }
        self.garbage += passed;
        self.broken_frames += 1;
        if self.garbage > MAX_GARBAGE || self.broken_frames > MAX_BROKEN_FRAMES {
            return Err(Violation::Lost);
        }
        Ok(())
    }

    pub(super) fn frame(&mut self, frame: Frame<'_>) -> Result<(), Violation> {
        match frame.kind {
            Kind::Resync => return self.on_resync(frame.epoch),
            Kind::Resynced
                if self.hunting && self.role == Role::Host && frame.epoch == self.epoch =>
            {
                self.hunting = false;
                self.quiet = false;
                self.events.push_back(MuxEvent::Resynced);
                return Ok(());
            }
            _ => {}
        }
        if self.hunting {
            self.garbage += HEADER + frame.payload.len();
            return if self.role == Role::Host && self.garbage > MAX_GARBAGE {
                Err(Violation::Lost)
            } else {
                Ok(())
            };
        }
        if frame.epoch < self.epoch {
            return Ok(());
        }
        if frame.epoch > self.epoch {
            return Err(Violation::Epoch(frame.epoch));
        }
        if self.role == Role::Host && self.quiet && self.unanswered_quiesces == 0 {
            return Err(Violation::OutOfPlace(frame.kind));
        }
        match frame.kind {
            Kind::Message | Kind::MessagePart => self.on_message(frame),
            Kind::Open => self.on_open(frame.stream),
            Kind::Data => self.on_data(frame.stream, frame.payload),
            Kind::Credit => self.on_credit(frame.stream, frame.payload),
            Kind::Fin => self.on_end(frame.stream, Stream::receive_end),
            Kind::Reset => self.on_reset(frame.stream),
            Kind::Quiesce if self.role == Role::Guest && !self.quiet => {
                self.quiet = true;
                self.signals.push_back(Kind::Quiesced);
                Ok(())
            }
            Kind::Unquiesce if self.role == Role::Guest && self.quiet => {
                self.quiet = false;
                Ok(())
            }
            Kind::Quiesced if self.role == Role::Host && self.unanswered_quiesces > 0 => {
                self.unanswered_quiesces -= 1;
                // An answer to a request that was taken back says nothing.
                if self.quiet && self.unanswered_quiesces == 0 {
                    self.events.push_back(MuxEvent::Quiesced);
                }
                Ok(())
            }
            kind => Err(Violation::OutOfPlace(kind)),
        }
    }

    fn on_resync(&mut self, epoch: u32) -> Result<(), Violation> {
        if self.role == Role::Host {
            return Err(Violation::OutOfPlace(Kind::Resync));
        }
        if epoch <= self.epoch {
            return Ok(());
        }
        let mut fresh = Mux::new(self.role);
        fresh.epoch = epoch;
        fresh.next_tag = self.next_tag;
        fresh.events = std::mem::take(&mut self.events);
        fresh.events.push_back(MuxEvent::Resynced);
        fresh.signals.push_back(Kind::Resynced);
        fresh.messages = std::mem::take(&mut self.messages);
        fresh.messages.retain(|message| message.survives_resync);
        for message in &mut fresh.messages {
            message.sent = 0;
        }
        *self = fresh;
        Ok(())
    }

    fn on_message(&mut self, frame: Frame<'_>) -> Result<(), Violation> {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a frame is at most 64 KiB and a header"
        )]
        let charge = (frame.payload.len() + HEADER) as u32;
        self.message_allowance = self
            .message_allowance
            .checked_sub(charge)
            .ok_or(Violation::Credit(0))?;
        if self.assembly.len() + frame.payload.len() > MAX_MESSAGE {
            return Err(Violation::MessageTooLong);
        }
        self.assembly.extend_from_slice(frame.payload);
        self.assembly_charge += charge;
        if frame.kind == Kind::Message {
            self.events.push_back(MuxEvent::Message {
                bytes: std::mem::take(&mut self.assembly),
                charge: std::mem::take(&mut self.assembly_charge),
            });
        }
        Ok(())
    }

    fn on_open(&mut self, id: StreamId) -> Result<(), Violation> {
        if id == 0 || self.is_own(id) || id <= self.last_peer_stream {
            return Err(Violation::Stream(id));
        }
        self.last_peer_stream = id;
        let limit = match self.role {
            Role::Host => MAX_GUEST_STREAMS,
            Role::Guest => MAX_STREAMS,
        };
        if self.peer_streams >= limit {
            self.control.push_back((Kind::Reset, id, 0));
            return Ok(());
        }
        self.peer_streams += 1;
        self.streams.insert(id, Stream::new(Owner::Unclaimed));
        Ok(())
    }

    /// The stream of a frame; `None` for one that is gone already.
    fn known(&mut self, id: StreamId) -> Result<Option<&mut Stream>, Violation> {
        let used = if self.is_own(id) {
            id < self.next_stream
        } else {
            id <= self.last_peer_stream
        };
        if id == 0 || !used {
            return Err(Violation::Stream(id));
        }
        Ok(self.streams.get_mut(&id).filter(|stream| stream.announced))
    }

    fn on_data(&mut self, id: StreamId, payload: &[u8]) -> Result<(), Violation> {
        if payload.is_empty() {
            return Err(Violation::OutOfPlace(Kind::Data));
        }
        let Some(stream) = self.known(id)? else {
            return Ok(());
        };
        if !stream.receive(payload) {
            return Err(Violation::Credit(id));
        }
        if stream.owner == Owner::Nobody {
            stream.discard_received();
            if let Some(credit) = stream.take_credit(CREDIT_STEP) {
                self.control.push_back((Kind::Credit, id, credit));
            }
        } else {
            self.events.push_back(MuxEvent::Readable(id));
        }
        Ok(())
    }

    fn on_credit(&mut self, id: StreamId, payload: &[u8]) -> Result<(), Violation> {
        let amount = payload
            .try_into()
            .map(u32::from_le_bytes)
            .map_err(|_| Violation::OutOfPlace(Kind::Credit))?;
        if id == 0 {
            self.message_credit = self
                .message_credit
                .checked_add(amount)
                .filter(|credit| *credit <= MESSAGE_WINDOW)
                .ok_or(Violation::Credit(0))?;
            return Ok(());
        }
        let Some(stream) = self.known(id)? else {
            return Ok(());
        };
        if !stream.add_credit(amount) {
            return Err(Violation::Credit(id));
        }
        self.schedule(id);
        Ok(())
    }

    fn on_end(&mut self, id: StreamId, end: fn(&mut Stream) -> bool) -> Result<(), Violation> {
        let Some(stream) = self.known(id)? else {
            return Ok(());
        };
        if !end(stream) {
            return Err(Violation::OutOfPlace(Kind::Fin));
        }
        self.events.push_back(MuxEvent::Readable(id));
        self.remove_if_over(id);
        Ok(())
    }

    fn on_reset(&mut self, id: StreamId) -> Result<(), Violation> {
        let Some(stream) = self.known(id)? else {
            return Ok(());
        };
        if stream.owner == Owner::Program {
            stream.receive_reset();
            self.events.push_back(MuxEvent::Readable(id));
            self.events.push_back(MuxEvent::Writable(id));
        } else {
            self.remove(id);
        }
        Ok(())
    }
}
