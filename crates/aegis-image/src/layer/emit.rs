//! A tree as a tar stream that sqfstar 4.5.1 and later read as it is meant.
//!
//! What its reader (tar.c of squashfs-tools) asks for:
//!
//! - A name comes once; names of owners are empty, or it would look them up on the
//!   host.
//! - Long names and links are GNU headers: from a PAX `linkpath` it takes leading
//!   `/` and `../` away. Large numbers are binary: it knows no whole PAX `mtime`.
//! - Only extended attributes are in PAX headers, which end before a block does,
//!   because it reads numbers in them as C strings.
//! - A hard link comes after what it links to.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use super::LayerError;
use super::header::BLOCK;
use super::path::owned;
use super::reader::Reader;
use super::tree::{Attributes, Child, DirId, InodeId, InodeKind, Node, ROOT, Tree};

/// How overlayfs is told that a directory hides those of lower layers
/// (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories").
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
const XATTR: &[u8] = b"SCHILY.xattr.";
/// How much of a file is passed on at once.
const BUFFER: usize = 128 << 10;
/// The longest name and link in a header.
const LONGEST: usize = 100;

/// Why a stream ended early.
pub(super) enum EmitError {
    Input(LayerError),
    Output(io::Error),
}

impl From<LayerError> for EmitError {
    fn from(error: LayerError) -> Self {
        Self::Input(error)
    }
}

impl From<io::Error> for EmitError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Writes the tree. `open` gives a reader at the start of an archive: the one that the
/// tree is of, or another that it has files of. The number of inodes that the file
/// system must have is returned.
pub(super) fn emit<'a, R: Read, W: Write + ?Sized>(
    tree: &'a Tree,
    open: impl Fn(Option<&'a Path>) -> Result<Reader<'a, R>, LayerError>,
    output: &mut W,
) -> Result<u64, EmitError> {
    let mut places = Places::new(tree);
    let mut output = io::BufWriter::with_capacity(BUFFER, output);
    places.emit_tree(&mut output)?;
    for (archive, files) in places.files() {
        places.emit_files(&files, &mut open(archive)?, &mut output)?;
    }
    for (inode, dir, name) in &places.links {
        let (first_dir, first_name) = places.first[*inode].unwrap_or((ROOT, b""));
        let item = Item {
            kind: b'1',
            link: &tree.path(first_dir, first_name),
            ..Item::new(tree.path(*dir, name), &tree.inode(*inode).attributes)
        };
        item.write(&mut output)?;
    }
    output.write_all(&[0; 2 * BLOCK])?;
    output.flush()?;
    Ok(places.inodes)
}

/// Writes an archive of folders; an empty path is the root.
pub(super) fn emit_folders(
    folders: impl Iterator<Item = (Vec<u8>, Attributes)>,
    output: &mut impl Write,
) -> io::Result<()> {
    for (mut path, attributes) in folders {
        if path.is_empty() {
            path = b"./".to_vec();
        }
        let item = Item {
            kind: b'5',
            ..Item::new(path, &attributes)
        };
        item.write(output)?;
    }
    output.write_all(&[0; 2 * BLOCK])
}

