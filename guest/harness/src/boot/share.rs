//! The folder the host shares.

use aegis_link::message::{Share, ShareKind};
use nix::mount::{MsFlags, mount};

use super::places::{Obstacle, PlaceError, Places};

/// Bytes of one 9p message: the largest that the virtio transport of Linux
/// takes is 500 KiB (net/9p/trans_virtio.c), and larger is faster.
const NINE_P_OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=512000,access=client";

/// Why the folder is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShareError {
    #[error("{target:?} is not an absolute path")]
    Target { target: String },
    #[error("Cannot make the place of the folder")]
    Place(#[source] PlaceError),
    #[error("Cannot mount the {kind} device {tag:?} at {target}")]
    Mount {
        kind: &'static str,
        tag: String,
        target: String,
        #[source]
        source: nix::Error,
    },
}

/// Makes the directory that the folder is mounted on.
pub(super) fn make_place(share: &Share, places: &Places) -> Result<(), ShareError> {
    if !share.target.starts_with('/') {
        return Err(ShareError::Target {
            target: share.target.clone(),
        });
    }
    places
        .directory(&share.target, 0o755, Obstacle::Kept)
        .map(drop)
        .map_err(ShareError::Place)
}

/// Mounts the folder in the running root.
pub(super) fn mount_share(share: &Share) -> Result<(), ShareError> {
    let target = share.target.as_str();
    let (kind, options) = match share.kind {
        ShareKind::Virtiofs => ("virtiofs", ""),
        ShareKind::NineP => ("9p", NINE_P_OPTIONS),
    };
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if share.read_only {
        flags |= MsFlags::MS_RDONLY;
    }
    mount(
        Some(share.tag.as_str()),
        target,
        Some(kind),
        flags,
        Some(options),
    )
    .map_err(|source| ShareError::Mount {
        kind,
        tag: share.tag.clone(),
        target: target.to_owned(),
        source,
    })
}
