//! What the service manager says about units.

use std::fmt;

use aegis_core::layout::Mode;

use super::plan::Limits;
use super::{Capabilities, UnitId};

/// A service manager and what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// For people: `systemd 257`, `launchd`.
    pub name: String,
    /// The manager's major version; 0 where it has none.
    pub version: u32,
    /// Whose manager it is.
    pub mode: Mode,
    /// When this run of the manager began, in microseconds since 1970. A unit that
    /// is gone although this value is still the same was stopped by someone.
    pub started_at: u64,
    /// Whether units outlive the user's logout. `None`: does not apply (system
    /// mode) or is not known.
    pub lingering: Option<bool>,
    pub capabilities: Capabilities,
}

/// The manager's coarse state of a unit (`ActiveState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    Active,
    Reloading,
    Inactive,
    Failed,
    /// Starting, or waiting to be restarted (see [`UnitState::is_restarting`]).
    Activating,
    Deactivating,
}

/// How a service's run ended (`Result`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunResult {
    Success,
    /// Ended with a code that is not zero.
    ExitCode,
    /// Killed by a signal it did not expect.
    Signal,
    /// Killed by a signal, with a core dump.
    CoreDump,
    /// Did not prove to be alive in time.
    Watchdog,
    /// Did not start or stop in time.
    Timeout,
    /// Killed for memory.
    OutOfMemory,
    /// Did not say that it is ready.
    Protocol,
    /// The manager could not set it up.
    Resources,
    /// A word of the manager that has no name here.
    Other(String),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// Exit code, 0 to 255. Codes from 200 on are the manager's own where the
    /// process could not be set up (systemd.exec(5), "Process Exit Codes").
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// The exit code by which a daemon says that its configuration must change
/// before it is worth another start (`EX_CONFIG` of sysexits(3)).
pub const EXIT_CONFIG: i32 = 78;

/// One unit as the manager has it at this instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    pub unit: UnitId,
    pub active: Active,
    /// The manager's finer state in its own words, e.g. `running`, `auto-restart`.
    pub sub: String,
    /// How the current or last run ended; `Success` while it has not.
    pub result: RunResult,
    /// How often the manager restarted it by itself since the delay started over.
    pub restarts: u32,
    /// When the manager will start it again, in microseconds since 1970; set only while it waits.
    pub next_restart: Option<u64>,
    pub main_pid: Option<u32>,
    /// Which run of the unit this is or was, in the manager's own words; empty where it
    /// has none, or never ran.
    pub run: String,
    /// How the main process last ended; `None` while none has.
    pub last_end: Option<ProcessEnd>,
    /// When its main process was last started, in microseconds since 1970; 0 if never.
    pub started: u64,
    /// Since when it is in this state, in microseconds since 1970; 0 if never.
    pub since: u64,
    /// The cgroup below the cgroup root; empty where there are none or no process runs.
    pub control_group: String,
    /// What the service last said about itself.
    pub status: String,
    /// A stop job is under way, ours or someone's by hand.
    pub stopping: bool,
    /// The limits it is held to; none for a unit without processes.
    pub limits: Limits,
}

impl UnitState {
    /// A unit of which nothing is known but this.
    pub(crate) fn without_process(unit: UnitId, active: Active) -> Self {
        Self {
            unit,
            active,
            sub: String::new(),
            result: RunResult::Success,
            restarts: 0,
            next_restart: None,
            main_pid: None,
            run: String::new(),
            last_end: None,
            started: 0,
            since: 0,
            control_group: String::new(),
            status: String::new(),
            stopping: false,
            limits: Limits::default(),
        }
    }

    /// A unit that ended by itself with code 0 and is kept for people to see.
    pub fn has_exited(&self) -> bool {
        self.active == Active::Active && self.sub == "exited"
    }

    /// Failed, and now waits for its delay to be over.
    pub fn is_restarting(&self) -> bool {
        self.next_restart.is_some() || self.sub.starts_with("auto-restart")
    }

    /// Whether its last run ended for want of memory on the host.
    pub fn want_of_memory(&self) -> Option<WantOfMemory> {
        let ended = self.active == Active::Failed || self.is_restarting();
        let limit = self.limits.memory_max;
        (ended && self.result == RunResult::OutOfMemory).then_some(WantOfMemory { limit })
    }

    /// Ended because its configuration must change first.
    pub fn waits_for_config(&self) -> bool {
        self.active == Active::Failed && self.last_end == Some(ProcessEnd::Code(EXIT_CONFIG))
    }
}

/// That a unit was killed for want of memory. It happens at its limit, or because the
/// host itself has none left; which of both it was the manager does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantOfMemory {
    /// Its limit in bytes.
    pub limit: Option<u64>,
}

impl fmt::Display for WantOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory on the host")?;
        match self.limit {
            Some(bytes) => write!(f, ", where its limit is {} MiB", bytes >> 20),
            None => Ok(()),
        }
    }
}

/// What a unit uses. A figure that the manager does not account for is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Nanoseconds of CPU time since it was started.
    pub cpu_ns: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
}

/// Something that happened to a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its state is another; `list` says which.
    Changed(UnitId),
    /// A stop job ended it, ours or somebody's: an act, not an accident.
    Stopped(UnitId),
    /// The manager no longer knows it.
    Gone(UnitId),
    /// More happened than could be kept: `list` to know what is so.
    Missed,
}
