//! Turning a `Boot` message into a running root: clock, name, layers, share.
//!
//! Done step by step and synchronously; a step that fails ends it with a fault
//! that names the step. Nothing is undone: a guest that cannot boot is ended by
//! its host.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aegis_link::message::{Boot, Fault, Symbol};
use nix::mount::{MsFlags, mount};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::sethostname;

use crate::network;

mod root;
mod share;

/// Why the guest is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("Cannot set the clock")]
    Clock(#[source] nix::Error),
    #[error("Cannot set the host name {name:?}")]
    HostName {
        name: String,
        #[source]
        source: nix::Error,
    },
    #[error("Cannot assemble the root file system")]
    Root(#[source] root::RootError),
    #[error("Cannot mount the shared folder")]
    Share(#[source] share::ShareError),
    #[error("Cannot make {path}")]
    File {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("Cannot mount {path}")]
    Mount {
        path: &'static str,
        #[source]
        source: nix::Error,
    },
    #[error("Cannot bring up the loopback interface")]
    Loopback(#[source] io::Error),
}

impl BootError {
    /// The failure as the host is told of it, with all causes in one line.
    pub(crate) fn fault(&self) -> Fault {
        let symbol = match self {
            BootError::Root(root::RootError::NoDisk { .. }) => Symbol::BootDeviceMissing,
            BootError::Root(_) | BootError::Mount { .. } => Symbol::BootMountFailed,
            BootError::Share(_) => Symbol::BootShareFailed,
            _ => Symbol::BootFailed,
        };
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        Fault::new(symbol, message)
    }
}

/// Becomes what the host asks for. Gives a descriptor of the writable disk, if
/// there is one, for [`crate::stop`].
pub(crate) fn boot(boot: &Boot) -> Result<Option<File>, BootError> {
    set_clock(boot.time_ns).map_err(BootError::Clock)?;
    sethostname(&boot.hostname).map_err(|source| BootError::HostName {
        name: boot.hostname.clone(),
        source,
    })?;
    let upper = root::assemble(&boot.root).map_err(BootError::Root)?;
    mount_more()?;
    network::loopback_up().map_err(BootError::Loopback)?;
    name_files(&boot.hostname)?;
    if let Some(share) = &boot.share {
        share::mount_share(share).map_err(BootError::Share)?;
    }
    Ok(upper)
}

/// Sets the wall clock, in nanoseconds since the Unix epoch.
pub(crate) fn set_clock(time_ns: u64) -> nix::Result<()> {
    let time = std::time::Duration::from_nanos(time_ns);
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(time))
}

/// Mounts what programs expect beside /proc, /sys and /dev. Control groups are
/// the one thing that many programs do without.
fn mount_more() -> Result<(), BootError> {
    const PRIVATE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
    for (kind, path, flags, options) in [
        (
            "devpts",
            "/dev/pts",
            MsFlags::MS_NOSUID,
            "gid=5,mode=620,ptmxmode=666",
        ),
        ("tmpfs", "/dev/shm", PRIVATE, "mode=1777"),
        ("tmpfs", "/run", PRIVATE, "mode=755"),
        (
            "cgroup2",
            "/sys/fs/cgroup",
            PRIVATE.union(MsFlags::MS_NOEXEC),
            "",
        ),
    ] {
        let made = fs::create_dir_all(path);
        let mounted = mount(Some(kind), path, Some(kind), flags, Some(options));
        if kind != "cgroup2" {
            made.map_err(|source| BootError::File { path, source })?;
            mounted.map_err(|source| BootError::Mount { path, source })?;
        }
    }
    for (path, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        match std::os::unix::fs::symlink(target, path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(BootError::File { path, source });
            }
            _ => {}
        }
    }
    if !Path::new("/tmp").exists() {
        let path = "/tmp";
        fs::create_dir(path)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o1777)))
            .map_err(|source| BootError::File { path, source })?;
    }
    Ok(())
}

/// Writes the files about names that an image leaves to its runtime. One that
/// the image has stays, but for the host name.
fn name_files(hostname: &str) -> Result<(), BootError> {
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
    );
    let directory = "/etc";
    fs::create_dir_all(directory).map_err(|source| BootError::File {
        path: directory,
        source,
    })?;
    for (path, text, replace) in [
        ("/etc/hostname", format!("{hostname}\n"), true),
        ("/etc/hosts", hosts, false),
        (
            "/etc/resolv.conf",
            "# This guest has no name server.\n".to_owned(),
            false,
        ),
    ] {
        if replace || !Path::new(path).exists() {
            fs::write(path, text).map_err(|source| BootError::File { path, source })?;
        }
    }
    Ok(())
}
