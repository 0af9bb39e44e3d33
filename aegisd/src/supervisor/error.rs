//! What can go wrong between aegisd and the service manager.

use std::io;
use std::path::PathBuf;

use super::state::{ProcessEnd, RunResult, WantOfMemory};

/// The failure of a backend below the words of this module.
pub type BackendError = Box<dyn std::error::Error + Send + Sync>;

/// How a job of the manager ended, other than done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// The unit did not get there.
    Failed,
    /// Another job took its place, e.g. a stop by hand.
    Canceled,
    /// The manager's own deadline passed.
    Timeout,
    /// A unit it depends on failed.
    Dependency,
    /// It did not apply to the unit's state.
    Skipped,
}

/// Why a call to the service manager failed.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// There is no manager to talk to.
    #[error("cannot reach the service manager at {address}")]
    Unreachable {
        address: String,
        #[source]
        source: BackendError,
    },
    /// The bus socket belongs to another user, e.g. after `su` kept the environment.
    #[error("{path} belongs to user {owner}, not to user {expected}")]
    ForeignBus {
        path: PathBuf,
        owner: u32,
        expected: u32,
    },
    /// The manager is older than what can be supported.
    #[error("the service manager is systemd {version}; {oldest} or newer is needed")]
    TooOld { version: u32, oldest: u32 },
    /// The manager refused a call or answered nonsense.
    #[error("cannot {operation} {unit}")]
    Call {
        operation: &'static str,
        unit: String,
        #[source]
        source: BackendError,
    },
    /// A socket cannot listen on an address; the source tells "in use",
    /// "permission denied" and "not available" apart by its kind.
    #[error("cannot listen on {address} for {unit}")]
    Bind {
        unit: String,
        address: String,
        #[source]
        source: io::Error,
    },
    /// A job ended other than wanted.
    #[error("could not {operation} {unit}: the job ended as {end:?}, the unit as {result:?}")]
    Job {
        operation: &'static str,
        unit: String,
        end: JobEnd,
        /// How the unit's run ended; `None` where it has no runs.
        result: Option<RunResult>,
        last_end: Option<ProcessEnd>,
    },
    /// The unit was killed for want of memory on the host.
    #[error("{unit} was killed: {want}")]
    OutOfMemory { unit: String, want: WantOfMemory },
    /// The manager could not confine the unit's processes.
    #[error("{unit} could not be confined (exit code {code} of the service manager)")]
    NotConfined { unit: String, code: i32 },
    /// The manager hands out no credentials, and the unit's user cannot ask for one.
    #[error("{unit} has secrets, and this service manager can give it none")]
    NoCredentials { unit: String },
    /// It cannot be told which unit a process belongs to.
    #[error("cannot tell which unit the process {pid} belongs to")]
    Process {
        pid: u32,
        #[source]
        source: io::Error,
    },
    /// Confinement needs user namespaces, and this host forbids them.
    #[error("{unit} cannot be confined: {obstacle}")]
    NoUserNamespaces {
        unit: String,
        obstacle: &'static str,
    },
    /// Sockets cannot be made to listen while the service behind them runs.
    #[error("{unit} is closed and cannot be opened while {other} still runs")]
    StillRuns { unit: String, other: String },
    /// The manager does not know the unit.
    #[error("{unit} does not exist")]
    NotFound { unit: String },
    /// A word of a plan cannot be passed on unharmed: arguments hold only
    /// `[A-Za-z0-9/_.,:=@+-]`, and paths no colon either.
    #[error("{unit} cannot be given {word:?}, which holds characters a unit cannot carry")]
    Word { unit: String, word: String },
}
