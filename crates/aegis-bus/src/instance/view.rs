//! An instance's properties as one value.

use std::collections::BTreeMap;

use aegis_core::limits::ResourceLimits;

use crate::dict::{Dict, DictError, DictReader, put, put_some};
use crate::instance::{DaemonEntry, StaleSecret};

/// Every property of an instance, read at one moment.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a property of the interface"
)]
pub struct InstanceView {
    pub handle: String,
    /// The user whose it is: in system mode who made it.
    pub owner: u32,
    pub state: String,
    pub state_reason: String,
    pub enabled: bool,
    pub kit: String,
    pub kit_version: String,
    pub kit_installed: bool,
    pub notes: Vec<String>,
    pub image: String,
    pub image_id: String,
    pub command: Vec<String>,
    pub memory_mib: u32,
    pub cpus: u32,
    pub accel: String,
    pub platform: String,
    pub kernel: String,
    pub workspace: String,
    /// Each `SOURCE:TARGET[:ro]`.
    pub volumes: Vec<String>,
    pub ports: Vec<String>,
    /// After how long without a need it is paused, or `never`.
    pub idle_pause: String,
    pub idle_hibernate: String,
    /// What keeps it awake, in words.
    pub awake_because: Vec<String>,
    /// `None` while it is needed, or never sleeps.
    pub sleeps: Option<NextSleep>,
    /// What it is kept awake for, and until when, in microseconds since 1970.
    pub leases: BTreeMap<String, u64>,
    /// Why it cannot be hibernated; empty if it can.
    pub cannot_hibernate: String,
    /// Why it was booted though a snapshot was there; empty if it was not.
    pub not_restored: String,
    /// `open` or `none`.
    pub network: String,
    /// What the guest reaches beside public addresses.
    pub allowed_hosts: Vec<String>,
    /// Why the guest has no network although it should; empty while it has.
    pub network_problem: String,
    pub labels: BTreeMap<String, String>,
    /// In force, set by the user or not.
    pub limits: ResourceLimits,
    /// Settings that apply when the VM starts next.
    pub pending: Vec<String>,
    /// Secrets of which somebody has an older value than there is now.
    pub stale: Vec<StaleSecret>,
    pub ephemeral: bool,
    /// In microseconds since 1970.
    pub created_at_us: u64,
    /// In microseconds since 1970.
    pub state_since_us: u64,
    pub unit: String,
    pub socket_unit: String,
    pub slice: String,
    pub qemu_pid: u32,
    pub execs: u32,
    /// Clients on the command's terminal.
    pub attached: u32,
    /// Whether the command runs on a terminal.
    pub terminal: bool,
    pub restart_policy: String,
    /// How often the VM was started again by its restart policy.
    pub restarts: u32,
    /// When it starts again, or connections start it again, in microseconds since
    /// 1970; 0 if neither.
    pub next_start_us: u64,
    pub last_exit: Option<LastExit>,
    pub daemons: Vec<DaemonEntry>,
    /// Units that somebody stopped with the service manager's own tools, and when,
    /// in microseconds since 1970; 0 where aegisd did not see it.
    pub stopped_by_hand: BTreeMap<String, u64>,
}

