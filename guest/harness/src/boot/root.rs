//! The root file system: read-only layers and a writable one, put together by
//! overlayfs and made the root of everything.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use aegis_link::message::{Root, Upper};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot};

use super::grow;
use crate::console::say;

/// Places in the initramfs, which nobody sees after the switch. The paths of all
/// layers have to fit into one page of mount options.
const LAYERS: &str = "/layers";
const WRITABLE: &str = "/writable";
pub(super) const ROOT: &str = "/root";

/// Where the directories for what is written are.
const UPPER: &str = "/writable/upper";
const WORK: &str = "/writable/work";

/// Kinds of file system a layer may be.
const LAYER_KINDS: [&str; 2] = ["squashfs", "erofs"];

/// Mode bits of directories in the initramfs.
const PLACE_MODE: u32 = 0o755;

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error("There is no disk with the serial {serial:?}")]
    NoDisk { serial: String },
    #[error("The disk with the serial {serial:?} has no partition {number}")]
    NoPartition { serial: String, number: u32 },
    #[error("No layer was named")]
    NoLayer,
    #[error("Cannot make {path}")]
    Directory {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("Cannot mount {what} at {path}")]
    Mount {
        what: String,
        path: String,
        #[source]
        source: nix::Error,
    },
    #[error("Cannot give the root the mode and the owner that it has in the image")]
    Attributes(#[source] io::Error),
    #[error("Cannot release the writable root")]
    Release(#[source] nix::Error),
    #[error("Cannot switch to the new root")]
    Switch(#[source] nix::Error),
    #[error("Cannot open the writable disk")]
    Open(#[source] io::Error),
}

/// A root that is assembled at [`ROOT`] and can be written to.
#[derive(Debug)]
pub(super) struct Assembled {
    /// In the order of overlayfs: the topmost first.
    lower: Vec<String>,
    /// The writable disk, which has no path after the switch.
    upper: Option<File>,
}

/// Mounts the layers and overlays the writable one.
pub(super) fn assemble(root: &Root) -> Result<Assembled, RootError> {
    let (first, more) = root.layers.split_first().ok_or(RootError::NoLayer)?;
    let mut devices = match root.partitions {
        None => vec![disk(first)?],
        Some(count) => partitions(first, count)?,
    };
    // The image's own layers; what is above them belongs to its surroundings.
    let top = devices.len().checked_sub(1).ok_or(RootError::NoLayer)?;
    for serial in more {
        devices.push(disk(serial)?);
    }
    let mut lower = Vec::new();
    for (number, device) in devices.iter().enumerate() {
        let place = format!("{LAYERS}/{number}");
        make_directory(&place)?;
        mount_layer(device, &place)?;
        lower.push(place);
    }

    make_directory(WRITABLE)?;
    let upper = mount_writable(&root.upper)?;
    make_upper(&lower[top]).map_err(RootError::Attributes)?;
    make_directory(WORK)?;
    make_directory(ROOT)?;
    lower.reverse();
    let options = format!(
        "lowerdir={},upperdir={UPPER},workdir={WORK}",
        lower.join(":")
    );
    do_mount("overlay", ROOT, "overlay", MsFlags::empty(), &options)?;
    Ok(Assembled { lower, upper })
}

impl Assembled {
    /// Mounts the root once more so that it cannot be written to. One without an
    /// upper layer stays so even for who may mount anew.
    pub(super) fn seal(&self) -> Result<(), RootError> {
        umount2(ROOT, MntFlags::empty()).map_err(RootError::Release)?;
        let options = format!("lowerdir={UPPER}:{}", self.lower.join(":"));
        do_mount("overlay", ROOT, "overlay", MsFlags::MS_RDONLY, &options)
    }

    /// Moves the kernel's file systems over and makes the overlay the root of the
    /// mount namespace. A mere chroot would keep programs from making user
    /// namespaces (user_namespaces(7)). Gives a descriptor of the writable disk.
    pub(super) fn switch(self) -> Result<Option<File>, RootError> {
        for name in ["dev", "sys", "proc"] {
            let place = format!("{ROOT}/{name}");
            do_mount(&format!("/{name}"), &place, "", MsFlags::MS_MOVE, "")?;
        }
        chdir(ROOT).map_err(RootError::Switch)?;
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .and_then(|()| chroot("."))
            .and_then(|()| chdir("/"))
            .map_err(RootError::Switch)?;
        Ok(self.upper)
    }
}

/// Mounts what takes the writes.
fn mount_writable(upper: &Upper) -> Result<Option<File>, RootError> {
    match upper {
        Upper::Tmpfs => {
            do_mount("tmpfs", WRITABLE, "tmpfs", MsFlags::empty(), "mode=755")?;
            Ok(None)
        }
        Upper::Disk { serial } => {
            let device = disk(serial)?;
            // What is deleted here becomes a hole in the host's file.
            do_mount(
                &device.to_string_lossy(),
                WRITABLE,
                "ext4",
                MsFlags::MS_NOATIME,
                "discard",
            )?;
            let mounted = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_DIRECTORY)
                .open(WRITABLE)
                .map_err(RootError::Open)?;
            // A guest with less room than it may have is better than none.
            if let Err(error) = grow::to_device(&mounted, &device) {
                say(&format!("aegis-harness: the disk cannot grow: {error}"));
            }
            Ok(Some(mounted))
        }
    }
}

/// Makes the upper directory, whose mode and owner are those of `/`: they are those
/// that the image's topmost layer has. It appears with them or not at all, so one
/// that is there was made so, or changed by the guest.
fn make_upper(top: &str) -> io::Result<()> {
    let fresh = format!("{WRITABLE}/new");
    if Path::new(UPPER).exists() {
        return Ok(());
    }
    let image = fs::metadata(top)?;
    fs::create_dir_all(&fresh)?;
    chown(&fresh, Some(image.uid()), Some(image.gid()))?;
    fs::set_permissions(&fresh, Permissions::from_mode(image.mode() & 0o7777))?;
    fs::rename(&fresh, UPPER)
}

fn mount_layer(device: &Path, place: &str) -> Result<(), RootError> {
    let device = device.to_string_lossy();
    let mut outcome = Ok(());
    for kind in LAYER_KINDS {
        outcome = do_mount(&device, place, kind, MsFlags::MS_RDONLY, "");
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// The first partitions of a disk, in their order.
fn partitions(serial: &str, count: u32) -> Result<Vec<PathBuf>, RootError> {
    let class = Path::new("/sys/block");
    let name = named_disk(class, serial).ok_or_else(|| RootError::NoDisk {
        serial: serial.to_owned(),
    })?;
    let found = numbered_partitions(&class.join(name));
    let device = |number| {
        let name = found.get(&number).ok_or_else(|| RootError::NoPartition {
            serial: serial.to_owned(),
            number,
        })?;
        Ok(Path::new("/dev").join(name))
    };
    (1..=count).map(device).collect()
}

/// The names of a disk's partitions by their number.
fn numbered_partitions(disk: &Path) -> HashMap<u32, String> {
    let entries = fs::read_dir(disk).into_iter().flatten();
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = fs::read_to_string(entry.path().join("partition")).ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((number.trim_end().parse().ok()?, name))
        })
        .collect()
}

/// The block device with a serial, whatever its name is this time.
fn disk(serial: &str) -> Result<PathBuf, RootError> {
    named_disk(Path::new("/sys/block"), serial)
        .map(|name| Path::new("/dev").join(name))
        .ok_or_else(|| RootError::NoDisk {
            serial: serial.to_owned(),
        })
}

fn named_disk(class: &Path, serial: &str) -> Option<String> {
    fs::read_dir(class)
        .ok()?
        .filter_map(Result::ok)
        .find_map(|entry| {
            let found = fs::read_to_string(entry.path().join("serial")).ok()?;
            (found.trim_end() == serial).then(|| entry.file_name().to_string_lossy().into_owned())
        })
}

fn make_directory(path: &str) -> Result<(), RootError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PLACE_MODE)
        .create(path)
        .map_err(|source| RootError::Directory {
            path: path.to_owned(),
            source,
        })
}

