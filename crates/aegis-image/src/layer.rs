//! One layer of an image: from its blob to one read-only SquashFS.
//!
//! ```text
//!          pass 1                                    pass 2
//!  blob ──unpack──► tar ──► tree           blob ──unpack──► tar ─┐
//!                    └──► diff ID, limits  tree ───────────────► emit ──► sqfstar ──► SquashFS
//! ```
//!
//! Nothing is unpacked onto the host's file system: what a layer means is decided
//! in memory, and sqfstar gets a tar stream that says it without a doubt. So no
//! name, link or device of an image can reach the host, and no privilege is needed
//! for owners, devices and attributes. Nothing is written before pass 1 has seen
//! the whole layer and found it good.
//!
//! The result is the layer as `umoci raw unpack` and podman leave it on disk, meant
//! as a lower layer of overlayfs:
//!
//! - Names are cleaned; one that `..` leads out of the layer is refused. Below a
//!   symbolic link of the same layer, or of one that it lies on ([`Links`]), they go on
//!   where it leads, as in a chroot.
//! - A hard link leads to what is in the layer when it comes, or else to what is seen of
//!   the layers below ([`LowerFile`]).
//! - The last entry of a name wins. A directory over a directory keeps what is in
//!   it. What stands in the place of a parent gives way to a directory, and a
//!   missing parent belongs to root, mode 0755, where no lower layer has it
//!   ([`said_again`]).
//! - Whiteouts hide what is in lower layers, never what is in the same one
//!   ([OCI image-spec, layer.md](https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts)).
//!   They become what overlayfs knows: device 0:0, `trusted.overlay.opaque`.
//! - Of extended attributes those remain that SquashFS can hold, but for those of
//!   overlayfs, with which an image could show files of another layer, and
//!   `security.selinux`, which belongs to the host.
//! - Times are whole seconds from 1970 to 2106, which is what SquashFS has; others
//!   become the nearest.

mod arrival;
mod emit;
mod folders;
mod header;
mod links;
mod lower;
mod path;
mod reader;
mod sparse;
mod sqfstar;
mod superblock;
mod tree;
mod unpack;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aegis_core::fault::Symbol;

use crate::digest::{Algorithm, Digest, Hash};

use arrival::Arrival;
use emit::EmitError;
pub use folders::{Folders, said_again};
pub use links::Links;
pub use lower::{LowerFile, LowerFiles, owners};
use reader::Reader;
use sqfstar::Sqfstar;
use tree::Tree;
use unpack::Unpacked;

/// What to do where the disk is full.
pub(crate) const MAKE_ROOM: &str = "make room: aegisctl image prune, or delete instances";

/// Where a layer must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the unpacked archive, holes of sparse files included.
    pub unpacked: u64,
    /// Files, directories, links and whiteouts, parents without an entry included.
    pub entries: u64,
}

impl Default for Limits {
    /// 128 GiB and two million entries: several times the largest layers in use,
    /// those of machine learning. An entry costs some hundred bytes here and about
    /// a kilobyte in sqfstar, so a layer of nothing but entries ends at 2 GiB.
    fn default() -> Self {
        Self {
            unpacked: 128 << 30,
            entries: 2_000_000,
        }
    }
}

/// A conversion.
#[derive(Clone, Copy)]
pub struct Convert<'a> {
    /// The layer: a tar archive, plain or packed with gzip or zstd.
    pub blob: &'a Path,
    /// The SquashFS. It must not exist, and does not if the conversion fails.
    pub to: &'a Path,
    /// What the unpacked archive's digest must be.
    pub diff_id: Option<&'a Digest>,
    pub limits: Limits,
    /// The symbolic links that it lies on; `None` understands it by itself, without any
    /// file of layers below.
    pub below: Option<&'a Links>,
    /// Told how much of [`Convert::work`] is done.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Ends the conversion once it is true.
    pub cancelled: &'a AtomicBool,
}

impl std::fmt::Debug for Convert<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Convert")
            .field("blob", &self.blob)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

impl Convert<'_> {
    /// What there is to do for a blob of that size: it is read twice.
    #[must_use]
    pub fn work(blob: u64) -> u64 {
        blob.saturating_mul(2)
    }
}