impl InstanceView {
    /// Reads the answer of `Properties.GetAll` or a part of `GetManagedObjects`.
    /// A property an older aegisd does not have reads as empty.
    ///
    /// # Errors
    /// A missing handle or state, or a value of a wrong type.
    pub fn from_properties(properties: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("instance property", properties);
        let daemons: Vec<Dict> = reader.take("Daemons")?.unwrap_or_default();
        let limits: Dict = reader.take("Limits")?.unwrap_or_default();
        let last_exit: Dict = reader.take("LastExit")?.unwrap_or_default();
        let stale: Vec<Dict> = reader.take("Stale")?.unwrap_or_default();
        let sleeps: Dict = reader.take("Sleeps")?.unwrap_or_default();
        Ok(Self {
            handle: reader.require("Handle")?,
            owner: reader.take("Owner")?.unwrap_or_default(),
            state: reader.require("State")?,
            state_reason: reader.take("StateReason")?.unwrap_or_default(),
            enabled: reader.take("Enabled")?.unwrap_or_default(),
            kit: reader.take("Kit")?.unwrap_or_default(),
            kit_version: reader.take("KitVersion")?.unwrap_or_default(),
            kit_installed: reader.take("KitInstalled")?.unwrap_or(true),
            notes: reader.take("Notes")?.unwrap_or_default(),
            image: reader.take("Image")?.unwrap_or_default(),
            image_id: reader.take("ImageId")?.unwrap_or_default(),
            command: reader.take("Command")?.unwrap_or_default(),
            memory_mib: reader.take("Memory")?.unwrap_or_default(),
            cpus: reader.take("Cpus")?.unwrap_or_default(),
            accel: reader.take("Accel")?.unwrap_or_default(),
            platform: reader.take("Platform")?.unwrap_or_default(),
            kernel: reader.take("Kernel")?.unwrap_or_default(),
            workspace: reader.take("Workspace")?.unwrap_or_default(),
            volumes: reader.take("Volumes")?.unwrap_or_default(),
            ports: reader.take("Ports")?.unwrap_or_default(),
            idle_pause: reader.take("IdlePause")?.unwrap_or_default(),
            idle_hibernate: reader.take("IdleHibernate")?.unwrap_or_default(),
            awake_because: reader.take("AwakeBecause")?.unwrap_or_default(),
            sleeps: NextSleep::from_dict(sleeps)?,
            leases: reader.take("Leases")?.unwrap_or_default(),
            cannot_hibernate: reader.take("CannotHibernate")?.unwrap_or_default(),
            not_restored: reader.take("NotRestored")?.unwrap_or_default(),
            network: reader.take("Network")?.unwrap_or_default(),
            allowed_hosts: reader.take("AllowedHosts")?.unwrap_or_default(),
            network_problem: reader.take("NetworkProblem")?.unwrap_or_default(),
            labels: reader.take("Labels")?.unwrap_or_default(),
            limits: limits_from(limits)?,
            pending: reader.take("Pending")?.unwrap_or_default(),
            stale: stale
                .into_iter()
                .map(StaleSecret::from_dict)
                .collect::<Result<_, _>>()?,
            ephemeral: reader.take("Ephemeral")?.unwrap_or_default(),
            created_at_us: reader.take("CreatedAt")?.unwrap_or_default(),
            state_since_us: reader.take("StateSince")?.unwrap_or_default(),
            unit: reader.take("Unit")?.unwrap_or_default(),
            socket_unit: reader.take("SocketUnit")?.unwrap_or_default(),
            slice: reader.take("Slice")?.unwrap_or_default(),
            qemu_pid: reader.take("QemuPid")?.unwrap_or_default(),
            execs: reader.take("Execs")?.unwrap_or_default(),
            attached: reader.take("Attached")?.unwrap_or_default(),
            terminal: reader.take("Terminal")?.unwrap_or_default(),
            restart_policy: reader.take("RestartPolicy")?.unwrap_or_default(),
            restarts: reader.take("Restarts")?.unwrap_or_default(),
            next_start_us: reader.take("NextStart")?.unwrap_or_default(),
            last_exit: LastExit::from_dict(last_exit)?,
            daemons: daemons
                .into_iter()
                .map(DaemonEntry::from_dict)
                .collect::<Result<_, _>>()?,
            stopped_by_hand: reader.take("StoppedByHand")?.unwrap_or_default(),
        })
    }
}

/// The value of the property `Limits`.
pub fn limits_to_dict(limits: &ResourceLimits) -> Dict {
    let mut dict = Dict::new();
    put_some(&mut dict, "memory-max", limits.memory_max_mib);
    put_some(&mut dict, "cpu-quota", limits.cpu_quota);
    put_some(&mut dict, "tasks-max", limits.tasks_max);
    dict
}

fn limits_from(dict: Dict) -> Result<ResourceLimits, DictError> {
    let mut reader = DictReader::new("limit", dict);
    Ok(ResourceLimits {
        memory_max_mib: reader.take("memory-max")?,
        cpu_quota: reader.take("cpu-quota")?,
        tasks_max: reader.take("tasks-max")?,
    })
}

