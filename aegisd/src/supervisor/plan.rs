//! Units as plain data, the same for every service manager.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aegis_core::handle::Handle;
use aegis_core::restart::RestartPolicy;

use super::UnitId;

/// A program and its arguments.
///
/// Only `[A-Za-z0-9/_.,:=@+-]`: systemd 252 writes arguments to a file and reads
/// some other characters back wrong. What users wrote is in a spec file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Absolute.
    pub path: PathBuf,
    pub arguments: Vec<String>,
}

/// Whether a unit can carry a path: absolute, and only `[A-Za-z0-9/_.,=@+-]`. A
/// colon parts the fields of a bind; the others are read back wrong after a reload
/// of the manager, some of them at once, and which ones differs by version.
pub fn is_plain_path(path: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_.,=@+-".contains(c);
    path.is_absolute() && path.to_str().is_some_and(|text| text.chars().all(plain))
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A unix stream socket, mode 0600; a stale file of that name is replaced.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

/// The resources a unit may use; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, all processes together.
    pub memory_max: Option<u64>,
    /// Processes and threads.
    pub tasks_max: Option<u64>,
    /// Per cent of one CPU.
    pub cpu_percent: Option<u32>,
}

/// What of the host a confined unit can reach beyond the read-only operating
/// system: nothing of the home directories and of `/run` but this. Only plain
/// paths ([`is_plain_path`]); one that is a link shows what it leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Files and folders it may read.
    pub read_only: Vec<PathBuf>,
    /// Files and folders it may write. Must exist when the unit starts.
    pub writable: Vec<PathBuf>,
    /// Files and folders it may write if they are there when it starts.
    pub writable_if_there: Vec<PathBuf>,
    /// It may not use the network.
    pub no_network: bool,
}

/// Whether a unit is confined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// Confined to this.
    Reach(Reach),
    /// Not at all: the user asked for it by name (`--insecure`).
    Waived,
}

/// Fields that log lines of the unit carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFields {
    /// `AEGIS_KIT`.
    pub kit: Option<String>,
}

/// An instance at rest: its group, its sockets, the VM's service behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstancePlan {
    pub handle: Handle,
    /// aegis-vmm.
    pub program: Program,
    /// The control socket first.
    pub listen: Vec<Listen>,
    /// How long an orderly stop may take before every process is killed.
    pub stop_timeout: Duration,
    /// aegis-vmm shows that its loop turns at least this often.
    pub watchdog: Duration,
    /// What follows an end of aegis-vmm that nobody asked for.
    pub restart: RestartPolicy,
    /// The socket that answers with the unit's credential at each start.
    pub credentials: Option<PathBuf>,
    pub limits: Limits,
    pub confinement: Confinement,
    pub log: LogFields,
}

/// A socket that listens for as long as its instance is enabled, and the program behind
/// it, which brings the listening socket to who serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorPlan {
    pub socket: UnitId,
    pub door: UnitId,
    /// What people call it, e.g. `API socket`.
    pub label: String,
    /// One of a unix socket belongs to the user of the units.
    pub listen: Listen,
    /// aegis-shim.
    pub program: Program,
    pub confinement: Confinement,
}

/// When a daemon counts as started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Once its program runs.
    Started,
    /// When it says so (sd_notify(3)).
    Notify,
}

/// When the manager starts a daemon again by itself. An end with code 78 means that
/// its configuration must change first, whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restarts {
    /// After failures.
    OnFailure,
    /// After every end but a stop.
    Always,
    /// Never.
    Never,
}

/// One instance daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonPlan {
    pub handle: Handle,
    /// The daemon's name within its instance.
    pub daemon: String,
    /// What people call it, e.g. `Gateway`.
    pub label: String,
    /// aegis-shim, which becomes the daemon.
    pub program: Program,
    /// aegis-shim as it is called after each run, where it keeps the back-off.
    pub ended: Program,
    /// Where aegis-shim keeps the back-off if the manager does not. The folder
    /// must be writable for the unit.
    pub back_off: PathBuf,
    pub readiness: Readiness,
    pub restarts: Restarts,
    /// The longest delay between two restarts; it begins at 100 ms.
    pub restart_max_delay: Duration,
    /// How long it may take to stop before every process is killed.
    pub stop_timeout: Duration,
    /// The socket that answers with the unit's credential at each start.
    pub credentials: Option<PathBuf>,
    pub limits: Limits,
    pub confinement: Confinement,
    pub log: LogFields,
}

/// A program of ours that does one thing for aegisd and ends. It belongs to no
/// instance and outlives the aegisd that started it.
#[derive(Debug)]
pub struct HelperPlan {
    /// The unit's name without its suffix; nobody else's.
    pub name: String,
    /// What people read in lists.
    pub description: String,
    pub program: Program,
    /// Its standard input.
    pub input: OwnedFd,
    pub confinement: Confinement,
}
