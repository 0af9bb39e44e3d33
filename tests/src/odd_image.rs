//! Layers that hold all that layers can hold, entry by entry, below the folder `odd`.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

/// When files were changed, where nothing else is said, and the last time that SquashFS
/// has.
pub const TIME: u64 = 981_173_106;
const LAST_TIME: u64 = u32::MAX as u64;

/// An attribute of a file that may open raw sockets: `cap_net_raw=ep`.
const CAPABILITY: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// A layer under construction.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn end(self) -> Result<Vec<u8>> {
        self.0.into_inner().context("ending an archive")
    }

    fn add(
        &mut self,
        kind: EntryType,
        name: impl AsRef<Path>,
        change: impl FnOnce(&mut Header),
        content: &[u8],
    ) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_mtime(TIME);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        change(&mut header);
        self.0.append_data(&mut header, name, content)
    }

    fn file(&mut self, name: impl AsRef<Path>, content: &[u8]) -> io::Result<()> {
        self.add(EntryType::Regular, name, |_| (), content)
    }

    fn dir(&mut self, name: impl AsRef<Path>) -> io::Result<()> {
        self.add(EntryType::Directory, name, |_| (), b"")
    }

    fn gone(&mut self, folder: &str, name: &str) -> io::Result<()> {
        self.file(format!("{folder}/.wh.{name}"), b"")
    }

    fn opaque(&mut self, folder: &str) -> io::Result<()> {
        self.file(format!("{folder}/.wh..wh..opq"), b"")
    }

    fn link(
        &mut self,
        kind: EntryType,
        name: impl AsRef<Path>,
        to: impl AsRef<Path>,
    ) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_mtime(TIME);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        self.0.append_link(&mut header, name, to)
    }

    fn symlink(&mut self, name: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.link(EntryType::Symlink, name, to)
    }

    fn hard(&mut self, name: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.link(EntryType::Link, name, to)
    }

    /// Extended attributes of the next entry.
    fn attributes(&mut self, attributes: &[(&str, &[u8])]) -> io::Result<()> {
        let keys: Vec<String> = attributes
            .iter()
            .map(|(name, _)| format!("SCHILY.xattr.{name}"))
            .collect();
        let values = attributes.iter().map(|(_, value)| *value);
        self.0
            .append_pax_extensions(keys.iter().map(String::as_str).zip(values))
    }
}

/// So many layers, the lowest first: at least three.
///
/// # Errors
/// An entry cannot be written, which a mistake in it would be.
pub fn layers(count: usize) -> Result<Vec<Vec<u8>>> {
    let mut layers = vec![whole()?, changed()?, back()?];
    for number in layers.len()..count {
        layers.push(one_of_many(number)?);
    }
    Ok(layers)
}

/// The size of the file in [`sparse_layer`].
pub const SPARSE_SIZE: u64 = 8 << 30;
/// What is at the beginning and at the end of it.
pub const SPARSE_ENDS: [[u8; BLOCK]; 2] = [[b'a'; BLOCK], [b'z'; BLOCK]];
const BLOCK: usize = 512;

/// A layer with one file, `sparse`, which is a hole but for its ends.
///
/// # Errors
/// An entry cannot be written.
pub fn sparse_layer() -> Result<Vec<u8>> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path("sparse").context("naming a file")?;
    header.set_mode(0o600);
    header.set_mtime(TIME);
    header.set_uid(0);
    header.set_gid(0);
    let ends = SPARSE_ENDS.concat();
    header.set_size(ends.len() as u64);
    let gnu = header.as_gnu_mut().context("a header of GNU")?;
    let octal = |field: &mut [u8], value: u64| {
        let text = format!("{value:0width$o}", width = field.len() - 1);
        field[..text.len()].copy_from_slice(text.as_bytes());
    };
    octal(&mut gnu.realsize, SPARSE_SIZE);
    let offsets = [0, SPARSE_SIZE - BLOCK as u64];
    for (piece, offset) in gnu.sparse.iter_mut().zip(offsets) {
        octal(&mut piece.offset, offset);
        octal(&mut piece.numbytes, BLOCK as u64);
    }
    header.set_cksum();
    let mut layer = Layer::new();
    let added = layer.0.append(&header, &ends[..]);
    added.context("adding a file with a hole")?;
    layer.end()
}

