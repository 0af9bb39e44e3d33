//! Reads an archive entry by entry, with memory bounded by [`SPECIAL`].

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use super::header::{BLOCK, Header, SPARSE_MAP, decimal, digits, records, seconds, text};
use super::sparse::{Piece, fit, gnu_pieces, listed_pieces, piece};
use super::{LayerError, Limits};

/// The longest extended header, long name or sparse map; Go's reader has the same.
const SPECIAL: u64 = 1 << 20;
/// Linux' bounds of an extended attribute's name and value (xattr(7)).
const LONGEST_XATTR: usize = 255;
const LARGEST_XATTR: usize = 64 << 10;
const XATTR: &[u8] = b"SCHILY.xattr.";
/// How much of content that nobody wants is read at once.
const SKIP: usize = 64 << 10;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Dir,
    Fifo,
    Unknown(u8),
}

/// An entry of the archive, as it says.
#[derive(Debug)]
pub(super) struct Entry {
    /// Which one it is, counted from 0.
    pub(super) ordinal: u64,
    pub(super) kind: Kind,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    /// Of the content, holes included.
    pub(super) size: u64,
    /// Permissions.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) device: (u32, u32),
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Where the reader is in an entry's content.
#[derive(Default)]
struct Content {
    /// Bytes of it, and of its padding, that are still to be read.
    stored: u64,
    padding: u64,
    /// The file as it was archived: its size, and how far it was given out.
    size: u64,
    at: u64,
    pieces: Vec<Piece>,
    /// The first piece that is not given out.
    next: usize,
}

pub(super) struct Reader<'a, R> {
    input: R,
    blob: &'a Path,
    limits: Limits,
    /// Bytes that were read, and bytes of holes in the files so far.
    position: u64,
    holes: u64,
    entries: u64,
    content: Content,
    ended: bool,
}

impl<'a, R: Read> Reader<'a, R> {
    pub(super) fn new(input: R, blob: &'a Path, limits: Limits) -> Self {
        Self {
            input,
            blob,
            limits,
            position: 0,
            holes: 0,
            entries: 0,
            content: Content::default(),
            ended: false,
        }
    }

