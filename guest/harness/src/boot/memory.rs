//! Directories of the root that are memory: new at each boot, with what the image has
//! in them. Images rely on directories below /run that they made.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;

use aegis_archive::ArchiveError;
use aegis_archive::pack::{PackOptions, pack};
use aegis_archive::unpack::{UnpackOptions, unpack};
use nix::mount::{MsFlags, mount};

use super::places::{Obstacle, PlaceError, Places, is_empty, path_of};

/// Where one is filled before it is put in its place; in the initramfs.
const FRESH: &str = "/fresh";

/// Why a directory is not memory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("Cannot find {path}")]
    Place {
        path: &'static str,
        #[source]
        source: PlaceError,
    },
    #[error("Cannot read {path}")]
    Read {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("Cannot copy what the image has in {path} to memory")]
    Copy {
        path: &'static str,
        #[source]
        source: ArchiveError,
    },
    #[error("Cannot mount memory at {path}")]
    Mount {
        path: &'static str,
        #[source]
        source: nix::Error,
    },
}

/// Makes a directory of the root memory.
pub(super) fn mount_memory(places: &Places, path: &'static str) -> Result<(), MemoryError> {
    let read = |source| MemoryError::Read { path, source };
    let failed = |source| MemoryError::Mount { path, source };
    let place = places
        .directory(path, 0o755, Obstacle::Kept)
        .map_err(|source| MemoryError::Place { path, source })?;
    let image = fs::metadata(path_of(&place)).map_err(read)?;
    fs::create_dir_all(FRESH).map_err(read)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let none = None::<&str>;
    mount(Some("tmpfs"), FRESH, Some("tmpfs"), flags, none).map_err(failed)?;
    if !is_empty(&place).map_err(read)? {
        let source = format!("{}/.", path_of(&place));
        copy(Path::new(&source), Path::new(FRESH), true)
            .map_err(|source| MemoryError::Copy { path, source })?;
    }
    chown(FRESH, Some(image.uid()), Some(image.gid()))
        .and_then(|()| fs::set_permissions(FRESH, Permissions::from_mode(image.mode() & 0o7777)))
        .map_err(read)?;
    let place = path_of(&place);
    mount(Some(FRESH), place.as_str(), none, MsFlags::MS_MOVE, none).map_err(failed)
}

/// Copies the content of a directory to another one, with the owners of files or as
/// ours.
pub(super) fn copy(source: &Path, target: &Path, owners: bool) -> Result<(), ArchiveError> {
    let never = AtomicBool::new(false);
    let (reader, writer) = io::pipe().map_err(ArchiveError::Read)?;
    let packing = PackOptions {
        follow: false,
        owners,
    };
    let unpacking = UnpackOptions {
        whole: true,
        trusted: true,
        owners,
    };
    thread::scope(|scope| {
        let packed = scope.spawn(|| pack(source, writer, packing, &never));
        let unpacked = unpack(reader, target, unpacking, &never);
        let packed = packed.join();
        // What could not be unpacked keeps the other side from packing.
        unpacked?;
        match packed {
            Ok(packed) => packed.map(drop),
            Err(_) => Err(ArchiveError::Interrupted),
        }
    })
}