/// Every type, name and attribute.
fn whole() -> Result<Vec<u8>> {
    let mut layer = Layer::new();
    every_kind(&mut layer).context("adding files of all kinds")?;
    every_name(&mut layer).context("adding files of all names")?;
    to_be_changed(&mut layer).context("adding files that change")?;
    layer.end()
}

fn every_kind(layer: &mut Layer) -> io::Result<()> {
    layer.dir("odd/")?;
    let file = EntryType::Regular;
    layer.add(file, "odd/setuid", |header| header.set_mode(0o4755), b"s")?;
    layer.add(file, "odd/setgid", |header| header.set_mode(0o2711), b"s")?;
    layer.add(file, "odd/nothing", |header| header.set_mode(0), b"n")?;
    let shared = EntryType::Directory;
    layer.add(shared, "odd/sticky/", |header| header.set_mode(0o1777), b"")?;
    layer.add(shared, "odd/team/", |header| header.set_mode(0o2770), b"")?;
    let owners = |header: &mut Header| {
        header.set_uid(1000);
        header.set_gid(2_000_000_000);
    };
    layer.add(file, "odd/owned", owners, b"o")?;
    layer.add(file, "odd/first-day", |header| header.set_mtime(0), b"")?;
    let last = |header: &mut Header| header.set_mtime(LAST_TIME);
    layer.add(file, "odd/last-second", last, b"")?;
    // At the size of a block of SquashFS, around it, and well packed.
    let block = 128 << 10;
    let noise: Vec<u8> = (0..=block as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    layer.file("odd/empty", b"")?;
    layer.file("odd/one", b"1")?;
    layer.file("odd/short-of-a-block", &noise[..block - 1])?;
    layer.file("odd/block", &noise[..block])?;
    layer.file("odd/more-than-a-block", &noise)?;
    layer.file("odd/zeros", &vec![0; 3 * block + 5])?;

    layer.symlink("odd/relative", "../odd/./one")?;
    layer.symlink("odd/absolute", "/odd/one")?;
    layer.symlink("odd/dangling", "no/such/file")?;
    layer.symlink("odd/far", "t/".repeat(1500))?;
    layer.symlink("odd/lines", "a\nb")?;
    layer.add(EntryType::Fifo, "odd/fifo", |_| (), b"")?;
    for (name, kind, major, minor) in [
        ("odd/null", EntryType::Char, 1, 3),
        ("odd/disk", EntryType::Block, 8, 1),
        ("odd/large-minor", EntryType::Block, 259, 300_000),
        ("odd/large-major", EntryType::Char, 4000, 255),
    ] {
        let device = |header: &mut Header| {
            // A GNU header has both fields.
            header.set_device_major(major).ok();
            header.set_device_minor(minor).ok();
        };
        layer.add(kind, name, device, b"")?;
    }
    layer.file("odd/x-first", b"linked")?;
    layer.hard("odd/linked", "odd/x-first")?;
    layer.dir("odd/links/")?;
    layer.hard("odd/links/again", "odd/linked")?;
    layer.hard("odd/fifo-linked", "odd/fifo")?;
    layer.hard("odd/null-linked", "odd/null")?;
    layer.hard("odd/dangling-linked", "odd/dangling")?;

    layer.attributes(&[("security.capability", &CAPABILITY)])?;
    layer.file("odd/capable", b"c")?;
    layer.attributes(&[
        ("user.plain", b"words"),
        ("user.bytes", b"\0=\n\xff"),
        ("user.long", &[b'v'; 3000]),
        ("trusted.note", b"root's"),
    ])?;
    layer.file("odd/noted", b"n")?;
    layer.attributes(&[("user.dir", b"d"), ("trusted.dir", b"t")])?;
    layer.dir("odd/noted-dir/")
}

fn every_name(layer: &mut Layer) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;

    layer.dir("odd/names/")?;
    let long = "n".repeat(255);
    let wide = "\u{fc}".repeat(127);
    let (rough, latin) = ([0xff; 255], *b"\xe4\xf6");
    for name in [
        &b"two words"[..],
        b" before and after ",
        b"line\nbreak",
        b"tab\tand\x01\x7f",
        b"-rf",
        b"--",
        b"back\\slash",
        b"'\"`$*?[]{}!#&;|<>",
        b"...",
        b"..a",
        b".wh",
        b".hidden",
        "\u{65e5}\u{672c}\u{8a9e} \u{1f600} e\u{301}".as_bytes(),
        &latin,
        &rough,
        wide.as_bytes(),
        long.as_bytes(),
    ] {
        let path = [b"odd/names/", name].concat();
        layer.file(Path::new(std::ffi::OsStr::from_bytes(&path)), name)?;
    }
    // As deep as umoci can unpack it below a folder of its own.
    let mut deep = "odd/names/deep".to_owned();
    while deep.len() < 3500 {
        layer.dir(format!("{deep}/"))?;
        deep = format!("{deep}/{}", "d".repeat(100));
    }
    layer.file(deep, b"deep")?;
    let mut steps = "odd/names/steps".to_owned();
    for _ in 0..300 {
        layer.dir(format!("{steps}/"))?;
        steps.push_str("/s");
    }
    layer.file(steps, b"steps")
}