fn do_mount(
    what: &str,
    path: &str,
    kind: &str,
    flags: MsFlags,
    options: &str,
) -> Result<(), RootError> {
    mount(Some(what), path, Some(kind), flags, Some(options)).map_err(|source| RootError::Mount {
        what: what.to_owned(),
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_by_its_serial() {
        let class = tempfile::tempdir().unwrap();
        for (disk, serial) in [
            ("loop0", None),
            ("vda", Some("base")),
            ("vdb", Some("upper")),
        ] {
            fs::create_dir(class.path().join(disk)).unwrap();
            if let Some(serial) = serial {
                fs::write(class.path().join(disk).join("serial"), serial).unwrap();
            }
        }
        assert_eq!(named_disk(class.path(), "upper").as_deref(), Some("vdb"));
        assert_eq!(named_disk(class.path(), "up"), None);
    }

    #[test]
    fn partitions_are_found_by_their_number() {
        let disk = tempfile::tempdir().unwrap();
        for (name, number) in [("vda1", "1"), ("vda10", "10"), ("vda2", "2")] {
            fs::create_dir(disk.path().join(name)).unwrap();
            fs::write(disk.path().join(name).join("partition"), number).unwrap();
        }
        fs::create_dir(disk.path().join("queue")).unwrap();
        let found = numbered_partitions(disk.path());
        assert_eq!(found.len(), 3);
        assert_eq!(found.get(&10).map(String::as_str), Some("vda10"));
    }
}
