//! What sqfstar cannot be told: who owns the root, and since when it is as it is.
//!
//! It leaves an entry for the root out of a tar stream, and gives the root to
//! whoever runs it, as of now. That would be another image each time. So the root's
//! inode is changed afterwards, where Documentation/filesystems/squashfs.rst and
//! fs/squashfs/squashfs_fs.h say that it is; inodes and owners are not packed. (4.5.1
//! takes options for owner and time, but heeds them for trees alone.)
//!
//! ```text
//!  superblock │ files │ inodes │ names │ … │ owners, their places │ attributes, their places
//!                        root ── index ───────► 0, 7, 12345
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::tree::Attributes;

const MAGIC: &[u8] = b"hsqs";
/// A block of inodes or owners: its length, then so many bytes.
const BLOCK: u64 = 8192;
const BLOCK_HEADER: u64 = 2;
/// In a block's length: it is not packed.
const PLAIN: u16 = 1 << 15;
/// Types of inodes: a directory, and one with attributes or much in it.
const DIR: u16 = 1;
const LONG_DIR: u16 = 8;

/// Places in the superblock, and how long it is.
const INODES: usize = 4;
const OWNERS: usize = 26;
const ROOT: usize = 32;
const END: usize = 40;
const OWNER_TABLE: usize = 48;
const XATTR_TABLE: usize = 56;
const INODE_TABLE: usize = 64;
const LENGTH: usize = 96;
/// The place of a table that there is not.
const NONE: u64 = u64::MAX;
/// Bytes of an owner, and of what the table of attributes has for each of their sets.
const OWNER: u64 = 4;
const XATTR: u64 = 16;
/// Bytes of a place in a table's list of its blocks.
const PLACE: u64 = 8;
/// What precedes that list in the table of attributes: a place and two numbers.
const XATTR_HEADER: u64 = 16;
/// Images end with a whole page.
const PAGE: u64 = 4096;

/// Gives the root its attributes, and returns how many inodes the image has. An owner
/// who has nothing else in the image is added to its owners; where they are as many as
/// there can be, the root stays with whoever ran sqfstar.
pub(super) fn finish(image: &File, root: &Attributes) -> io::Result<u64> {
    let mut superblock = vec![0; LENGTH];
    image.read_exact_at(&mut superblock, 0)?;
    let reference = word(&superblock, ROOT)?;
    // The block's place among the inodes, and the place in that block.
    let block = word(&superblock, INODE_TABLE)?.checked_add(reference >> 16);
    let block = block.ok_or(io::ErrorKind::InvalidData)?;
    let inode = Inode {
        image,
        block,
        start: reference & 0xffff,
    };
    let is_dir = matches!(inode.field(0)?, DIR | LONG_DIR);
    if !superblock.starts_with(MAGIC) || !is_plain(image, block)? || !is_dir {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut owners = owners(image, &superblock)?;
    let known = owners.len();
    let indices = [root.uid, root.gid].map(|owner| {
        let found = owners.iter().position(|other| *other == owner);
        found.unwrap_or_else(|| {
            owners.push(owner);
            owners.len() - 1
        })
    });
    if let Ok(count) = u16::try_from(owners.len()) {
        if owners.len() > known {
            set_owners(image, &mut superblock, &owners, count)?;
        }
        for (place, index) in [4, 6].into_iter().zip(indices) {
            inode.set_field(place, u16::try_from(index).map_err(io::Error::other)?)?;
        }
    }
    let [a, b, c, d] = root.mtime.to_le_bytes();
    inode.set_field(8, u16::from_le_bytes([a, b]))?;
    inode.set_field(10, u16::from_le_bytes([c, d]))?;
    Ok(word(&superblock, INODES)? & 0xffff_ffff)
}

/// The root's, which may reach into the next block.
struct Inode<'a> {
    image: &'a File,
    block: u64,
    start: u64,
}

impl Inode<'_> {
    fn place(&self, at: u64) -> u64 {
        let at = self.start + at;
        self.block + at + BLOCK_HEADER * (1 + at / BLOCK)
    }

    fn field(&self, at: u64) -> io::Result<u16> {
        let mut bytes = [0; 2];
        for (at, byte) in (at..).zip(&mut bytes) {
            let byte = std::slice::from_mut(byte);
            self.image.read_exact_at(byte, self.place(at))?;
        }
        Ok(u16::from_le_bytes(bytes))
    }

    fn set_field(&self, at: u64, value: u16) -> io::Result<()> {
        for (at, byte) in (at..).zip(value.to_le_bytes()) {
            self.image.write_all_at(&[byte], self.place(at))?;
        }
        Ok(())
    }
}

