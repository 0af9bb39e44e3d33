//! The daemon spec: what `aegis-shim daemon` reads before it becomes an instance
//! daemon. It exists because unit files must hold nothing of a user's: argv and
//! environment would be readable and are re-parsed at every daemon-reload.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::handle::Handle;

/// What `aegis-shim daemon --spec FILE` reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonSpec {
    pub instance: Handle,
    /// The daemon's name, unique in the instance.
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// The whole environment of the daemon but for what the unit's sandbox
    /// itself sets (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub env: BTreeMap<String, String>,
    /// The instance has secrets, which the unit's credential adds to `env`: the daemon
    /// starts only with it. Where there are none it starts whatever is the matter.
    #[serde(default)]
    pub needs_secrets: bool,
    /// Where it starts: its config folder.
    pub workdir: PathBuf,
    /// Where the shim keeps its back-off record where the manager has none.
    pub state_dir: PathBuf,
    /// Longest delay between two restarts, in milliseconds.
    pub restart_max_delay_ms: u64,
    /// Milliseconds of running after which the delays begin anew.
    pub restart_reset_after_ms: u64,
}