/// How an instance falls asleep next: the property `Sleeps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextSleep {
    /// The state it leads to: `paused` or `hibernated`.
    pub to: String,
    /// When, in microseconds since 1970, if nobody needs it before.
    pub at_us: u64,
}

impl NextSleep {
    /// The value as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "to", self.to.as_str());
        put(&mut dict, "at", self.at_us);
        dict
    }

    /// Reads the value; `None` from an empty one.
    ///
    /// # Errors
    /// A missing value or one of a wrong type.
    pub fn from_dict(dict: Dict) -> Result<Option<Self>, DictError> {
        if dict.is_empty() {
            return Ok(None);
        }
        let mut reader = DictReader::new("next sleep", dict);
        Ok(Some(Self {
            to: reader.require("to")?,
            at_us: reader.require("at")?,
        }))
    }
}

/// How an instance's command last ended: the property `LastExit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastExit {
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal, if it was killed.
    pub signal: Option<i32>,
    /// Why it could not be started; empty if it could.
    pub failure: String,
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// The guest ran out of memory.
    pub oom: bool,
    /// The VM was killed for want of memory on the host: the limit of its unit was
    /// reached, or the host had none left.
    pub oom_host: bool,
    /// It failed as often as the restart policy allows.
    pub gave_up: bool,
}

impl LastExit {
    /// The value as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put_some(&mut dict, "code", self.code);
        put_some(&mut dict, "signal", self.signal);
        if !self.failure.is_empty() {
            put(&mut dict, "failure", self.failure.as_str());
        }
        put(&mut dict, "at", self.at_us);
        put(&mut dict, "oom", self.oom);
        put(&mut dict, "oom-host", self.oom_host);
        put(&mut dict, "gave-up", self.gave_up);
        dict
    }

    /// Reads the value; `None` from an empty one: the command never ended.
    ///
    /// # Errors
    /// A value of a wrong type.
    pub fn from_dict(dict: Dict) -> Result<Option<Self>, DictError> {
        if dict.is_empty() {
            return Ok(None);
        }
        let mut reader = DictReader::new("last exit", dict);
        Ok(Some(Self {
            code: reader.take("code")?,
            signal: reader.take("signal")?,
            failure: reader.take("failure")?.unwrap_or_default(),
            at_us: reader.take("at")?.unwrap_or_default(),
            oom: reader.take("oom")?.unwrap_or_default(),
            oom_host: reader.take("oom-host")?.unwrap_or_default(),
            gave_up: reader.take("gave-up")?.unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_become_a_view() {
        let exit = LastExit {
            code: None,
            signal: Some(9),
            failure: String::new(),
            at_us: 5,
            oom: true,
            oom_host: true,
            gave_up: true,
        };
        let limits = ResourceLimits {
            cpu_quota: Some(200),
            ..ResourceLimits::default()
        };
        let mut dict = Dict::new();
        put(&mut dict, "Handle", "web");
        put(&mut dict, "State", "running");
        put(&mut dict, "Ports", vec!["127.0.0.1:8080:80"]);
        put(&mut dict, "Limits", limits_to_dict(&limits));
        put(&mut dict, "LastExit", exit.to_dict());
        let sleeps = NextSleep {
            to: "paused".into(),
            at_us: 9,
        };
        put(&mut dict, "Sleeps", sleeps.to_dict());
        put(&mut dict, "Daemons", Vec::<Dict>::new());
        put(&mut dict, "Tomorrow", 1u8);
        let view = InstanceView::from_properties(dict).unwrap();
        assert_eq!(view.handle, "web");
        assert_eq!(view.ports, ["127.0.0.1:8080:80"]);
        assert_eq!(view.last_exit, Some(exit));
        assert_eq!(view.sleeps, Some(sleeps));
        assert_eq!(view.limits, limits);
        assert!(view.daemons.is_empty());
    }

    #[test]
    fn a_command_that_never_ended_has_no_exit() {
        assert_eq!(LastExit::from_dict(Dict::new()).unwrap(), None);
    }
}
