//! An entry of an instance's `Daemons`.

use std::fmt;
use std::str::FromStr;

use crate::dict::{Dict, DictError, DictReader, put};

/// What an instance daemon does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonState {
    Running,
    Starting,
    /// It failed and its next start is waited for.
    Restarting,
    /// It ended by itself with success; nothing restarts it.
    Exited,
    Failed,
    /// It said with exit code 78 that its configuration is missing or wrong.
    WaitingForConfig,
    /// The instance is disabled.
    Stopped,
}

impl DaemonState {
    const ALL: [Self; 7] = [
        Self::Running,
        Self::Starting,
        Self::Restarting,
        Self::Exited,
        Self::Failed,
        Self::WaitingForConfig,
        Self::Stopped,
    ];

    /// As it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::WaitingForConfig => "waiting-for-config",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for DaemonState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A state this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not the state of a daemon")]
pub struct UnknownDaemonState(String);

impl FromStr for DaemonState {
    type Err = UnknownDaemonState;

    fn from_str(text: &str) -> Result<Self, UnknownDaemonState> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| UnknownDaemonState(text.to_owned()))
    }
}

/// One instance daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonEntry {
    /// Unique in the instance.
    pub name: String,
    /// What people call it.
    pub label: String,
    pub unit: String,
    pub state: DaemonState,
    /// Restarts by the service manager since it was last started on purpose.
    pub restarts: u32,
    /// Microseconds to the next start; 0 if none is due.
    pub next_restart_in_us: u64,
    /// How it last ended, in words; empty if it never did.
    pub last_exit: String,
    /// That end was for want of memory on the host: its limit was reached, or the
    /// host had none left.
    pub oom: bool,
    /// When the state began, in microseconds since 1970.
    pub since_us: u64,
    /// 0 while it has no process.
    pub pid: u32,
    /// Its config file; `None` without one.
    pub config: Option<ConfigEntry>,
    /// What of the home directories, of `/run` and of AegisVM's own folders it may
    /// read and write; all else of them it does not see.
    pub reads: Vec<String>,
    pub writes: Vec<String>,
}

/// The config file of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Absolute.
    pub path: String,
    /// SHA-256 of the content that the daemon has, in hexadecimal; empty if none.
    pub hash: String,
    /// When that content was given to the daemon, in microseconds since 1970.
    pub applied_us: u64,
    /// Why the file is not applied as it is now; empty if it is.
    pub problem: String,
}

impl DaemonEntry {
    /// The entry as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "name", self.name.as_str());
        put(&mut dict, "label", self.label.as_str());
        put(&mut dict, "unit", self.unit.as_str());
        put(&mut dict, "state", self.state.as_str());
        put(&mut dict, "restarts", self.restarts);
        put(&mut dict, "next-restart-in", self.next_restart_in_us);
        put(&mut dict, "last-exit", self.last_exit.as_str());
        put(&mut dict, "oom", self.oom);
        put(&mut dict, "since", self.since_us);
        put(&mut dict, "pid", self.pid);
        if let Some(config) = &self.config {
            put(&mut dict, "config", config.path.as_str());
            put(&mut dict, "config-hash", config.hash.as_str());
            put(&mut dict, "config-applied", config.applied_us);
            put(&mut dict, "config-problem", config.problem.as_str());
        }
        put(&mut dict, "reads", self.reads.clone());
        put(&mut dict, "writes", self.writes.clone());
        dict
    }

    /// Reads an entry; what a newer version added is left alone.
    ///
    /// # Errors
    /// An entry without a name or a known state, or a value of a wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("daemon entry", dict);
        let name: String = reader.require("name")?;
        let state = reader.parse("state")?.ok_or(DictError::Missing {
            what: "daemon entry",
            key: "state",
        })?;
        let config = match reader.take("config")? {
            None => None,
            Some(path) => Some(ConfigEntry {
                path,
                hash: reader.take("config-hash")?.unwrap_or_default(),
                applied_us: reader.take("config-applied")?.unwrap_or_default(),
                problem: reader.take("config-problem")?.unwrap_or_default(),
            }),
        };
        Ok(Self {
            config,
            reads: reader.take("reads")?.unwrap_or_default(),
            writes: reader.take("writes")?.unwrap_or_default(),
            label: reader.take("label")?.unwrap_or_else(|| name.clone()),
            name,
            unit: reader.take("unit")?.unwrap_or_default(),
            state,
            restarts: reader.take("restarts")?.unwrap_or_default(),
            next_restart_in_us: reader.take("next-restart-in")?.unwrap_or_default(),
            last_exit: reader.take("last-exit")?.unwrap_or_default(),
            oom: reader.take("oom")?.unwrap_or_default(),
            since_us: reader.take("since")?.unwrap_or_default(),
            pid: reader.take("pid")?.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_travels_whole_and_ignores_what_is_new() {
        for state in DaemonState::ALL {
            let entry = DaemonEntry {
                name: "gateway".into(),
                label: "Gateway".into(),
                unit: "aegis-kit-a:gateway.service".into(),
                state,
                restarts: 3,
                next_restart_in_us: 400_000,
                last_exit: "exit code 1".into(),
                oom: true,
                since_us: 7,
                pid: 9,
                config: Some(ConfigEntry {
                    path: "/home/a/.aegis/kits/a/gateway.json".into(),
                    hash: "00ff".into(),
                    applied_us: 5,
                    problem: "it is not valid JSON".into(),
                }),
                reads: vec!["/home/a/bin".into()],
                writes: Vec::new(),
            };
            let mut dict = entry.to_dict();
            put(&mut dict, "tomorrow", true);
            assert_eq!(DaemonEntry::from_dict(dict).unwrap(), entry);
        }
    }
}
