//! Frames on a byte stream, each behind its length in four bytes, the highest first, as
//! QEMU and passt(1) write them.

use crate::packet::MAX_FRAME;

/// Bytes of a length.
const LENGTH: usize = 4;
/// Room for the longest frame and as much again, so that it rarely has to be moved.
const ROOM: usize = 2 * (LENGTH + MAX_FRAME);

/// The stream names a frame that is longer than any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is longer than any can be")]
pub struct TooLong(pub u32);

/// Finds frames in what arrives.
#[derive(Debug)]
pub struct Reader {
    buffer: Vec<u8>,
    /// What of the buffer is not given out yet.
    from: usize,
    to: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            buffer: vec![0; ROOM],
            from: 0,
            to: 0,
        }
    }
}

impl Reader {
    /// Where to read into. Never empty once [`Reader::next_frame`] found nothing.
    pub fn room(&mut self) -> &mut [u8] {
        if self.from > 0 {
            self.buffer.copy_within(self.from..self.to, 0);
            self.to -= self.from;
            self.from = 0;
        }
        &mut self.buffer[self.to..]
    }

    /// So many bytes were read into the room.
    pub fn filled(&mut self, count: usize) {
        self.to = self.buffer.len().min(self.to + count);
    }

    /// The next frame that is there as a whole.
    ///
    /// # Errors
    /// The stream makes no sense any more.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let there = &self.buffer[self.from..self.to];
        let Some((length, rest)) = there.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let named = u32::from_be_bytes(*length);
        let Some(length) = usize::try_from(named).ok().filter(|n| *n <= MAX_FRAME) else {
            return Err(TooLong(named));
        };
        if rest.len() < length {
            return Ok(None);
        }
        let begin = self.from + LENGTH;
        self.from = begin + length;
        Ok(Some(&self.buffer[begin..begin + length]))
    }
}

/// Holds one frame until all of it is written.
#[derive(Debug, Default)]
pub struct Writer {
    pending: Vec<u8>,
    written: usize,
}

impl Writer {
    /// Whether the next frame can be taken.
    pub fn is_free(&self) -> bool {
        self.written == self.pending.len()
    }

    /// Takes a frame; to be called while it is free. One that is too long, which the
    /// guest's packets never are, is not sent.
    pub fn take(&mut self, frame: &[u8]) {
        self.pending.clear();
        self.written = 0;
        if let Ok(length) = u32::try_from(frame.len()) {
            self.pending.extend(length.to_be_bytes());
            self.pending.extend(frame);
        }
    }

    /// What is to be written.
    pub fn rest(&self) -> &[u8] {
        &self.pending[self.written..]
    }

    /// So many bytes of it were.
    pub fn wrote(&mut self, count: usize) {
        self.written = self.pending.len().min(self.written + count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(reader: &mut Reader, bytes: &[u8]) {
        reader.room()[..bytes.len()].copy_from_slice(bytes);
        reader.filled(bytes.len());
    }

    #[test]
    fn a_length_that_no_frame_has_is_the_end() {
        let mut reader = Reader::default();
        fill(&mut reader, &u32::MAX.to_be_bytes());
        assert_eq!(reader.next_frame(), Err(TooLong(u32::MAX)));
    }

    #[test]
    fn the_longest_frame_fits() {
        let mut reader = Reader::default();
        let mut writer = Writer::default();
        writer.take(&vec![7; MAX_FRAME]);
        fill(&mut reader, writer.rest());
        assert_eq!(reader.next_frame().unwrap().unwrap().len(), MAX_FRAME);
        assert_eq!(reader.next_frame(), Ok(None));
    }

    proptest! {
        #[test]
        fn frames_arrive_whole_however_they_are_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cut in 1_usize..200,
        ) {
            let mut bytes = Vec::new();
            for frame in &frames {
                let mut writer = Writer::default();
                writer.take(frame);
                while !writer.is_free() {
                    let some = writer.rest().len().min(cut);
                    bytes.extend(&writer.rest()[..some]);
                    writer.wrote(some);
                }
            }
            let mut reader = Reader::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                fill(&mut reader, piece);
                while let Some(frame) = reader.next_frame().unwrap() {
                    found.push(frame.to_vec());
                }
            }
            prop_assert_eq!(found, frames);
        }
    }
}