/// Where inodes are in the tree.
struct Places<'a> {
    tree: &'a Tree,
    /// The name that comes first, of inodes that have come.
    first: Vec<Option<(DirId, &'a [u8])>>,
    /// All names after those.
    links: Vec<(InodeId, DirId, &'a [u8])>,
    inodes: u64,
}

impl<'a> Places<'a> {
    fn new(tree: &'a Tree) -> Self {
        Self {
            tree,
            first: vec![None; tree.inodes().len()],
            links: Vec::new(),
            // The root.
            inodes: 1,
        }
    }

    /// Everything that has no content.
    fn emit_tree<W: Write>(&mut self, output: &mut W) -> Result<(), EmitError> {
        let none = Attributes::default();
        let mut dirs = vec![ROOT];
        while let Some(dir) = dirs.pop() {
            for (name, child) in &self.tree.dir(dir).children {
                match child {
                    Child {
                        node: Some(Node::Dir(below)),
                        whiteout,
                        ..
                    } => {
                        self.emit_dir(*below, *whiteout, output)?;
                        dirs.push(*below);
                    }
                    Child {
                        node: Some(Node::Inode(inode)),
                        ..
                    } => self.emit_inode(*inode, dir, name, output)?,
                    Child { node: None, .. } => {
                        let item = Item {
                            kind: b'3',
                            ..Item::new(self.tree.path(dir, name), &none)
                        };
                        item.write(output)?;
                        self.inodes += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn emit_dir<W: Write>(
        &mut self,
        dir: DirId,
        whiteout: bool,
        output: &mut W,
    ) -> Result<(), EmitError> {
        let found = self.tree.dir(dir);
        let item = Item {
            kind: b'5',
            // What a whiteout hides stays hidden when the same layer has a new
            // directory there.
            opaque: found.opaque || whiteout,
            ..Item::new(self.tree.path(found.parent, &found.name), &found.attributes)
        };
        self.inodes += 1;
        Ok(item.write(output)?)
    }

    fn emit_inode<W: Write>(
        &mut self,
        inode: InodeId,
        dir: DirId,
        name: &'a [u8],
        output: &mut W,
    ) -> Result<(), EmitError> {
        if self.first[inode].is_some() {
            self.links.push((inode, dir, name));
            return Ok(());
        }
        self.first[inode] = Some((dir, name));
        self.inodes += 1;
        let found = self.tree.inode(inode);
        let item = Item::new(self.tree.path(dir, name), &found.attributes);
        let item = match &found.kind {
            // With its content.
            InodeKind::File { .. } => return Ok(()),
            InodeKind::Symlink(target) => Item {
                kind: b'2',
                link: target,
                ..item
            },
            InodeKind::Char(major, minor) => Item {
                kind: b'3',
                device: (*major, *minor),
                ..item
            },
            InodeKind::Block(major, minor) => Item {
                kind: b'4',
                device: (*major, *minor),
                ..item
            },
            InodeKind::Fifo => Item { kind: b'6', ..item },
            InodeKind::Lower { path, name } => {
                return Err(EmitError::Input(LayerError::LinkTarget {
                    name: owned(name),
                    target: owned(path),
                }));
            }
        };
        Ok(item.write(output)?)
    }

    /// The files of each archive, in its order, which is the one of their content.
    fn files(&self) -> BTreeMap<Option<&'a Path>, Vec<(u64, InodeId)>> {
        let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, inode) in self.tree.inodes().iter().enumerate() {
            if let InodeKind::File {
                ordinal, archive, ..
            } = &inode.kind
                && self.first[id].is_some()
            {
                let archive = archive.as_ref().map(|path| path.as_path());
                files.entry(archive).or_default().push((*ordinal, id));
            }
        }
        for files in files.values_mut() {
            files.sort_unstable();
        }
        files
    }

    fn emit_files<R: Read, W: Write>(
        &self,
        files: &[(u64, InodeId)],
        reader: &mut Reader<'_, R>,
        output: &mut W,
    ) -> Result<(), EmitError> {
        let mut buffer = vec![0; BUFFER];
        for (ordinal, id) in files {
            let inode = self.tree.inode(*id);
            let (InodeKind::File { size, .. }, Some((dir, name))) = (&inode.kind, self.first[*id])
            else {
                continue;
            };
            let mut entry = reader.next_entry()?;
            while let Some(found) = &entry
                && found.ordinal < *ordinal
            {
                entry = reader.next_entry()?;
            }
            if entry.is_none_or(|entry| entry.ordinal != *ordinal || entry.size != *size) {
                return Err(LayerError::Changed {
                    path: reader.blob().to_owned(),
                }
                .into());
            }
            let item = Item {
                size: *size,
                ..Item::new(self.tree.path(dir, name), &inode.attributes)
            };
            item.write(output)?;
            loop {
                match reader.read_content(&mut buffer)? {
                    0 => break,
                    read => output.write_all(&buffer[..read])?,
                }
            }
            pad(*size, output)?;
        }
        Ok(())
    }
}

/// An entry of the stream.
struct Item<'a> {
    path: Vec<u8>,
    kind: u8,
    link: &'a [u8],
    size: u64,
    device: (u32, u32),
    opaque: bool,
    attributes: &'a Attributes,
}

impl<'a> Item<'a> {
    fn new(path: Vec<u8>, attributes: &'a Attributes) -> Self {
        Self {
            path,
            kind: b'0',
            link: b"",
            size: 0,
            device: (0, 0),
            opaque: false,
            attributes,
        }
    }

    fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let mut records = Vec::new();
        // A hard link has the attributes of what it links to.
        if self.kind != b'1' {
            for (name, value) in self.attributes.xattrs.iter().flat_map(|xattrs| &**xattrs) {
                push_record(&mut records, &[XATTR, name].concat(), value);
            }
        }
        if self.opaque {
            push_record(&mut records, &[XATTR, OPAQUE].concat(), b"y");
        }
        if !records.is_empty() {
            if records.len().is_multiple_of(BLOCK) {
                push_record(&mut records, b"comment", b"");
            }
            write_special(b'x', &records, output)?;
        }
        if self.link.len() > LONGEST {
            write_special(b'K', &[self.link, b"\0"].concat(), output)?;
        }
        if self.path.len() > LONGEST {
            write_special(b'L', &[&self.path, &b"\0"[..]].concat(), output)?;
        }
        output.write_all(&self.header())
    }

    /// A header of the GNU format (tar(5)).
    fn header(&self) -> [u8; BLOCK] {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &[u8]| {
            header[at..at + text.len()].copy_from_slice(text);
        };
        let attributes = self.attributes;
        put(0, &self.path[..self.path.len().min(LONGEST)]);
        put(100, &field::<8>(u64::from(attributes.mode)));
        put(108, &field::<8>(u64::from(attributes.uid)));
        put(116, &field::<8>(u64::from(attributes.gid)));
        put(124, &field::<12>(self.size));
        put(136, &field::<12>(u64::from(attributes.mtime)));
        // The checksum is over a header whose checksum is spaces.
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(LONGEST)]);
        put(257, b"ustar  \0");
        put(329, &field::<8>(u64::from(self.device.0)));
        put(337, &field::<8>(u64::from(self.device.1)));
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }
}

/// A number as octal digits, or binary if they do not suffice.
fn field<const N: usize>(value: u64) -> [u8; N] {
    let mut field = [0; N];
    let octal = format!("{value:0width$o}", width = N - 1);
    if octal.len() < N {
        field[..N - 1].copy_from_slice(octal.as_bytes());
        return field;
    }
    for (place, byte) in field.iter_mut().rev().zip(value.to_le_bytes()) {
        *place = byte;
    }
    field[0] = 0x80;
    field
}

/// An extended header, or a name or link that is too long for a header.
fn write_special(kind: u8, content: &[u8], output: &mut impl Write) -> io::Result<()> {
    let attributes = Attributes::default();
    let item = Item {
        kind,
        size: content.len() as u64,
        ..Item::new(b"special".to_vec(), &attributes)
    };
    output.write_all(&item.header())?;
    output.write_all(content)?;
    pad(item.size, output)
}

fn pad(size: u64, output: &mut impl Write) -> io::Result<()> {
    let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or_default();
    output.write_all(&[0; BLOCK][..padding])
}

/// A record of an extended header, whose length counts its own digits.
fn push_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // A space, an equals sign and a line break.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}