/// A layer that was converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the unpacked archive; SHA-256 unless another was expected.
    pub diff_id: Digest,
    /// Bytes of the unpacked archive.
    pub unpacked: u64,
    /// Bytes of the SquashFS.
    pub size: u64,
    /// The layer hides all layers below it. Overlayfs looks for no such mark on a
    /// layer's root, and sqfstar could not make one.
    pub opaque: bool,
    /// What it says about folders.
    pub folders: Folders,
}

/// Why there is no SquashFS of a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("cannot read the layer {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("it cannot be unpacked")]
    Packing(#[source] io::Error),
    #[error("it is no valid tar archive: {what}, at byte {at}")]
    Malformed { what: &'static str, at: u64 },
    #[error("the layer is larger than {limit} bytes when unpacked")]
    TooBig { limit: u64 },
    #[error("the layer has more than {limit} entries")]
    TooMany { limit: u64 },
    #[error("the paths, links and attributes of the layer are larger than {limit} bytes")]
    TooMuchMetadata { limit: usize },
    #[error("the layer has an entry outside of itself: {name:?}")]
    Outside { name: PathBuf },
    #[error("the layer has a name or link that is no path: {name:?}")]
    NoPath { name: PathBuf },
    #[error("the layer has a longer path than Linux allows: {name:?}")]
    TooLong { name: PathBuf },
    #[error("the layer has an entry below too many symbolic links: {name:?}")]
    Loop { name: PathBuf },
    #[error("the layer has an entry of the unknown type {kind:#04x}: {name:?}")]
    UnknownKind { name: PathBuf, kind: u8 },
    #[error("the layer has {name:?} linked to {target:?}, which is no file in it")]
    LinkTarget { name: PathBuf, target: PathBuf },
    #[error("the layer would replace its own root: {name:?}")]
    Root { name: PathBuf },
    #[error("the layer is not the one that was asked for: its diff ID is {actual}, not {expected}")]
    DiffId { expected: Digest, actual: Digest },
    #[error("the layer {path} changed while it was read", path = path.display())]
    Changed { path: PathBuf },
    #[error("sqfstar, which makes file systems of layers, is not installed")]
    NoTool,
    #[error("no space is left for {path}", path = path.display())]
    NoSpace { path: PathBuf },
    #[error("cannot make {path}", path = path.display())]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make {path}: sqfstar ended with {status}: {last_words}", path = path.display())]
    Tool {
        path: PathBuf,
        status: ExitStatus,
        last_words: String,
    },
    #[error("sqfstar left something out of {path}: {last_words}", path = path.display())]
    Incomplete { path: PathBuf, last_words: String },
    #[error("interrupted")]
    Cancelled,
}

impl LayerError {
    /// For programs.
    pub(crate) fn symbol(&self) -> Symbol {
        match self {
            Self::NoSpace { .. } => Symbol::NoSpace,
            Self::NoTool => Symbol::Unsupported,
            Self::Cancelled => Symbol::Cancelled,
            Self::Read { .. }
            | Self::Make { .. }
            | Self::Tool { .. }
            | Self::Incomplete { .. }
            | Self::Changed { .. } => Symbol::Internal,
            _ => Symbol::ImageCorrupt,
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSpace { .. } => Some(MAKE_ROOM),
            Self::NoTool => Some("install the package squashfs-tools"),
            _ => None,
        }
    }

    /// Of reading, which keeps what arrives and may so need space too.
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.raw_os_error() {
            // Not the system's but gzip's or zstd's.
            None => Self::Packing(source),
            Some(_) if is_full(&source) => Self::NoSpace { path },
            Some(_) => Self::Read { path, source },
        }
    }

    fn make(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match is_full(&source) {
            true => Self::NoSpace { path },
            false => Self::Make { path, source },
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Makes the SquashFS of a layer. Blocks for as long as that takes.
///
/// # Errors
/// The layer is broken, beyond the limits or not the expected one, or the SquashFS
/// cannot be written; then there is no file.
pub fn convert(job: &Convert<'_>) -> Result<Layer, LayerError> {
    survey(job, None)?.make(job)
}

/// A layer that was read and found good; the SquashFS is still to be made.
#[derive(Debug)]
pub struct Survey {
    tree: Tree,
    diff_id: Digest,
    unpacked: u64,
    /// Bytes of the blob.
    size: u64,
    ended: bool,
}

/// Reads a layer and finds it good, which is the first pass. `arriving`: the layer
/// comes from there, and [`Convert::blob`] is a new file that it is kept in.
///
/// # Errors
/// As of [`convert`], or what has arrived cannot be kept.
pub fn survey(job: &Convert<'_>, arriving: Option<&File>) -> Result<Survey, LayerError> {
    let surveyed = match arriving {
        None => {
            let blob = File::open(job.blob).map_err(LayerError::read(job.blob));
            blob.and_then(|blob| read(job, &blob))
        }
        Some(from) => {
            let kept = File::create_new(job.blob).map_err(LayerError::make(job.blob));
            // Packed, it is smaller than what it must not exceed.
            kept.map(|kept| Arrival::new(from, kept, job.cancelled))
                .and_then(|arrival| read(job, arrival.take(job.limits.unpacked)))
        }
    };
    let surveyed = surveyed.and_then(|survey| match job.diff_id {
        Some(expected) if *expected != survey.diff_id => Err(LayerError::DiffId {
            expected: expected.clone(),
            actual: survey.diff_id,
        }),
        _ => Ok(survey),
    });
    surveyed.map_err(unless_cancelled(job))
}

impl Survey {
    /// The digest of the unpacked archive; SHA-256 unless another was expected.
    #[must_use]
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    /// The archive's end is marked: it was not cut off between two files.
    #[must_use]
    pub fn has_end(&self) -> bool {
        self.ended
    }

    /// The names at its top, and whether each is a directory.
    pub fn top(&self) -> impl Iterator<Item = (&[u8], bool)> {
        self.tree.top()
    }

    /// The paths of files of layers below that it has hard links to.
    #[must_use]
    pub fn borrowed(&self) -> BTreeSet<String> {
        self.tree.borrowed()
    }

    /// The files at these paths, by all their names. Those that the layer would have to
    /// borrow itself are not among them.
    #[must_use]
    pub fn files(&self, paths: &BTreeSet<String>, job: &Convert<'_>) -> LowerFiles {
        self.tree.files(paths, job.blob)
    }

    /// Takes what the layer borrows from `files`, with those names of them that are
    /// `seen` in the layers below ([`owners`]). What is returned are these files as this
    /// layer has them.
    ///
    /// # Errors
    /// With them it is beyond the limits.
    pub fn adopt(
        &mut self,
        files: &LowerFiles,
        seen: &BTreeSet<String>,
        job: &Convert<'_>,
    ) -> Result<LowerFiles, LayerError> {
        let limit = job.limits.unpacked;
        let adopted = self.tree.adopt(files, seen, job.blob)?;
        match self.tree.adopted_size() > limit.saturating_sub(self.unpacked) {
            true => Err(LayerError::TooBig { limit }),
            false => Ok(adopted),
        }
    }

    /// Makes the SquashFS, which is the second pass, with the job of the first.
    ///
    /// # Errors
    /// As of [`convert`].
    pub fn make(self, job: &Convert<'_>) -> Result<Layer, LayerError> {
        self.squash(job).map_err(unless_cancelled(job))
    }

    fn squash(self, job: &Convert<'_>) -> Result<Layer, LayerError> {
        let blob = File::open(job.blob).map_err(LayerError::read(job.blob))?;
        // Of this process alone, and for sure not a file or link that was there.
        File::create_new(job.to).map_err(LayerError::make(job.to))?;
        let made = make(job, &self.tree, &blob, self.size).and_then(|()| {
            let meta = fs::metadata(job.to).map_err(LayerError::make(job.to))?;
            Ok(meta.len())
        });
        if made.is_err() {
            // The first failure tells more than this one's would.
            fs::remove_file(job.to).ok();
        }
        let made = made?;
        (job.progress)(Convert::work(self.size));
        Ok(Layer {
            diff_id: self.diff_id,
            unpacked: self.unpacked,
            size: made,
            opaque: self.tree.is_opaque(),
            folders: Folders::of(&self.tree),
        })
    }
}

/// Whatever was under way when a job was cancelled failed because of that.
fn unless_cancelled(job: &Convert<'_>) -> impl FnOnce(LayerError) -> LayerError {
    let cancelled = job.cancelled;
    move |error| match cancelled.load(Ordering::Relaxed) {
        true => LayerError::Cancelled,
        false => error,
    }
}

/// Pass 1: the layer's tree, its size and its digest.
fn read(job: &Convert<'_>, blob: impl Read) -> Result<Survey, LayerError> {
    let algorithm = job.diff_id.map_or(Algorithm::Sha256, Digest::algorithm);
    let hash = Hash::new(algorithm);
    let size = AtomicU64::new(0);
    let progress = |done| {
        size.store(done, Ordering::Relaxed);
        (job.progress)(done);
    };
    let unpacked = Unpacked::open(blob, 0, &progress, job.cancelled);
    let unpacked = unpacked.map_err(LayerError::read(job.blob))?;
    let mut reader = Reader::new(unpacked.hashed(hash), job.blob, job.limits);
    let mut tree = Tree::new(job.limits.entries, job.below);
    while let Some(entry) = reader.next_entry()? {
        tree.add(entry)?;
    }
    tree.settle();
    reader.read_rest()?;
    let (unpacked, ended) = (reader.position(), reader.has_ended());
    let diff_id = reader.into_input().into_hash().finish();
    Ok(Survey {
        tree,
        diff_id,
        unpacked,
        size: size.into_inner(),
        ended,
    })
}

/// Pass 2: the tree and the files' content, through sqfstar.
fn make<'a>(
    job: &'a Convert<'_>,
    tree: &'a Tree,
    blob: &'a File,
    size: u64,
) -> Result<(), LayerError> {
    let open = |other: Option<&'a Path>| {
        let path = other.unwrap_or(job.blob);
        let unpacked = match other {
            None => Unpacked::open(blob, size, job.progress, job.cancelled),
            Some(_) => File::open(path).and_then(|blob| {
                // What of it is read is not known beforehand.
                Unpacked::open(blob, 0, &|_| (), job.cancelled)
            }),
        };
        let unpacked = unpacked.map_err(LayerError::read(path))?;
        Ok(Reader::new(unpacked, path, job.limits))
    };
    let mut sqfstar = Sqfstar::start(job.to, tree.root(), job.cancelled)?;
    match emit::emit(tree, open, &mut sqfstar) {
        Ok(inodes) => sqfstar.finish(Some(inodes)),
        // Why it takes no more, it has said itself.
        Err(EmitError::Output(source)) => {
            sqfstar.finish(None)?;
            Err(LayerError::make(job.to)(source))
        }
        Err(EmitError::Input(error)) => Err(error),
    }
}

/// Writes the archive that sqfstar would be given for the unpacked archive of a
/// layer, on top of `below` or by itself: what [`convert`] does with the bytes of
/// others, without a file or program.
///
/// # Errors
/// As of [`convert`].
pub fn normalise(
    archive: &[u8],
    below: Option<&[u8]>,
    limits: Limits,
    output: &mut dyn Write,
) -> Result<(), LayerError> {
    let (name, name_below) = (Path::new("archive"), Path::new("archive below"));
    let read = |archive, name, below| {
        let mut reader = Reader::new(archive, name, limits);
        let mut tree = Tree::new(limits.entries, below);
        while let Some(entry) = reader.next_entry()? {
            tree.add(entry)?;
        }
        tree.settle();
        reader.read_rest().map(|()| tree)
    };
    let tree = match below {
        None => read(archive, name, None)?,
        Some(below) => {
            let below = read(below, name_below, None)?;
            let layers = [Folders::of(&below)];
            let mut links = Links::default();
            links.cover(&layers[0]);
            let mut tree = read(archive, name, Some(&links))?;
            let files = below.files(&tree.borrowed(), name_below);
            let seen = owners(&layers, files.keys().cloned().collect());
            tree.adopt(&files, &seen.into_keys().collect(), name)?;
            tree
        }
    };
    let emitted = emit::emit(
        &tree,
        |other| {
            let archive = other.and(below).unwrap_or(archive);
            Ok(Reader::new(archive, other.unwrap_or(name), limits))
        },
        output,
    );
    match emitted {
        Ok(_) => Ok(()),
        Err(EmitError::Output(source)) => Err(LayerError::make(name)(source)),
        Err(EmitError::Input(error)) => Err(error),
    }
}
