//! A guest that speaks frames of its own making: the protocol as far as it wants.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use aegis_link::frame::{self, Frame, Kind, Reader};
use aegis_link::message::{Booted, Call, Event, Hello, Message, Reply};
use aegis_link::mux::MESSAGE_WINDOW;

/// The epoch of a fresh link.
pub(crate) const EPOCH: u32 = 1;

/// The guest's end of the channel.
pub(crate) struct RawGuest {
    pub(crate) channel: UnixStream,
    reader: Reader,
    /// Bytes of messages, headers included, that the owner has room for; 0 where it
    /// was sent more than that.
    pub(crate) room: usize,
}

impl RawGuest {
    pub(crate) fn new(channel: UnixStream) -> Self {
        channel.set_nonblocking(false).unwrap();
        Self {
            channel,
            reader: Reader::default(),
            room: usize::try_from(MESSAGE_WINDOW).unwrap(),
        }
    }

    /// Behaves until the owner takes the guest for booted.
    pub(crate) fn boot(&mut self) {
        self.send_message(&Message::Event {
            event: Event::Hello(Hello {
                generation: 1,
                harness: "raw".into(),
                kernel: "none".into(),
            }),
        });
        let id = self.call(|call| matches!(call, Call::Boot(_))).unwrap();
        let ok = Reply::Booted(Booted { uptime_ms: 1 });
        self.send_message(&Message::Ok { id, ok });
    }

    /// The id of the next call that is meant; others stay without an answer. An
    /// error at the end of the channel.
    pub(crate) fn call(&mut self, meant: impl Fn(&Call) -> bool) -> io::Result<u64> {
        loop {
            let (kind, _, payload) = self.receive()?;
            if kind != Kind::Message {
                continue;
            }
            if let Ok(Message::Call { id, call }) = serde_json::from_slice(&payload)
                && meant(&call)
            {
                return Ok(id);
            }
        }
    }

    pub(crate) fn send_message(&mut self, message: &Message) {
        let bytes = serde_json::to_vec(message).unwrap();
        self.send(Kind::Message, 0, &bytes).unwrap();
    }

    pub(crate) fn send(&mut self, kind: Kind, stream: u32, payload: &[u8]) -> io::Result<()> {
        let frame = wire(kind, stream, payload);
        if matches!(kind, Kind::Message | Kind::MessagePart) {
            self.room = self.room.saturating_sub(frame.len());
        }
        self.channel.write_all(&frame)
    }

    /// The next frame of the owner; an error at the end of the channel.
    pub(crate) fn receive(&mut self) -> io::Result<(Kind, u32, Vec<u8>)> {
        loop {
            if let Some(frame) = self.reader.next_frame().unwrap() {
                if (frame.kind, frame.stream) == (Kind::Credit, 0) {
                    let number = u32::from_le_bytes(frame.payload.try_into().unwrap());
                    self.room += usize::try_from(number).unwrap();
                }
                return Ok((frame.kind, frame.stream, frame.payload.to_vec()));
            }
            let mut bytes = [0; 4096];
            match self.channel.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.reader.push(&bytes[..count]),
            }
        }
    }
}

/// A frame as it is on the channel.
pub(crate) fn wire(kind: Kind, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(
        &mut bytes,
        Frame {
            kind,
            epoch: EPOCH,
            stream,
            payload,
        },
    );
    bytes
}
