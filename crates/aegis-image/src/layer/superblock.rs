//! What sqfstar cannot be told: who owns the root, and since when it is as it is.
//!
//! It leaves an entry for the root out of a tar stream, and gives the root to
//! whoever runs it, as of now. That would be another image each time. So the root's
//! inode is changed afterwards, where Documentation/filesystems/squashfs.rst and
//! fs/squashfs/squashfs_fs.h say that it is; inodes and owners are not packed.

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

/// Gives the root its attributes, and returns how many inodes the image has. An
/// owner who has nothing else in the image is not among its owners; then the root
/// stays with whoever ran sqfstar.
pub(super) fn finish(image: &File, root: &Attributes) -> io::Result<u64> {
    let mut superblock = [0; 96];
    image.read_exact_at(&mut superblock, 0)?;
    let word = |at: usize| -> u64 {
        let bytes: [u8; 8] = superblock[at..at + 8].try_into().unwrap_or_default();
        u64::from_le_bytes(bytes)
    };
    let inodes = word(4) & 0xffff_ffff;
    let owners = word(26) & 0xffff;
    let (reference, id_table, inode_table) = (word(32), word(48), word(64));
    // The block's place among the inodes, and the place in that block.
    let block = inode_table.checked_add(reference >> 16);
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
    for (place, owner) in [(4, root.uid), (6, root.gid)] {
        if let Some(index) = index_of(image, id_table, owners, owner)? {
            inode.set_field(place, index)?;
        }
    }
    let [a, b, c, d] = root.mtime.to_le_bytes();
    inode.set_field(8, u16::from_le_bytes([a, b]))?;
    inode.set_field(10, u16::from_le_bytes([c, d]))?;
    Ok(inodes)
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

/// Where an owner is in the table of owners, which is in blocks whose places are in
/// a list.
fn index_of(image: &File, list: u64, owners: u64, owner: u32) -> io::Result<Option<u16>> {
    const SIZE: u64 = 4;
    for index in 0..owners {
        let (block, at) = (index * SIZE / BLOCK, index * SIZE % BLOCK);
        let mut place = [0; 8];
        image.read_exact_at(&mut place, list.saturating_add(block * 8))?;
        let place = u64::from_le_bytes(place);
        if !is_plain(image, place)? {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut found = [0; 4];
        image.read_exact_at(&mut found, place.saturating_add(BLOCK_HEADER + at))?;
        if u32::from_le_bytes(found) == owner {
            return Ok(u16::try_from(index).ok());
        }
    }
    Ok(None)
}