    /// Whether there was the empty block that marks the archive's end; archives
    /// without one are read too.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn into_input(self) -> R {
        self.input
    }

    pub(super) fn blob(&self) -> &'a Path {
        self.blob
    }

    /// The next entry; what was not read of the last one's content is skipped.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut extended = BTreeMap::new();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_content()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            match header.kind() {
                b'x' => {
                    let bytes = self.special(&header)?;
                    extended = records(&bytes).ok_or_else(|| self.broken("extended header"))?;
                }
                // Of all entries after it: others that unpack layers ignore these.
                b'g' => {
                    self.start_content(header.size())?;
                    extended.clear();
                    (long_name, long_link) = (None, None);
                }
                b'L' => long_name = Some(text(&self.special(&header)?).to_vec()),
                b'K' => long_link = Some(text(&self.special(&header)?).to_vec()),
                _ => {
                    let mut entry = self.entry(&header, &extended)?;
                    let given = |long: Option<Vec<u8>>| long.filter(|text| !text.is_empty());
                    if let Some(name) = given(long_name) {
                        entry.name = name;
                    }
                    if let Some(link) = given(long_link) {
                        entry.link = link;
                    }
                    self.finish_entry(&mut entry, &header, &extended)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Some of the content of the last entry; 0 bytes are its end.
    pub(super) fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let content = &mut self.content;
        while let Some(piece) = content.pieces.get(content.next) {
            if content.at < piece.end() {
                break;
            }
            content.next += 1;
        }
        let piece = content.pieces.get(content.next);
        let (end, stored) = match piece {
            Some(piece) if content.at >= piece.offset => (piece.end(), true),
            Some(piece) => (piece.offset, false),
            None => (content.size, false),
        };
        let length = usize::try_from(end - content.at).unwrap_or(usize::MAX);
        let room = buffer.len();
        let buffer = &mut buffer[..length.min(room)];
        let read = if stored {
            self.read_some(buffer)?
        } else {
            buffer.fill(0);
            buffer.len()
        };
        if stored {
            if read == 0 && !buffer.is_empty() {
                return Err(self.broken("end within a file"));
            }
            self.content.stored -= read as u64;
        }
        self.content.at += read as u64;
        Ok(read)
    }

    /// Reads what follows the archive's end, which belongs to its digest.
    pub(super) fn read_rest(&mut self) -> Result<(), LayerError> {
        let mut buffer = vec![0; SKIP];
        while self.read_some(&mut buffer)? > 0 {}
        Ok(())
    }

    fn entry(
        &self,
        header: &Header,
        extended: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<Entry, LayerError> {
        let broken = || self.broken("number in a header");
        // An empty value stands for none: the header's holds.
        let value = |key: &[u8]| extended.get(key).filter(|value| !value.is_empty());
        let number = |key: &[u8], field: Option<i64>| match value(key) {
            Some(value) => decimal(value),
            None => field,
        };
        let owner = |key: &[u8], field| {
            let id = number(key, field).and_then(|id| u32::try_from(id).ok());
            // To chown(2) this one means no change.
            id.filter(|id| *id != u32::MAX)
                .ok_or_else(|| self.broken("owner"))
        };
        // Also what a record replaces must be a number.
        let (Some(mode), Some(_), Some((major, minor))) =
            (header.mode(), header.size(), header.device())
        else {
            return Err(broken());
        };
        let field = header.mtime().ok_or_else(broken)?;
        let mtime = match value(b"mtime") {
            Some(value) => seconds(value).ok_or_else(|| self.broken("time"))?,
            None => field,
        };
        let mut name = header.name();
        if let Some(path) = value(b"path") {
            name.clone_from(path);
        }
        let kind = match header.kind() {
            // Before directories had a type of their own.
            0 if name.ends_with(b"/") => Kind::Dir,
            // Contiguous files are files (pax(1), typeflag 7).
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => Kind::Unknown(other),
        };
        Ok(Entry {
            ordinal: self.entries,
            kind,
            name,
            link: value(b"linkpath")
                .map_or(header.link(), Vec::as_slice)
                .to_vec(),
            size: 0,
            mode: low_bits(mode, 0o7777),
            uid: owner(b"uid", header.uid())?,
            gid: owner(b"gid", header.gid())?,
            mtime,
            // The bits that Linux has for them (new_encode_dev in kdev_t.h).
            device: (
                u32::from(low_bits(major, 0xfff)),
                u32::from(low_bits(minor >> 16, 0xf)) << 16 | u32::from(low_bits(minor, 0xffff)),
            ),
            xattrs: self.xattrs(extended)?,
        })
    }

    fn xattrs(
        &self,
        extended: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, LayerError> {
        let mut xattrs = BTreeMap::new();
        for (key, value) in extended {
            let Some(name) = key.strip_prefix(XATTR) else {
                continue;
            };
            if name.len() > LONGEST_XATTR || value.len() > LARGEST_XATTR {
                return Err(self.broken("larger extended attribute than Linux allows"));
            }
            if !value.is_empty() {
                xattrs.insert(name.to_vec(), value.clone());
            }
        }
        Ok(xattrs)
    }

    /// Finds where the content is, counts the entry and checks it.
    fn finish_entry(
        &mut self,
        entry: &mut Entry,
        header: &Header,
        extended: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<(), LayerError> {
        let size = extended.get(&b"size"[..]).filter(|value| !value.is_empty());
        let size = size.map_or(header.size(), |size| decimal(size));
        match entry.kind {
            Kind::File | Kind::Unknown(_) => {
                self.start_content(size)?;
                if header.kind() == b'S' {
                    self.read_gnu_map(header)?;
                } else {
                    self.read_pax_map(entry, extended)?;
                }
                entry.size = self.content.size;
            }
            // These have none, whatever their header says.
            _ => self.start_content(Some(0))?,
        }
        self.entries += 1;
        if self.entries > self.limits.entries {
            let limit = self.limits.entries;
            return Err(LayerError::TooMany { limit });
        }
        // What is announced counts, too: it is told before it is unpacked.
        self.check_size(self.content.stored)
    }

    fn start_content(&mut self, size: Option<i64>) -> Result<(), LayerError> {
        let size = size.and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| self.broken("size"))?;
        self.content = Content {
            stored: size,
            padding: size.wrapping_neg() % BLOCK as u64,
            size,
            at: 0,
            pieces: vec![Piece {
                offset: 0,
                length: size,
            }],
            next: 0,
        };
        Ok(())
    }

    fn read_gnu_map(&mut self, header: &Header) -> Result<(), LayerError> {
        let broken = "sparse map";
        let Some((fields, mut more, size)) = header.gnu_sparse() else {
            return Err(self.broken(broken));
        };
        let mut pieces = Vec::new();
        gnu_pieces(fields, &mut pieces).ok_or_else(|| self.broken(broken))?;
        let mut read = 0;
        while more {
            read += BLOCK as u64;
            let block = self.block()?.filter(|_| read <= SPECIAL);
            let block = block.ok_or_else(|| self.broken(broken))?;
            // 21 pieces, then the mark that there are more.
            gnu_pieces(&block[..504], &mut pieces).ok_or_else(|| self.broken(broken))?;
            more = block[504] > 0;
        }
        self.set_map(pieces, size)
    }

    fn read_pax_map(
        &mut self,
        entry: &mut Entry,
        extended: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<(), LayerError> {
        let value = |key: &[u8]| extended.get(key).map(Vec::as_slice).unwrap_or_default();
        let major = value(b"GNU.sparse.major");
        let minor = value(b"GNU.sparse.minor");
        let map = value(SPARSE_MAP);
        let in_content = match (major, minor) {
            (b"0", b"0" | b"1") => false,
            (b"1", b"0") => true,
            (b"", b"") if !map.is_empty() => false,
            _ => return Ok(()),
        };
        if !value(b"GNU.sparse.name").is_empty() {
            entry.name = value(b"GNU.sparse.name").to_vec();
        }
        let real = [value(b"GNU.sparse.size"), value(b"GNU.sparse.realsize")];
        let real = real.into_iter().find(|size| !size.is_empty());
        let broken = || self.broken("sparse map");
        let size = match real {
            Some(size) => decimal(size).ok_or_else(broken)?,
            None => i64::try_from(self.content.size).map_err(|_| broken())?,
        };
        let pieces = if in_content {
            self.read_stored_map()?
        } else {
            listed_pieces(value(b"GNU.sparse.numblocks"), map).ok_or_else(broken)?
        };
        self.set_map(pieces, size)
    }

    /// The map before the content: a count, then as many offsets and lengths, each
    /// in a line, filled up to a block.
    fn read_stored_map(&mut self) -> Result<Vec<Piece>, LayerError> {
        let broken = "sparse map";
        let (mut line, mut numbers, mut expected) = (Vec::new(), Vec::new(), None);
        let mut read = 0;
        while expected.is_none_or(|expected| numbers.len() < expected) {
            let mut block = [0; BLOCK];
            read += BLOCK as u64;
            if read > SPECIAL || self.content.stored < BLOCK as u64 {
                return Err(self.broken(broken));
            }
            self.fill(&mut block)?;
            self.content.stored -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let number = digits(&line, 10).ok_or_else(|| self.broken(broken))?;
                line.clear();
                match expected {
                    None => {
                        let count = usize::try_from(number).ok();
                        let count = count.and_then(|count| count.checked_mul(2));
                        expected = Some(count.ok_or_else(|| self.broken(broken))?);
                    }
                    Some(_) => numbers.push(number),
                }
                if expected.is_some_and(|expected| numbers.len() >= expected) {
                    break;
                }
            }
        }
        let pieces = numbers.chunks_exact(2).map(|pair| piece(pair[0], pair[1]));
        let pieces: Option<Vec<Piece>> = pieces.collect();
        pieces.ok_or_else(|| self.broken(broken))
    }

    fn set_map(&mut self, pieces: Vec<Piece>, size: i64) -> Result<(), LayerError> {
        let size = u64::try_from(size).map_err(|_| self.broken("size"))?;
        if !fit(&pieces, size, self.content.stored) {
            return Err(self.broken("sparse map"));
        }
        self.content.size = size;
        self.content.pieces = pieces;
        self.holes = self.holes.saturating_add(size - self.content.stored);
        Ok(())
    }

    fn header(&mut self) -> Result<Option<Header>, LayerError> {
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block == [0; BLOCK] {
            self.ended = true;
            // Two such blocks are the end, and so is one that is the last.
            return match self.block()? {
                Some(block) if block != [0; BLOCK] => {
                    Err(self.broken("entry after an empty block"))
                }
                _ => Ok(None),
            };
        }
        let header = Header::parse(block).ok_or_else(|| self.broken("header"))?;
        Ok(Some(header))
    }

    /// The content of a header that belongs to the next entry.
    fn special(&mut self, header: &Header) -> Result<Vec<u8>, LayerError> {
        self.start_content(header.size())?;
        if self.content.size > SPECIAL {
            return Err(self.broken("extended header of more than a megabyte"));
        }
        let length = usize::try_from(self.content.size).unwrap_or_default();
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        self.content.stored = 0;
        Ok(bytes)
    }

    fn skip_content(&mut self) -> Result<(), LayerError> {
        let Content {
            stored, padding, ..
        } = std::mem::take(&mut self.content);
        if stored + padding == 0 {
            return Ok(());
        }
        let mut buffer = vec![0; SKIP];
        let mut left = stored;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(SKIP).min(SKIP);
            let read = self.read_some(&mut buffer[..length])?;
            if read == 0 {
                return Err(self.broken("end within a file"));
            }
            left -= read as u64;
        }
        // Some that write archives leave out the last padding.
        let mut left = usize::try_from(padding).unwrap_or_default();
        while left > 0 {
            match self.read_some(&mut buffer[..left])? {
                0 => break,
                read => left -= read,
            }
        }
        Ok(())
    }

    /// A block, or `None` at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        match self.read_some(&mut block)? {
            0 => return Ok(None),
            read => self.fill(&mut block[read..])?,
        }
        Ok(Some(block))
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), LayerError> {
        while !buffer.is_empty() {
            match self.read_some(buffer)? {
                0 => return Err(self.broken("end within a block")),
                read => buffer = &mut buffer[read..],
            }
        }
        Ok(())
    }

    /// All bytes come through here, so it holds the limit.
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let read = loop {
            match self.input.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(LayerError::read(self.blob))?,
            }
        };
        self.position = self.position.saturating_add(read as u64);
        self.check_size(0)?;
        Ok(read)
    }

    fn check_size(&self, ahead: u64) -> Result<(), LayerError> {
        let sum = self
            .position
            .saturating_add(self.holes)
            .saturating_add(ahead);
        if sum > self.limits.unpacked {
            let limit = self.limits.unpacked;
            return Err(LayerError::TooBig { limit });
        }
        Ok(())
    }

    fn broken(&self, what: &'static str) -> LayerError {
        LayerError::Malformed {
            what,
            at: self.position,
        }
    }
}

/// The lowest bits of a field, which are all that counts of it.
fn low_bits(value: i64, mask: u16) -> u16 {
    let [.., high, low] = value.to_be_bytes();
    u16::from_be_bytes([high, low]) & mask
}