/// What the layers above take away or replace.
fn to_be_changed(layer: &mut Layer) -> io::Result<()> {
    layer.dir("odd/change/")?;
    layer.file("odd/change/deleted", b"old")?;
    layer.symlink("odd/change/deleted-link", "deleted")?;
    for folder in ["to-file", "to-file-at-once", "opaque", "kept", "emptied"] {
        layer.dir(format!("odd/change/{folder}/"))?;
        layer.file(format!("odd/change/{folder}/old"), b"old")?;
        layer.dir(format!("odd/change/{folder}/sub/"))?;
        layer.file(format!("odd/change/{folder}/sub/old"), b"old")?;
    }
    for folder in ["file-and-back", "gone-and-back"] {
        layer.dir(format!("odd/change/{folder}/"))?;
        layer.file(format!("odd/change/{folder}/old"), b"old")?;
    }
    layer.file("odd/change/to-dir", b"old")?;
    layer.file("odd/change/dir-and-back", b"old")?;
    layer.symlink("odd/change/link-to-file", "kept")?;
    layer.symlink("odd/change/link-to-dir", "kept")?;
    for name in ["one", "two", "three"] {
        let path = format!("odd/change/hard-{name}");
        match name {
            "one" => layer.file(path, b"hard")?,
            _ => layer.hard(path, "odd/change/hard-one")?,
        }
    }
    // Folders that layers above only pass through.
    let private = |header: &mut Header| {
        header.set_mode(0o700);
        header.set_uid(7);
    };
    layer.attributes(&[("user.kept", b"k")])?;
    layer.add(EntryType::Directory, "odd/change/passed/", private, b"")?;
    let shared = |header: &mut Header| header.set_mode(0o1777);
    layer.add(EntryType::Directory, "odd/change/passed/sub/", shared, b"")?;
    layer.dir("odd/change/passed/told-later/")?;
    layer.add(
        EntryType::Directory,
        "odd/change/passed-to-file/",
        private,
        b"",
    )?;
    // Links that layers above lead through.
    layer.dir("odd/change/real/")?;
    layer.dir("odd/change/real/lib/")?;
    layer.file("odd/change/real/lib/old", b"old")?;
    layer.symlink("odd/change/lib", "real/lib")?;
    layer.symlink("odd/change/lib-again", "/odd/change/lib")?;
    layer.symlink("odd/change/lib-gone", "real/lib")?;
    layer.symlink("odd/change/lib-replaced", "real/lib")?;
    layer.symlink("odd/change/lib-nowhere", "real/not-yet")?;
    // Twice in one archive: the last counts, and folders keep what they have.
    layer.dir("odd/twice/")?;
    layer.file("odd/twice/file", b"first and longer")?;
    layer.file("odd/twice/file", b"second")?;
    layer.dir("odd/twice/dir/")?;
    layer.file("odd/twice/dir/stays", b"stays")?;
    let private = |header: &mut Header| header.set_mode(0o700);
    layer.add(EntryType::Directory, "odd/twice/dir/", private, b"")?;
    layer.file("odd/twice/link", b"a file")?;
    layer.symlink("odd/twice/link", "file")?;
    layer.symlink("odd/twice/again", "file")?;
    layer.file("odd/twice/again", b"a file")?;
    layer.file("odd/twice/was-linked", b"before")?;
    layer.hard("odd/twice/still-linked", "odd/twice/was-linked")?;
    layer.file("odd/twice/was-linked", b"after")
}

