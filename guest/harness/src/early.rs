//! The first moments: the kernel's own file systems and our limits.

use std::fs;
use std::io;

use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};

/// Descriptors the harness may have open: each connection and each session
/// takes a few. The hard limit is what systemd gives to services.
const SOFT_DESCRIPTORS: u64 = 65_536;
pub(crate) const HARD_DESCRIPTORS: u64 = 524_288;

/// Why the kernel's file systems are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EarlyError {
    #[error("Cannot make the directory {0}")]
    Directory(&'static str, #[source] io::Error),
    #[error("Cannot mount {0}")]
    Mount(&'static str, #[source] nix::Error),
}

/// Mounts /proc, /sys and /dev. An initramfs that a kernel unpacked has none of
/// them, not even mounted by CONFIG_DEVTMPFS_MOUNT.
pub(crate) fn mount_kernel_file_systems() -> Result<(), EarlyError> {
    for (kind, target, flags) in [
        (
            "proc",
            "/proc",
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        ),
        (
            "sysfs",
            "/sys",
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        ),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID),
    ] {
        fs::create_dir_all(target).map_err(|source| EarlyError::Directory(target, source))?;
        match mount(Some(kind), target, Some(kind), flags, None::<&str>) {
            // Mounted by the kernel already.
            Ok(()) | Err(nix::Error::EBUSY) => {}
            Err(source) => return Err(EarlyError::Mount(target, source)),
        }
    }
    Ok(())
}

/// Raises our descriptor limit. With the kernel's own one fewer connections
/// work, nothing else, so a failure is survived.
pub(crate) fn raise_descriptor_limit() {
    setrlimit(Resource::RLIMIT_NOFILE, SOFT_DESCRIPTORS, HARD_DESCRIPTORS).ok();
}
