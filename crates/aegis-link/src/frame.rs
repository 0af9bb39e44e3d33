//! Frames: how bytes on the channel are cut into pieces, and found again.
//!
//! All numbers are little-endian. The header carries a checksum of its own, so
//! a length is believed only when the whole header is; nothing is allocated for
//! a frame before that.
//!
//! ```text
//!   0      4        5     6     8        12      16       20            24           28
//!   │magic │ version│ kind│ zero│ length │ epoch │ stream │ payload crc │ header crc │ payload ...
//! ```
//!
//! A reader that meets bytes which are no frame reports them once and looks for
//! the next magic by itself; whether that is survivable is decided above.

/// Most payload bytes in one frame.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// Length of a frame's header in bytes.
pub const HEADER: usize = 28;

/// The first byte is no ASCII and no start of a UTF-8 sequence: text that got
/// into the channel is not taken for a frame.
const MAGIC: [u8; 4] = [0xA6, b'A', b'V', b'L'];

/// Version of the frame layout.
const VERSION: u8 = 1;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The last or only part of a message.
    Message = 1,
    /// A part of a message; more follow.
    MessagePart = 2,
    /// A new stream.
    Open = 3,
    /// Bytes of a stream.
    Data = 4,
    /// Leave to send more bytes (payload: u32); stream 0 stands for messages.
    Credit = 5,
    /// The sender will send no more bytes on the stream.
    Fin = 6,
    /// The stream is over at once, both ways.
    Reset = 7,
    /// Host to guest: send nothing after your answer.
    Quiesce = 8,
    /// Guest to host: the last frame before silence.
    Quiesced = 9,
    /// Host to guest: go on.
    Unquiesce = 10,
    /// Host to guest: forget all streams and calls, a new epoch begins.
    Resync = 11,
    /// Guest to host: the new epoch is in force.
    Resynced = 12,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Message,
            2 => Kind::MessagePart,
            3 => Kind::Open,
            4 => Kind::Data,
            5 => Kind::Credit,
            6 => Kind::Fin,
            7 => Kind::Reset,
            8 => Kind::Quiesce,
            9 => Kind::Quiesced,
            10 => Kind::Unquiesce,
            11 => Kind::Resync,
            12 => Kind::Resynced,
            _ => return None,
        })
    }
}

/// One frame, its payload still in the reader's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is for.
    pub kind: Kind,
    /// The epoch it was sent in.
    pub epoch: u32,
    /// The stream it belongs to; 0 for none.
    pub stream: u32,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: &'a [u8],
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No magic, an unknown version or kind, or a header that fails its check.
    #[error("The bytes are no frame header")]
    Header,
    /// The header asks for more than a frame may carry.
    #[error("The frame is longer than {MAX_PAYLOAD} bytes")]
    TooLong,
    /// The payload fails its check.
    #[error("The payload of the frame is damaged")]
    Payload,
}

/// Appends a frame to `out`. The payload must fit [`MAX_PAYLOAD`].
pub fn encode(out: &mut Vec<u8>, frame: Frame<'_>) {
    debug_assert!(
        frame.payload.len() <= MAX_PAYLOAD,
        "senders cut payloads to size"
    );
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, frame.kind as u8, 0, 0]);
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a payload is at most 64 KiB"
    )]
    out.extend_from_slice(&(frame.payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&frame.epoch.to_le_bytes());
    out.extend_from_slice(&frame.stream.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(frame.payload).to_le_bytes());
    let check = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&check.to_le_bytes());
    out.extend_from_slice(frame.payload);
}

/// Finds frames in a byte stream. Holds at most one frame and one push.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    start: usize,
    skipped: usize,
}

