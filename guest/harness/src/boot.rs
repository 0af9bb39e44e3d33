//! Turning a `Boot` message into a running root: clock, name, layers, places, shares.
//!
//! Done step by step and synchronously; a step that fails ends it with a fault
//! that names the step. Nothing is undone: a guest that cannot boot is ended by
//! its host.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use aegis_link::message::{Boot, Fault, Root, Symbol};
use nix::mount::{MsFlags, mount};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::sethostname;

use crate::network::{self, NetworkError};

mod grow;
mod memory;
mod places;
mod root;
mod share;

use places::{Keep, Obstacle, PlaceError, Places};

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
    #[error("Cannot make the root of the image ready")]
    Place(#[source] PlaceError),
    #[error("Cannot make a directory of the root memory")]
    Memory(#[source] memory::MemoryError),
    #[error("Cannot show what the host shares")]
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
    #[error("Cannot set up the network")]
    Network(#[source] NetworkError),
}

impl BootError {
    /// The failure as the host is told of it, with all causes in one line.
    pub(crate) fn fault(&self) -> Fault {
        let symbol = match self {
            BootError::Root(
                root::RootError::NoDisk { .. } | root::RootError::NoPartition { .. },
            ) => Symbol::BootDeviceMissing,
            BootError::Root(_) | BootError::Memory(_) | BootError::Mount { .. } => {
                Symbol::BootMountFailed
            }
            BootError::Share(_) => Symbol::BootShareFailed,
            _ => Symbol::BootFailed,
        };
        Fault::new(symbol, chain(self))
    }
}

/// An error with all its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    message
}

/// Becomes what the host asks for. Gives a descriptor of the writable disk, if
/// there is one, for [`crate::stop`].
pub(crate) fn boot(boot: &Boot) -> Result<Option<File>, BootError> {
    set_clock(boot.time_ns).map_err(BootError::Clock)?;
    sethostname(&boot.hostname).map_err(|source| BootError::HostName {
        name: boot.hostname.clone(),
        source,
    })?;
    let root = root::assemble(&boot.root).map_err(BootError::Root)?;
    let share = boot.share.as_ref().map(share::open).transpose();
    let share = share.map_err(BootError::Share)?;
    prepare(boot, share.as_ref())?;
    if boot.root.read_only {
        root.seal().map_err(BootError::Root)?;
    }
    let places = Places::of(Path::new(root::ROOT)).map_err(BootError::Place)?;
    for path in memory_of(&boot.root) {
        memory::mount_memory(&places, path).map_err(BootError::Memory)?;
    }
    if let Some(share) = share {
        share.show(&places).map_err(BootError::Share)?;
    }
    drop(places);
    let upper = root.switch().map_err(BootError::Root)?;
    mount_more()?;
    network::loopback_up().map_err(BootError::Network)?;
    if let Some(wanted) = &boot.network {
        network::configure(wanted).map_err(BootError::Network)?;
    }
    Ok(upper)
}

/// Directories of a root that are memory.
fn memory_of(root: &Root) -> &'static [&'static str] {
    if root.read_only {
        &["/run", "/tmp", "/var/tmp"]
    } else {
        &["/run"]
    }
}

/// Gives the root what it lacks, while it can be written to and nothing is mounted
/// in it.
fn prepare(boot: &Boot, share: Option<&share::Opened<'_>>) -> Result<(), BootError> {
    let places = Places::of(Path::new(root::ROOT)).map_err(BootError::Place)?;
    for name in ["dev", "proc", "sys"] {
        places.own_directory(name).map_err(BootError::Place)?;
    }
    for (path, mode) in [("/run", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777)] {
        if path == "/tmp" || memory_of(&boot.root).contains(&path) {
            let made = places.directory(path, mode, Obstacle::Replaced);
            made.map_err(BootError::Place)?;
        }
    }
    name_files(&places, boot).map_err(BootError::Place)?;
    if let Some(share) = share {
        share.make_places(&places).map_err(BootError::Share)?;
    }
    match &boot.workdir {
        Some(path) if path.starts_with('/') => {
            match places.directory(path, 0o755, Obstacle::Kept) {
                // The program that starts there tells what is wrong with it.
                Ok(_) | Err(PlaceError::Taken { .. }) => Ok(()),
                Err(error) => Err(BootError::Place(error)),
            }
        }
        _ => Ok(()),
    }
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
    Ok(())
}

/// Writes the files about names that an image leaves to its runtime. The host name and
/// the name server are the instance's, whatever the image says; a list of hosts that the
/// image has filled stays.
fn name_files(places: &Places, boot: &Boot) -> Result<(), PlaceError> {
    let hostname = &boot.hostname;
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
    );
    places.file("/etc", "hostname", &format!("{hostname}\n"), Keep::Same)?;
    places.file("/etc", "hosts", &hosts, Keep::Filled)?;
    let (resolver, keep) = match &boot.network {
        // One of where the image was made would not answer here.
        Some(network) => (format!("nameserver {}\n", network.name_server), Keep::Same),
        None => (
            "# This guest has no name server.\n".to_owned(),
            Keep::Filled,
        ),
    };
    places.file("/etc", "resolv.conf", &resolver, keep)
}
