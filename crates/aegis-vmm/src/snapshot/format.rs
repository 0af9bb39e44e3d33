//! A snapshot's bytes: a header, the machine's state in pieces, and an end.
//!
//! ```text
//!  AEGISNAP version 0      │ 0 header (JSON) │ 1 state │ 2 state │ … │ n end: bytes of state
//!  AEGISNAP version 1 salt │ each: number, kind, length, CRC-32 over all of it
//! ```
//!
//! All numbers are little-endian. What is cut, changed, missing or out of order is
//! found before it is used, and without the end nothing counts. In the second form each
//! payload is sealed with the instance's key ([`super::seal`]), and the check is over
//! what is in the file.

use std::io::{self, Read, Write};

use aegis_core::snapshot::{MAGIC, SPENT, SnapshotKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::seal::{Seal, SealError, TAG};

/// Grows with each change of what is written here or in the header.
const VERSION: u32 = 2;

/// Payloads are as they are.
const CLEAR: u32 = 0;
/// Payloads are sealed, and the salt follows.
const SEALED: u32 = 1;

/// Longest payload in bytes: the header holds a terminal's last output and the
/// environment of a command.
const MAX_PAYLOAD: usize = 4 << 20;

/// Longest piece of state: what is read, checked and handed on at a time.
pub const MAX_STATE: usize = 1 << 20;

const HEAD: usize = 16;

const HEADER: u32 = 1;
const STATE: u32 = 2;
const END: u32 = 3;

/// Why bytes are no snapshot, or cannot become one.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("cannot write the snapshot")]
    Write(#[source] io::Error),
    #[error("cannot read the snapshot")]
    Read(#[source] io::Error),
    #[error("what has to be remembered takes {0} bytes, more than a snapshot holds")]
    TooLong(usize),
    #[error("what has to be remembered cannot be written down")]
    Unwritable(#[source] serde_json::Error),
    #[error("the file is no snapshot")]
    NotOurs,
    #[error("the snapshot was used already")]
    Spent,
    #[error("the snapshot is of version {0}, this program reads {VERSION}")]
    Version(u32),
    #[error("the snapshot ends too early")]
    Cut,
    #[error("piece {0} of the snapshot is damaged")]
    Damaged(u32),
    #[error("the snapshot is sealed, and the instance has no key")]
    NoKey,
    #[error("piece {0} of the snapshot was sealed with another key, or changed")]
    Foreign(u32),
    #[error("the snapshot cannot be sealed")]
    Seal(#[source] SealError),
    #[error("the header of the snapshot cannot be read")]
    Header(#[source] serde_json::Error),
}

/// Writes a snapshot.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    seal: Option<Seal>,
    number: u32,
    state: u64,
}

impl<W: Write> Writer<W> {
    /// Begins one, sealed where there is a key.
    ///
    /// # Errors
    /// The header is too long, there is no salt, or what the file system says.
    pub fn begin(
        to: W,
        header: &impl Serialize,
        key: Option<&SnapshotKey>,
    ) -> Result<Self, FormatError> {
        let header = serde_json::to_vec(header).map_err(FormatError::Unwritable)?;
        if header.len() > MAX_PAYLOAD {
            return Err(FormatError::TooLong(header.len()));
        }
        let salted = key.map(Seal::fresh).transpose();
        let mut writer = Self {
            to,
            seal: None,
            number: 0,
            state: 0,
        };
        writer.write(MAGIC)?;
        writer.write(&VERSION.to_le_bytes())?;
        match salted.map_err(FormatError::Seal)? {
            None => writer.write(&CLEAR.to_le_bytes())?,
            Some((seal, salt)) => {
                writer.write(&SEALED.to_le_bytes())?;
                writer.write(&salt)?;
                writer.seal = Some(seal);
            }
        }
        writer.put(HEADER, &header)?;
        Ok(writer)
    }

    /// Adds state.
    ///
    /// # Errors
    /// What the file system says.
    pub fn state(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        for piece in bytes.chunks(MAX_STATE) {
            self.put(STATE, piece)?;
            self.state += piece.len() as u64;
        }
        Ok(())
    }

    /// Says that this was all.
    ///
    /// # Errors
    /// What the file system says.
    pub fn end(mut self) -> Result<W, FormatError> {
        let total = self.state.to_le_bytes();
        self.put(END, &total)?;
        self.to.flush().map_err(FormatError::Write)?;
        Ok(self.to)
    }

    fn put(&mut self, kind: u32, payload: &[u8]) -> Result<(), FormatError> {
        let sealed = match &self.seal {
            None => None,
            Some(seal) => Some(seal.close(self.number, kind, payload)),
        };
        let sealed = sealed.transpose().map_err(FormatError::Seal)?;
        let payload = sealed.as_deref().unwrap_or(payload);
        // Both callers keep to the limits.
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let head = head(self.number, kind, length, payload);
        self.number += 1;
        self.write(&head)?;
        self.write(payload)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.to.write_all(bytes).map_err(FormatError::Write)
    }
}

fn head(number: u32, kind: u32, length: u32, payload: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    for (place, value) in head.chunks_exact_mut(4).zip([number, kind, length]) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    let mut check = crc32fast::Hasher::new();
    check.update(&head[..HEAD - 4]);
    check.update(payload);
    head[HEAD - 4..].copy_from_slice(&check.finalize().to_le_bytes());
    head
}

/// Reads a snapshot and believes nothing that its checks do not cover.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    seal: Option<Seal>,
    number: u32,
    state: u64,
    is_over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header, of a sealed one with the key.
    ///
    /// # Errors
    /// These bytes are no snapshot that this program reads, or of another key.
    pub fn begin<T: DeserializeOwned>(
        from: R,
        key: Option<&SnapshotKey>,
    ) -> Result<(Self, T), FormatError> {
        let mut reader = Self {
            from,
            seal: None,
            number: 0,
            state: 0,
            is_over: false,
        };
        match &reader.read::<8>()? {
            MAGIC => {}
            SPENT => return Err(FormatError::Spent),
            _ => return Err(FormatError::NotOurs),
        }
        match u32::from_le_bytes(reader.read()?) {
            VERSION => {}
            other => return Err(FormatError::Version(other)),
        }
        match u32::from_le_bytes(reader.read()?) {
            CLEAR => {}
            SEALED => {
                let salt = reader.read()?;
                let key = key.ok_or(FormatError::NoKey)?;
                reader.seal = Some(Seal::new(key, salt));
            }
            _ => return Err(FormatError::NotOurs),
        }
        let (HEADER, header) = reader.take()? else {
            return Err(FormatError::Damaged(0));
        };
        let header = serde_json::from_slice(&header).map_err(FormatError::Header)?;
        Ok((reader, header))
    }

    /// The next piece of state; `None` when all of it was read and is whole.
    ///
    /// # Errors
    /// It is not whole.
    pub fn state(&mut self) -> Result<Option<Vec<u8>>, FormatError> {
        if self.is_over {
            return Ok(None);
        }
        let number = self.number;
        match self.take()? {
            (STATE, payload) => {
                self.state += payload.len() as u64;
                Ok(Some(payload))
            }
            (END, total) if total == self.state.to_le_bytes() => {
                let more = self.from.read(&mut [0]).map_err(FormatError::Read)?;
                self.is_over = more == 0;
                if self.is_over {
                    Ok(None)
                } else {
                    Err(FormatError::Damaged(self.number))
                }
            }
            _ => Err(FormatError::Damaged(number)),
        }
    }

    fn take(&mut self) -> Result<(u32, Vec<u8>), FormatError> {
        let damaged = FormatError::Damaged(self.number);
        let read: [u8; HEAD] = self.read()?;
        let word =
            |at: usize| u32::from_le_bytes([read[at], read[at + 1], read[at + 2], read[at + 3]]);
        let (number, kind, length) = (word(0), word(4), word(8));
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if number != self.number || size > MAX_PAYLOAD + TAG {
            return Err(damaged);
        }
        let mut payload = vec![0; size];
        self.from.read_exact(&mut payload).map_err(cut)?;
        if head(number, kind, length, &payload) != read {
            return Err(damaged);
        }
        if let Some(seal) = &self.seal {
            seal.open(number, kind, &mut payload)
                .map_err(|_| FormatError::Foreign(number))?;
        }
        self.number += 1;
        Ok((kind, payload))
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(cut)?;
        Ok(bytes)
    }
}

fn cut(error: io::Error) -> FormatError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FormatError::Cut,
        _ => FormatError::Read(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(header: &str, pieces: &[Vec<u8>]) -> Vec<u8> {
        written_with(None, header, pieces)
    }

    fn key(byte: u8) -> SnapshotKey {
        SnapshotKey::new([byte; SnapshotKey::LENGTH])
    }

    fn written_with(key: Option<&SnapshotKey>, header: &str, pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &header, key).unwrap();
        for piece in pieces {
            writer.state(piece).unwrap();
        }
        writer.end().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(String, Vec<u8>), FormatError> {
        read_with(None, bytes)
    }

    fn read_with(
        key: Option<&SnapshotKey>,
        bytes: &[u8],
    ) -> Result<(String, Vec<u8>), FormatError> {
        let (mut reader, header) = Reader::begin(bytes, key)?;
        let mut state = Vec::new();
        while let Some(piece) = reader.state()? {
            state.extend(piece);
        }
        Ok((header, state))
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let whole = written("header", &[b"state".to_vec(), b"more".to_vec()]);
        assert_eq!(
            read(&whole).unwrap(),
            ("header".to_owned(), b"statemore".to_vec())
        );
        for length in 0..whole.len() {
            assert!(
                matches!(read(&whole[..length]), Err(FormatError::Cut)),
                "{length}"
            );
        }
        for bit in 0..whole.len() * 8 {
            let mut other = whole.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&other).is_err(), "{bit}");
        }
        let longer = [whole.as_slice(), b"x"].concat();
        assert!(matches!(read(&longer), Err(FormatError::Damaged(4))));
        assert!(matches!(
            read(b"#!/bin/sh\nexit"),
            Err(FormatError::NotOurs)
        ));
    }

    #[test]
    fn a_sealed_one_shows_nothing_and_opens_with_its_key_alone() {
        let pieces = [b"canary one".to_vec(), b"canary two".to_vec()];
        let sealed = written_with(Some(&key(1)), "canary", &pieces);
        assert!(!sealed.windows(6).any(|bytes| bytes == b"canary"));
        let (header, state) = read_with(Some(&key(1)), &sealed).unwrap();
        assert_eq!((header.as_str(), state), ("canary", pieces.concat()));
        assert!(matches!(read(&sealed), Err(FormatError::NoKey)));
        let foreign = read_with(Some(&key(2)), &sealed);
        assert!(matches!(foreign, Err(FormatError::Foreign(0))));
        let again = written_with(Some(&key(1)), "canary", &pieces);
        assert_ne!(sealed, again, "no two are sealed alike");
        for length in 0..sealed.len() {
            assert!(
                read_with(Some(&key(1)), &sealed[..length]).is_err(),
                "{length}"
            );
        }
        for bit in 0..sealed.len() * 8 {
            let mut other = sealed.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(read_with(Some(&key(1)), &other).is_err(), "{bit}");
        }
    }

    #[test]
    fn one_in_clear_is_read_with_a_key_as_without() {
        let whole = written("header", &[b"state".to_vec()]);
        assert!(read_with(Some(&key(1)), &whole).is_ok());
    }

    #[test]
    fn pieces_that_are_left_out_or_exchanged_are_missed() {
        let pieces = [b"1".to_vec(), b"2".to_vec()];
        let whole = written("h", &pieces);
        let piece = HEAD + 1;
        let first = whole.len() - (HEAD + 8) - 2 * piece;
        let mut exchanged = whole.clone();
        exchanged[first..first + 2 * piece].rotate_left(piece);
        assert!(matches!(read(&exchanged), Err(FormatError::Damaged(1))));
        let mut without = whole.clone();
        without.drain(first..first + piece);
        assert!(matches!(read(&without), Err(FormatError::Damaged(1))));
        let mut ended = whole;
        ended.drain(first + piece..first + 2 * piece);
        assert!(matches!(read(&ended), Err(FormatError::Damaged(2))));
    }

    #[test]
    fn a_length_is_judged_before_memory_is_taken() {
        let mut bytes = written("h", &[]);
        bytes[16 + 8..16 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read(&bytes), Err(FormatError::Damaged(0))));
        let header = "x".repeat(MAX_PAYLOAD);
        assert!(matches!(
            Writer::begin(Vec::new(), &header, None),
            Err(FormatError::TooLong(_))
        ));
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = written("h", &[]);
        bytes[8] = 9;
        let error = read(&bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the snapshot is of version 9, this program reads 2"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(header in ".{0,64}", pieces: Vec<Vec<u8>>) {
            for key in [None, Some(&key(3))] {
                let written = written_with(key, &header, &pieces);
                let (again, state) = read_with(key, &written).unwrap();
                prop_assert_eq!(&again, &header);
                prop_assert_eq!(state, pieces.concat());
            }
        }

        #[test]
        fn any_bytes_are_judged(bytes: Vec<u8>) {
            let with_magic = [&MAGIC[..], &VERSION.to_le_bytes(), &bytes].concat();
            prop_assert!(read(&bytes).is_err());
            prop_assert!(read(&with_magic).is_err());
        }
    }
}