fn is_plain(image: &File, block: u64) -> io::Result<bool> {
    let mut length = [0; 2];
    image.read_exact_at(&mut length, block)?;
    Ok(u16::from_le_bytes(length) & PLAIN != 0)
}

/// The owners, which are in blocks whose places are in a list.
fn owners(image: &File, superblock: &[u8]) -> io::Result<Vec<u32>> {
    let bytes = (word(superblock, OWNERS)? & 0xffff) * OWNER;
    let list = word(superblock, OWNER_TABLE)?;
    let mut owners = Vec::new();
    for number in 0..bytes.div_ceil(BLOCK) {
        let place = word(&read(image, list.saturating_add(number * PLACE), PLACE)?, 0)?;
        if !is_plain(image, place)? {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let length = BLOCK.min(bytes - number * BLOCK);
        let block = read(image, place.saturating_add(BLOCK_HEADER), length)?;
        let (words, _) = block.as_chunks();
        owners.extend(words.iter().map(|word| u32::from_le_bytes(*word)));
    }
    Ok(owners)
}

/// Replaces the table of owners by a longer one. Nothing comes after it but the table
/// of attributes, which moves.
fn set_owners(image: &File, superblock: &mut [u8], owners: &[u32], count: u16) -> io::Result<()> {
    let before = (word(superblock, OWNERS)? & 0xffff) * OWNER;
    let (list, xattrs) = (
        word(superblock, OWNER_TABLE)?,
        word(superblock, XATTR_TABLE)?,
    );
    let start = word(&read(image, list, PLACE)?, 0)?;
    let (old_end, end) = (
        list.saturating_add(before.div_ceil(BLOCK) * PLACE),
        word(superblock, END)?,
    );
    let mut table = Vec::new();
    let mut places = Vec::new();
    for block in owners.chunks(usize::try_from(BLOCK / OWNER).map_err(io::Error::other)?) {
        places.extend((start + table.len() as u64).to_le_bytes());
        let length = u16::try_from(block.len() * 4).map_err(io::Error::other)?;
        table.extend((length | PLAIN).to_le_bytes());
        table.extend(block.iter().flat_map(|owner| owner.to_le_bytes()));
    }
    let list = start + table.len() as u64;
    table.extend(places);
    let moved = start + table.len() as u64;
    let shift = moved
        .checked_sub(old_end)
        .ok_or(io::ErrorKind::InvalidData)?;
    let length = end.checked_sub(old_end).ok_or(io::ErrorKind::InvalidData)?;
    let mut rest = read(image, old_end, length)?;
    if xattrs != NONE {
        let at = xattrs
            .checked_sub(old_end)
            .and_then(|at| usize::try_from(at).ok());
        let at = at.ok_or(io::ErrorKind::InvalidData)?;
        let sets = word(&rest, at + 8)? & 0xffff_ffff;
        let blocks = (sets * XATTR).div_ceil(BLOCK);
        add(&mut rest, at, shift)?;
        for block in 0..blocks {
            let place = usize::try_from(XATTR_HEADER + block * PLACE).map_err(io::Error::other)?;
            add(&mut rest, at + place, shift)?;
        }
        add(superblock, XATTR_TABLE, shift)?;
    }
    add(superblock, END, shift)?;
    put(superblock, OWNER_TABLE, &list.to_le_bytes())?;
    put(superblock, OWNERS, &count.to_le_bytes())?;
    table.extend(rest);
    image.write_all_at(&table, start)?;
    image.set_len((end + shift).next_multiple_of(PAGE))?;
    image.write_all_at(superblock, 0)
}

fn read(image: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    image.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn word(bytes: &[u8], at: usize) -> io::Result<u64> {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    let word = word.ok_or(io::ErrorKind::InvalidData)?;
    Ok(u64::from_le_bytes(*word))
}

fn add(bytes: &mut [u8], at: usize, more: u64) -> io::Result<()> {
    let sum = word(bytes, at)?.saturating_add(more);
    put(bytes, at, &sum.to_le_bytes())
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) -> io::Result<()> {
    let place = bytes.get_mut(at..at + new.len());
    place
        .ok_or(io::ErrorKind::InvalidData)?
        .copy_from_slice(new);
    Ok(())
}
