//! The root file system: read-only layers and a writable one, put together by
//! overlayfs and made the root of everything.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aegis_link::message::{Root, Upper};
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};

/// Places in the initramfs, which nobody sees after the switch.
const LAYERS: &str = "/layers";
const WRITABLE: &str = "/writable";
const ROOT: &str = "/root";

/// Kinds of file system a layer may be.
const LAYER_KINDS: [&str; 2] = ["squashfs", "erofs"];

/// Mode bits of the writable layer's top, which becomes the mode of `/`.
const ROOT_MODE: u32 = 0o755;

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error("There is no disk with the serial {serial:?}")]
    NoDisk { serial: String },
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
    #[error("Cannot switch to the new root")]
    Switch(#[source] nix::Error),
    #[error("Cannot open the writable disk")]
    Open(#[source] io::Error),
}

/// Mounts the layers, overlays the writable one and makes the result `/`.
/// Gives a descriptor of the writable disk, which has no path afterwards.
pub(crate) fn assemble(root: &Root) -> Result<Option<File>, RootError> {
    let mut lower = Vec::new();
    for (number, serial) in root.layers.iter().enumerate() {
        let place = format!("{LAYERS}/{number}");
        make_directory(&place)?;
        mount_layer(&disk(serial)?, &place)?;
        lower.push(place);
    }
    if lower.is_empty() {
        return Err(RootError::NoLayer);
    }
    // Overlayfs takes the topmost layer first.
    lower.reverse();

    make_directory(WRITABLE)?;
    let upper = match &root.upper {
        Upper::Tmpfs => {
            do_mount("tmpfs", WRITABLE, "tmpfs", MsFlags::empty(), "mode=755")?;
            None
        }
        Upper::Disk { serial } => {
            let device = disk(serial)?;
            do_mount(
                &device.to_string_lossy(),
                WRITABLE,
                "ext4",
                MsFlags::MS_NOATIME,
                "",
            )?;
            Some(
                OpenOptions::new()
                    .read(true)
                    .custom_flags(libc::O_DIRECTORY)
                    .open(WRITABLE)
                    .map_err(RootError::Open)?,
            )
        }
    };
    let (upper_directory, work) = (format!("{WRITABLE}/upper"), format!("{WRITABLE}/work"));
    for path in [&upper_directory, &work] {
        make_directory(path)?;
    }
    make_directory(ROOT)?;
    let options = format!(
        "lowerdir={},upperdir={upper_directory},workdir={work}",
        lower.join(":")
    );
    do_mount("overlay", ROOT, "overlay", MsFlags::empty(), &options)?;
    switch()?;
    Ok(upper)
}

/// Moves the kernel's file systems over and makes the overlay the root of the
/// mount namespace. A mere chroot would keep programs from making user
/// namespaces (user_namespaces(7)).
fn switch() -> Result<(), RootError> {
    for name in ["dev", "proc", "sys"] {
        let place = format!("{ROOT}/{name}");
        make_directory(&place)?;
        do_mount(&format!("/{name}"), &place, "", MsFlags::MS_MOVE, "")?;
    }
    chdir(ROOT).map_err(RootError::Switch)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .and_then(|()| chroot("."))
        .and_then(|()| chdir("/"))
        .map_err(RootError::Switch)
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
        .mode(ROOT_MODE)
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
}
