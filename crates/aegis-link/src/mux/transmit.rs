//! What a side sends, and in which order: signals about the link, then new
//! streams, credit and resets, then messages, then one frame of each stream in
//! turn.

use super::{DATA_CHUNK, Mux, MuxEvent, SEND_BUFFER};
use crate::frame::{self, Frame, HEADER, Kind};

impl Mux {
    pub(super) fn send_signal(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(kind) = self.signals.pop_front() else {
            return false;
        };
        frame::encode(
            out,
            Frame {
                kind,
                epoch: self.epoch,
                stream: 0,
                payload: &[],
            },
        );
        true
    }

    fn send_control(&mut self, out: &mut Vec<u8>) -> bool {
        let Some((kind, stream, number)) = self.control.pop_front() else {
            return false;
        };
        let number = number.to_le_bytes();
        let payload: &[u8] = if kind == Kind::Credit { &number } else { &[] };
        frame::encode(
            out,
            Frame {
                kind,
                epoch: self.epoch,
                stream,
                payload,
            },
        );
        true
    }

    pub(super) fn send_flow(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(id) = self.unannounced.pop_front() {
            frame::encode(
                out,
                Frame {
                    kind: Kind::Open,
                    epoch: self.epoch,
                    stream: id,
                    payload: &[],
                },
            );
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.announced = true;
            }
            self.schedule(id);
            return true;
        }
        self.send_control(out) || self.send_message_part(out) || self.send_data(out)
    }

    fn send_message_part(&mut self, out: &mut Vec<u8>) -> bool {
        #[allow(clippy::cast_possible_truncation, reason = "a header is 28 bytes")]
        const OVERHEAD: u32 = HEADER as u32;
        let Some(message) = self.messages.front_mut() else {
            return false;
        };
        let rest = &message.bytes[message.sent..];
        let part = &rest[..rest.len().min(frame::MAX_PAYLOAD)];
        let Some(credit) = u32::try_from(part.len())
            .ok()
            .and_then(|length| self.message_credit.checked_sub(length + OVERHEAD))
        else {
            return false;
        };
        self.message_credit = credit;
        let kind = if part.len() == rest.len() {
            Kind::Message
        } else {
            Kind::MessagePart
        };
        frame::encode(
            out,
            Frame {
                kind,
                epoch: self.epoch,
                stream: 0,
                payload: part,
            },
        );
        message.sent += part.len();
        if kind == Kind::Message {
            self.messages.pop_front();
        }
        true
    }

    fn send_data(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(id) = self.ready.pop_front() else {
            return false;
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return true;
        };
        stream.scheduled = false;
        let was_full = stream.unsent() >= SEND_BUFFER;
        let chunk = stream.next_chunk(DATA_CHUNK);
        if chunk.is_empty() {
            if stream.send_end() {
                frame::encode(
                    out,
                    Frame {
                        kind: Kind::Fin,
                        epoch: self.epoch,
                        stream: id,
                        payload: &[],
                    },
                );
                self.events.push_back(MuxEvent::Writable(id));
                self.remove_if_over(id);
            }
        } else {
            frame::encode(
                out,
                Frame {
                    kind: Kind::Data,
                    epoch: self.epoch,
                    stream: id,
                    payload: chunk,
                },
            );
            let length = chunk.len();
            stream.sent(length);
            if was_full {
                self.events.push_back(MuxEvent::Writable(id));
            }
            self.schedule(id);
        }
        true
    }
}
