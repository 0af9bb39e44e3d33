//! What the host shares: one device, of which each part is brought to its place.
//!
//! The device is mounted where only the initramfs can see it, and only until its parts
//! are in their places. What is below a place is nothing but that part.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aegis_archive::ArchiveError;
use aegis_link::message::{Share, ShareKind, SharePlace};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::memory::copy;
use super::places::{Obstacle, PlaceError, Places, is_empty, path_of};

/// Bytes of one 9p message: the largest that the virtio transport of Linux
/// takes is 500 KiB (net/9p/trans_virtio.c), and larger is faster.
const NINE_P_OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=512000,access=client";

/// Where the device is mounted; in the initramfs.
const DEVICE: &str = "/share";

/// No mount of it gives a program rights or opens a device.
const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// Why something that is shared is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShareError {
    #[error("{target:?} is not an absolute path")]
    Target { target: String },
    #[error("Cannot make {DEVICE}")]
    Directory(#[source] io::Error),
    #[error("Cannot mount the {kind} device {tag:?}")]
    Device {
        kind: &'static str,
        tag: String,
        #[source]
        source: nix::Error,
    },
    #[error("Cannot find what is for {target} on the device")]
    Part {
        target: String,
        #[source]
        source: io::Error,
    },
    #[error("Cannot make the place of what is shared")]
    Place(#[source] PlaceError),
    #[error("Cannot mount what is shared at {target}")]
    Mount {
        target: String,
        #[source]
        source: nix::Error,
    },
    #[error("Cannot copy what the image has in {target} to the empty volume there")]
    Copy {
        target: String,
        #[source]
        source: ArchiveError,
    },
    #[error("Cannot prepare the empty volume at {target}")]
    Empty {
        target: String,
        #[source]
        source: io::Error,
    },
    #[error("Cannot unmount the device at {DEVICE}")]
    Close(#[source] nix::Error),
}

/// A device that is mounted at [`DEVICE`].
#[derive(Debug)]
pub(super) struct Opened<'a> {
    parts: Vec<Part<'a>>,
}

/// What goes to one place.
#[derive(Debug)]
struct Part<'a> {
    place: &'a SharePlace,
    source: PathBuf,
    is_folder: bool,
}

/// Mounts the device for the time that its parts are brought to their places.
pub(super) fn open(share: &Share) -> Result<Opened<'_>, ShareError> {
    let (kind, options) = match share.kind {
        ShareKind::Virtiofs => ("virtiofs", ""),
        ShareKind::NineP => ("9p", NINE_P_OPTIONS),
    };
    fs::create_dir_all(DEVICE).map_err(ShareError::Directory)?;
    let tag = share.tag.as_str();
    mount(Some(tag), DEVICE, Some(kind), FLAGS, Some(options)).map_err(|source| {
        ShareError::Device {
            kind,
            tag: share.tag.clone(),
            source,
        }
    })?;
    let parts = share.places.iter().map(part);
    Ok(Opened {
        parts: parts.collect::<Result<_, _>>()?,
    })
}

fn part(place: &SharePlace) -> Result<Part<'_>, ShareError> {
    let target = place.target.clone();
    if !target.starts_with('/') {
        return Err(ShareError::Target { target });
    }
    let source = Path::new(DEVICE).join(&place.name);
    let found = fs::symlink_metadata(&source);
    let found = found.map_err(|source| ShareError::Part { target, source })?;
    Ok(Part {
        place,
        source,
        is_folder: found.is_dir(),
    })
}

impl Opened<'_> {
    /// Makes what the parts are mounted on, as far as it is of the root itself.
    pub(super) fn make_places(&self, places: &Places) -> Result<(), ShareError> {
        self.parts
            .iter()
            .try_for_each(|part| part.make_place(places).map(drop))
    }

    /// Brings the parts to their places and gives the device up.
    pub(super) fn show(self, places: &Places) -> Result<(), ShareError> {
        self.parts.iter().try_for_each(|part| part.show(places))?;
        umount2(DEVICE, MntFlags::MNT_DETACH).map_err(ShareError::Close)
    }
}

impl Part<'_> {
    fn make_place(&self, places: &Places) -> Result<OwnedFd, ShareError> {
        let target = self.place.target.as_str();
        let made = match self.is_folder {
            true => places.directory(target, 0o755, Obstacle::Kept),
            false => places.file_place(target),
        };
        made.map_err(ShareError::Place)
    }

    fn show(&self, places: &Places) -> Result<(), ShareError> {
        // It may lie in a part that came to its own place before.
        let under = self.make_place(places)?;
        if self.place.filled && self.is_folder {
            self.fill(&under)?;
        }
        let none = None::<&str>;
        let failed = |source| ShareError::Mount {
            target: self.place.target.clone(),
            source,
        };
        let under = path_of(&under);
        let source = Some(self.source.as_path());
        mount(source, under.as_str(), none, MsFlags::MS_BIND, none).map_err(failed)?;
        if self.place.read_only {
            let shown = places.find(&self.place.target).map_err(failed)?;
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | FLAGS;
            mount(none, path_of(&shown).as_str(), none, flags, none).map_err(failed)?;
        }
        Ok(())
    }

    /// Gives an empty folder what the image has at its place. The host gives away no
    /// file, so all of it belongs to who owns the folder.
    fn fill(&self, image: &OwnedFd) -> Result<(), ShareError> {
        let failed = |source| ShareError::Empty {
            target: self.place.target.clone(),
            source,
        };
        let is_used = fs::read_dir(&self.source).map_err(failed)?.next().is_some();
        if is_used || is_empty(image).map_err(failed)? {
            return Ok(());
        }
        let mode = fs::metadata(path_of(image)).map_err(failed)?.permissions();
        let content = format!("{}/.", path_of(image));
        copy(Path::new(&content), &self.source, false).map_err(|source| ShareError::Copy {
            target: self.place.target.clone(),
            source,
        })?;
        let mode = Permissions::from_mode(mode.mode() & 0o777);
        fs::set_permissions(&self.source, mode).map_err(failed)
    }
}
