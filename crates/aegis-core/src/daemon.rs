//! How an instance daemon is run: what manifests ask for and specs keep.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest delay between two restarts, in milliseconds, where nobody says otherwise.
pub const DEFAULT_RESTART_MAX_DELAY_MS: u64 = 60_000;
/// How long a daemon runs, in milliseconds, until the delays between its restarts
/// begin anew, where nobody says otherwise.
pub const DEFAULT_RESTART_RESET_AFTER_MS: u64 = 600_000;
/// How long a daemon may take to stop, in milliseconds, where nobody says otherwise.
pub const DEFAULT_STOP_TIMEOUT_MS: u64 = 10_000;
/// Most processes and threads of a daemon where nobody says otherwise: plenty for
/// any runtime's pools, and the end of a daemon that forks without end.
pub const DEFAULT_TASKS: u32 = 512;

/// One instance daemon of an instance, as the kit declared it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceDaemon {
    /// Unique in the instance; part of the unit's name.
    pub name: String,
    /// What `instance info` calls it.
    pub label: String,
    /// The program's file, as it was found at creation.
    pub program: PathBuf,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub restart: Restart,
    /// Longest delay between two restarts, in milliseconds.
    pub restart_max_delay_ms: u64,
    /// Milliseconds of running after which the delays begin anew.
    #[serde(default = "default_restart_reset_after_ms")]
    pub restart_reset_after_ms: u64,
    #[serde(default)]
    pub ready: Ready,
    /// Milliseconds between SIGTERM and SIGKILL.
    #[serde(default = "default_stop_timeout_ms")]
    pub stop_timeout_ms: u64,
    #[serde(default)]
    pub limits: DaemonLimits,
    #[serde(default)]
    pub sandbox: DaemonSandbox,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<DaemonConfig>,
}

impl InstanceDaemon {
    /// A daemon about which nothing more was said.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        let name = name.into();
        Self {
            label: name.clone(),
            name,
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            restart: Restart::default(),
            restart_max_delay_ms: DEFAULT_RESTART_MAX_DELAY_MS,
            restart_reset_after_ms: DEFAULT_RESTART_RESET_AFTER_MS,
            ready: Ready::default(),
            stop_timeout_ms: DEFAULT_STOP_TIMEOUT_MS,
            limits: DaemonLimits::default(),
            sandbox: DaemonSandbox::default(),
            config: None,
        }
    }
}

fn default_restart_reset_after_ms() -> u64 {
    DEFAULT_RESTART_RESET_AFTER_MS
}

fn default_stop_timeout_ms() -> u64 {
    DEFAULT_STOP_TIMEOUT_MS
}

/// When the service manager starts a daemon again by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// After a failure: a code other than 0, a signal, a missed deadline.
    #[default]
    OnFailure,
    /// After every end but a stop.
    Always,
    /// Never.
    No,
}

impl Restart {
    /// As manifests and the bus spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnFailure => "on-failure",
            Self::Always => "always",
            Self::No => "no",
        }
    }
}

/// When a daemon counts as started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// Once its program runs.
    #[default]
    Started,
    /// When it says `READY=1` (sd_notify(3)).
    Notify,
}

impl Ready {
    /// As manifests and the bus spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Notify => "notify",
        }
    }
}

/// How a changed config reaches a daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reload {
    /// The daemon is restarted: right for any program.
    #[default]
    Restart,
    /// The daemon is sent SIGHUP.
    Signal,
    /// The daemon watches the file itself.
    #[serde(rename = "self")]
    Itself,
}

impl Reload {
    /// As manifests and the bus spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Signal => "signal",
            Self::Itself => "self",
        }
    }
}

/// The resources a daemon may use; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonLimits {
    pub memory_mib: Option<u64>,
    /// Per cent of one CPU.
    pub cpu_percent: Option<u32>,
    /// Processes and threads.
    pub tasks: u32,
}

impl Default for DaemonLimits {
    fn default() -> Self {
        Self {
            memory_mib: None,
            cpu_percent: None,
            tasks: DEFAULT_TASKS,
        }
    }
}

/// What a daemon may do beyond its own program, config folder and socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonSandbox {
    pub network: bool,
    /// Files and folders it may read.
    #[serde(default)]
    pub read: Vec<PathBuf>,
    /// Files and folders it may write.
    #[serde(default)]
    pub write: Vec<PathBuf>,
}

impl Default for DaemonSandbox {
    fn default() -> Self {
        Self {
            network: true,
            read: Vec::new(),
            write: Vec::new(),
        }
    }
}

/// A daemon's config file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonConfig {
    /// Relative to the instance's config folder.
    pub path: PathBuf,
    #[serde(default)]
    pub reload: Reload,
    /// Written at creation where there is no file; `None` means not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
}