impl Reader {
    /// Adds bytes from the channel. Take all frames before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes passed over since the last call of this.
    pub fn take_skipped(&mut self) -> usize {
        std::mem::take(&mut self.skipped)
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// The bytes at hand are no frame. They are passed over up to the next
    /// magic; calling again goes on from there.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        match check(&self.buffer[self.start..]) {
            Ok(None) => Ok(None),
            Ok(Some((header, length))) => {
                let payload = self.start + HEADER;
                self.start = payload + length;
                let payload = &self.buffer[payload..self.start];
                Ok(Some(Frame { payload, ..header }))
            }
            Err(error) => {
                let rest = &self.buffer[self.start + 1..];
                let next = rest.iter().enumerate().position(|(at, _)| {
                    let window = &rest[at..rest.len().min(at + MAGIC.len())];
                    MAGIC.starts_with(window)
                });
                let passed = 1 + next.unwrap_or(rest.len());
                self.start += passed;
                self.skipped += passed;
                Err(error)
            }
        }
    }
}

/// Judges the bytes at the start of a buffer without copying them.
fn check(bytes: &[u8]) -> Result<Option<(Frame<'static>, usize)>, FrameError> {
    if !MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]) {
        return Err(FrameError::Header);
    }
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if crc32fast::hash(&header[..HEADER - 4]) != word(24)
        || header[4] != VERSION
        || header[6..8] != [0, 0]
    {
        return Err(FrameError::Header);
    }
    let kind = Kind::from_byte(header[5]).ok_or(FrameError::Header)?;
    let length = usize::try_from(word(8))
        .ok()
        .filter(|length| *length <= MAX_PAYLOAD)
        .ok_or(FrameError::TooLong)?;
    let Some(payload) = bytes.get(HEADER..HEADER + length) else {
        return Ok(None);
    };
    if crc32fast::hash(payload) != word(20) {
        return Err(FrameError::Payload);
    }
    Ok(Some((
        Frame {
            kind,
            epoch: word(12),
            stream: word(16),
            payload: &[],
        },
        length,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(payload: &[u8]) -> Frame<'_> {
        Frame {
            kind: Kind::Data,
            epoch: 3,
            stream: 5,
            payload,
        }
    }

    #[test]
    fn a_frame_arrives_byte_by_byte() {
        let mut wire = Vec::new();
        encode(&mut wire, data(b"hello"));
        let mut reader = Reader::default();
        for byte in &wire[..wire.len() - 1] {
            reader.push(std::slice::from_ref(byte));
            assert_eq!(reader.next_frame(), Ok(None));
        }
        reader.push(&wire[wire.len() - 1..]);
        assert_eq!(reader.next_frame(), Ok(Some(data(b"hello"))));
        assert_eq!(reader.next_frame(), Ok(None));
    }

    #[test]
    fn garbage_is_passed_over_up_to_the_next_frame() {
        let mut wire = b"login: \xA6AVX ".to_vec();
        let garbage = wire.len();
        encode(&mut wire, data(b"x"));
        let mut reader = Reader::default();
        reader.push(&wire);
        let mut errors = 0;
        let found = loop {
            match reader.next_frame() {
                Ok(frame) => break frame.map(|frame| frame.payload.to_vec()),
                Err(_) => errors += 1,
            }
        };
        assert_eq!(found.as_deref(), Some(&b"x"[..]));
        assert_eq!(reader.take_skipped(), garbage);
        assert_eq!(errors, 1);
    }

    #[test]
    fn a_frame_cut_by_another_is_passed_over() {
        let mut cut = Vec::new();
        encode(&mut cut, data(&[7; 100]));
        cut.truncate(60);
        encode(&mut cut, data(b"after"));
        cut.resize(400, 0);
        let mut reader = Reader::default();
        reader.push(&cut);
        assert_eq!(reader.next_frame(), Err(FrameError::Payload));
        assert_eq!(reader.next_frame(), Ok(Some(data(b"after"))));
    }

    #[test]
    fn an_oversized_length_is_refused_before_the_payload_comes() {
        let mut wire = Vec::new();
        encode(&mut wire, data(b""));
        wire[8..12].copy_from_slice(&(64 * 1024 + 1u32).to_le_bytes());
        let check = crc32fast::hash(&wire[..24]);
        wire[24..28].copy_from_slice(&check.to_le_bytes());
        let mut reader = Reader::default();
        reader.push(&wire);
        assert_eq!(reader.next_frame(), Err(FrameError::TooLong));
    }
}
