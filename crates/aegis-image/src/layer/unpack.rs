//! A blob's bytes: unpacked, hashed, counted, and no more of them once cancelled.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;

use crate::digest::Hash;

/// How much of a blob is read at once, so also how often progress is told.
const BUFFER: usize = 256 << 10;
/// [RFC 1952](https://www.rfc-editor.org/rfc/rfc1952#page-6), 2.3.1.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// [RFC 8878](https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Frames with data for others, which may come first (RFC 8878, 3.1.2): the last
/// three bytes of their magic number, whose first is 0x50 to 0x5f.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// The archive in a blob.
pub(super) struct Unpacked<'a> {
    input: Box<dyn Read + 'a>,
    cancelled: &'a AtomicBool,
}

impl<'a> Unpacked<'a> {
    /// `before` is the work that was done before. What packed the blob, its first
    /// bytes tell: media types are often wrong.
    pub(super) fn open(
        blob: impl Read + 'a,
        before: u64,
        progress: &'a dyn Fn(u64),
        cancelled: &'a AtomicBool,
    ) -> io::Result<Self> {
        let counted = Counted {
            input: blob,
            done: before,
            progress,
        };
        let mut buffer = BufReader::with_capacity(BUFFER, counted);
        let start = buffer.fill_buf()?;
        let input: Box<dyn Read + 'a> = if start.starts_with(&GZIP) {
            Box::new(MultiGzDecoder::new(buffer))
        } else if start.starts_with(&ZSTD) || is_skippable(start) {
            // Its default bound of what a frame may ask for is 128 MiB.
            Box::new(zstd::stream::read::Decoder::with_buffer(buffer)?)
        } else {
            Box::new(buffer)
        };
        Ok(Self { input, cancelled })
    }

    pub(super) fn hashed(self, hash: Hash) -> Hashed<'a> {
        Hashed { input: self, hash }
    }
}

fn is_skippable(start: &[u8]) -> bool {
    start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == ZSTD_SKIPPABLE
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.input.read(buffer)
    }
}

/// Tells progress of what is read.
struct Counted<'a, R> {
    input: R,
    done: u64,
    progress: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.done = self.done.saturating_add(read as u64);
        (self.progress)(self.done);
        Ok(read)
    }
}

/// An archive whose bytes are hashed as they are read.
pub(super) struct Hashed<'a> {
    input: Unpacked<'a>,
    hash: Hash,
}

impl Hashed<'_> {
    pub(super) fn into_hash(self) -> Hash {
        self.hash
    }
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