/// Deletes and replaces.
fn changed() -> Result<Vec<u8>> {
    let mut layer = Layer::new();
    let mut fill = || {
        layer.dir("odd/")?;
        layer.dir("odd/change/")?;
        layer.gone("odd/change", "deleted")?;
        layer.gone("odd/change", "deleted-link")?;
        layer.gone("odd/change", "never-there")?;
        layer.gone("odd/change", "to-file")?;
        layer.file("odd/change/to-file", b"new")?;
        layer.file("odd/change/to-file-at-once", b"new")?;
        layer.dir("odd/change/to-dir/")?;
        layer.file("odd/change/to-dir/new", b"new")?;
        layer.dir("odd/change/opaque/")?;
        layer.file("odd/change/opaque/before", b"new")?;
        layer.opaque("odd/change/opaque")?;
        layer.file("odd/change/opaque/after", b"new")?;
        let private = |header: &mut Header| {
            header.set_mode(0o700);
            header.set_uid(7);
        };
        layer.add(EntryType::Directory, "odd/change/kept/", private, b"")?;
        layer.dir("odd/change/kept/sub/")?;
        layer.gone("odd/change/kept/sub", "old")?;
        layer.dir("odd/change/emptied/")?;
        layer.gone("odd/change/emptied", "old")?;
        layer.gone("odd/change/emptied", "sub")?;
        layer.file("odd/change/file-and-back", b"for a while")?;
        layer.gone("odd/change", "gone-and-back")?;
        layer.dir("odd/change/dir-and-back/")?;
        layer.file("odd/change/dir-and-back/below", b"for a while")?;
        layer.file("odd/change/link-to-file", b"new")?;
        layer.dir("odd/change/link-to-dir/")?;
        layer.file("odd/change/link-to-dir/new", b"new")?;
        layer.file("odd/change/passed/sub/new", b"new")?;
        layer.file("odd/change/passed/told-later/new", b"new")?;
        layer.file("odd/change/passed-to-file/new", b"new")?;
        layer.file("odd/change/lib/new", b"new")?;
        layer.gone("odd/change/lib", "old")?;
        layer.file("odd/change/lib-again/more", b"more")?;
        layer.dir("odd/change/lib-again/folder/")?;
        layer.gone("odd/change", "lib-gone")?;
        layer.file("odd/change/lib-gone/new", b"in a folder")?;
        layer.dir("odd/change/lib-replaced/")?;
        layer.file("odd/change/lib-replaced/new", b"in a folder")?;
        layer.file("odd/change/lib-nowhere/new", b"new")?;
        layer.gone("odd/change", "hard-two")?;
        layer.file("odd/change/hard-three", b"alone")
    };
    fill().context("adding what changes")?;
    layer.end()
}

/// Brings back under other contents what the layer below replaced.
fn back() -> Result<Vec<u8>> {
    let mut layer = Layer::new();
    let mut fill = || {
        layer.dir("odd/")?;
        layer.dir("odd/change/")?;
        for folder in ["file-and-back", "gone-and-back"] {
            layer.dir(format!("odd/change/{folder}/"))?;
            layer.file(format!("odd/change/{folder}/new"), b"new")?;
        }
        let told = |header: &mut Header| header.set_mode(0o711);
        layer.add(
            EntryType::Directory,
            "odd/change/passed/told-later/",
            told,
            b"",
        )?;
        layer.file("odd/change/passed-to-file", b"new")?;
        layer.file("odd/change/lib-again/last", b"last")?;
        layer.file("odd/change/lib-gone/last", b"last")?;
        // Whoever unpacks changed these just now.
        for folder in ["lib-gone", "real", "real/not-yet"] {
            layer.dir(format!("odd/change/{folder}/"))?;
        }
        layer.file("odd/change/dir-and-back", b"new")
    };
    fill().context("adding what comes back")?;
    layer.end()
}

/// A layer among many: nothing at all, a file of its own, and one that all have.
fn one_of_many(number: usize) -> Result<Vec<u8>> {
    let mut layer = Layer::new();
    if number.is_multiple_of(10) {
        return layer.end();
    }
    let mut fill = || {
        layer.dir("odd/")?;
        layer.dir("odd/many/")?;
        layer.file(format!("odd/many/{number}"), b"own")?;
        if number > 12 {
            layer.gone("odd/many", &(number - 7).to_string())?;
        }
        layer.file("odd/many/last", number.to_string().as_bytes())
    };
    fill().context("adding one of many")?;
    layer.end()
}
