//! The Instance interface, and an instance as a client sees it.

use std::collections::BTreeMap;

use aegis_core::control::{ExecRequest, TerminalSize};
use aegis_core::secret::SecretSource;
use zbus::{OwnedFd, OwnedObjectPath};

use crate::dict::{Dict, DictError, DictReader, put, put_some};
use crate::secrets::{put_sources, take_sources};

mod daemon;
pub mod filter;
mod process;
mod stale;
mod update;
mod usage;
mod view;

pub use daemon::{ConfigEntry, DaemonEntry, DaemonState};
pub use process::GuestProcess;
pub use stale::{RefreshOptions, StaleSecret};
pub use update::UpdateRequest;
pub use usage::{UnitUsage, Usage};
pub use view::{InstanceView, LastExit, NextSleep, limits_to_dict};

/// An instance, at [`crate::names::instance_path`].
#[zbus::proxy(
    interface = "org.aegisvm.Aegis1.Instance",
    default_service = "org.aegisvm.Aegis1"
)]
pub trait Instance {
    /// Boots or resumes the VM. The job ends when the guest is ready.
    #[zbus(allow_interactive_auth)]
    fn start(&self, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Stops the VM; the next use wakes it. `options` is a [`StopOptions`].
    #[zbus(allow_interactive_auth)]
    fn stop(&self, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Stops the VM and starts it, or starts it where it is stopped. `options` is a
    /// [`StopOptions`].
    #[zbus(allow_interactive_auth)]
    fn restart(&self, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Changes settings, all or none. `changes` is an [`UpdateRequest`].
    #[zbus(allow_interactive_auth)]
    fn update(&self, changes: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Sends a signal (signal(7) number) to the process group of the instance's
    /// command in the guest. Wakes a VM that is paused or hibernated.
    #[zbus(allow_interactive_auth)]
    fn kill(&self, signal: i32) -> zbus::Result<()>;

    /// The processes in the guest ([`GuestProcess`]). Wakes a VM that is paused or
    /// hibernated.
    #[zbus(allow_interactive_auth)]
    fn processes(&self) -> zbus::Result<Vec<Dict>>;

    /// What the instance uses of the host at this moment ([`Usage`]).
    #[zbus(allow_interactive_auth)]
    fn stats(&self) -> zbus::Result<Dict>;

    /// Opens the ports and the control socket and starts the daemons.
    #[zbus(allow_interactive_auth)]
    fn enable(&self) -> zbus::Result<OwnedObjectPath>;

    /// Stops the VM and the daemons and closes the ports until it is enabled.
    #[zbus(allow_interactive_auth)]
    fn disable(&self) -> zbus::Result<OwnedObjectPath>;

    /// Disables the instance and removes it. `options` is a [`DeleteOptions`].
    #[zbus(allow_interactive_auth)]
    fn delete(&self, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Stops the virtual CPUs. Answers `changed` or `unchanged`.
    #[zbus(allow_interactive_auth)]
    fn pause(&self, options: &Dict) -> zbus::Result<String>;

    /// Lets them run on. Answers `changed` or `unchanged`.
    #[zbus(allow_interactive_auth)]
    fn resume(&self, options: &Dict) -> zbus::Result<String>;

    /// Writes the machine to the disk and ends its processes; the next use lets it run
    /// on. Refused while somebody needs it.
    #[zbus(allow_interactive_auth)]
    fn hibernate(&self, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Lets an enabled instance run, be it paused, hibernated or stopped. The job ends
    /// when the guest is ready.
    #[zbus(allow_interactive_auth)]
    fn wake(&self, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Keeps the instance awake for so many seconds from now on, and wakes it if it
    /// sleeps: a lease, which survives restarts of anything, and ends when the instance
    /// is stopped or disabled. One with the same reason is replaced.
    #[zbus(allow_interactive_auth)]
    fn keep_awake(
        &self,
        reason: &str,
        seconds: u64,
        options: &Dict,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Ends leases before their time. `options` is a [`LetSleepOptions`].
    #[zbus(allow_interactive_auth)]
    fn let_sleep(&self, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Brings the secrets of now to who has older ones: starts its daemons and its VM
    /// anew, and stops a hibernated machine in order, so that the next use boots. Answers
    /// `unchanged` by its job where nobody has older ones. `options` is a
    /// [`RefreshOptions`].
    #[zbus(allow_interactive_auth)]
    fn refresh(&self, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Runs a command in the guest, which is started if need be. `options` is an
    /// [`ExecOptions`]. The descriptors are stdin (write), stdout (read), stderr
    /// (read) and control (`aegis_core::control`, both ways).
    #[zbus(allow_interactive_auth)]
    fn exec(
        &self,
        argv: &[&str],
        options: &Dict,
    ) -> zbus::Result<(OwnedFd, OwnedFd, OwnedFd, OwnedFd)>;

    /// Joins the terminal of the command. Waits for a VM that is being started, but
    /// starts none. `options` is an [`AttachOptions`]; the descriptors are those of
    /// `Exec`, with stderr at its end. A client that goes leaves the command as it is.
    #[zbus(allow_interactive_auth)]
    fn attach(&self, options: &Dict) -> zbus::Result<(OwnedFd, OwnedFd, OwnedFd, OwnedFd)>;

    /// The guest's serial console: read-only descriptors, oldest file first.
    #[zbus(allow_interactive_auth)]
    fn open_console(&self, options: &Dict) -> zbus::Result<Vec<OwnedFd>>;

    /// What of a spec is other than the instance has it: name, have, asked. `spec`
    /// is a `SpecRequest`; what it does not name is not compared.
    #[zbus(allow_interactive_auth)]
    fn compare(&self, spec: &Dict) -> zbus::Result<Vec<(String, String, String)>>;

    /// The log of the command: read-only descriptors, oldest file first.
    #[zbus(allow_interactive_auth)]
    fn open_logs(&self, options: &Dict) -> zbus::Result<Vec<OwnedFd>>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn handle(&self) -> zbus::Result<String>;
    /// disabled, stopped, starting, running, paused, hibernating, hibernated, stopping or
    /// failed.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    /// Why it is in that state, in words; empty where that says itself.
    #[zbus(property)]
    fn state_reason(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn enabled(&self) -> zbus::Result<bool>;
    /// Empty without one.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kit(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn kit_version(&self) -> zbus::Result<String>;
    /// Whether its kit is installed; true without a kit.
    #[zbus(property)]
    fn kit_installed(&self) -> zbus::Result<bool>;
    /// What its user should know about it, one sentence each.
    #[zbus(property)]
    fn notes(&self) -> zbus::Result<Vec<String>>;
    /// Empty means the built-in base image.
    #[zbus(property(emits_changed_signal = "const"))]
    fn image(&self) -> zbus::Result<String>;
    /// The identity of the image it was made of; empty for the built-in one.
    #[zbus(property(emits_changed_signal = "const"))]
    fn image_id(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn command(&self) -> zbus::Result<Vec<String>>;
    /// In MiB.
    #[zbus(property)]
    fn memory(&self) -> zbus::Result<u32>;
    #[zbus(property)]
    fn cpus(&self) -> zbus::Result<u32>;
    /// What the VM runs on; while there is no VM, what was asked for.
    #[zbus(property)]
    fn accel(&self) -> zbus::Result<String>;
    /// What its programs are built for: `linux/amd64` or `linux/arm64`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn platform(&self) -> zbus::Result<String>;
    /// `own`, `fallback`, or empty while there is no VM.
    #[zbus(property)]
    fn kernel(&self) -> zbus::Result<String>;
    /// A path or a name; empty without one.
    #[zbus(property(emits_changed_signal = "const"))]
    fn workspace(&self) -> zbus::Result<String>;
    /// Each `SOURCE:TARGET`, with `:ro` where the guest may only read it.
    #[zbus(property)]
    fn volumes(&self) -> zbus::Result<Vec<String>>;
    /// Each `ADDRESS:HOST:GUEST`.
    #[zbus(property)]
    fn ports(&self) -> zbus::Result<Vec<String>>;
    /// After how long without a need it is paused: a duration as `1m30s`, or `never`.
    #[zbus(property)]
    fn idle_pause(&self) -> zbus::Result<String>;
    /// After how long without a need it is hibernated.
    #[zbus(property)]
    fn idle_hibernate(&self) -> zbus::Result<String>;
    /// What keeps it awake, in words; empty while nobody needs it.
    #[zbus(property)]
    fn awake_because(&self) -> zbus::Result<Vec<String>>;
    /// How it falls asleep next, and when ([`NextSleep`]); empty while it is needed.
    #[zbus(property)]
    fn sleeps(&self) -> zbus::Result<Dict>;
    /// What it is kept awake for, and until when, in microseconds since 1970.
    #[zbus(property)]
    fn leases(&self) -> zbus::Result<BTreeMap<String, u64>>;
    /// Why its VM cannot be hibernated; empty if it can.
    #[zbus(property)]
    fn cannot_hibernate(&self) -> zbus::Result<String>;
    /// Why its VM was booted though its machine had been on the disk; empty if it was
    /// not.
    #[zbus(property)]
    fn not_restored(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn labels(&self) -> zbus::Result<BTreeMap<String, String>>;

    /// `open` or `none`.
    #[zbus(property)]
    fn network(&self) -> zbus::Result<String>;

    /// What the guest reaches beside public addresses, each `ADDRESS[/PREFIX][:PORT]`.
    #[zbus(property)]
    fn allowed_hosts(&self) -> zbus::Result<Vec<String>>;

    /// Why the guest has no network although it should have one; empty while it has.
    #[zbus(property)]
    fn network_problem(&self) -> zbus::Result<String>;

    /// What the VM may use of the host: `memory-max` in MiB, `cpu-quota` in per
    /// cent of one CPU, `tasks-max`; each `u`.
    #[zbus(property)]
    fn limits(&self) -> zbus::Result<Dict>;

    /// Settings that were changed and apply when the VM starts next.
    #[zbus(property)]
    fn pending(&self) -> zbus::Result<Vec<String>>;

    /// Secrets of which somebody has an older value than there is now ([`StaleSecret`]).
    #[zbus(property)]
    fn stale(&self) -> zbus::Result<Vec<Dict>>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn ephemeral(&self) -> zbus::Result<bool>;
    /// In microseconds since 1970.
    #[zbus(property(emits_changed_signal = "const"))]
    fn created_at(&self) -> zbus::Result<u64>;
    /// In microseconds since 1970.
    #[zbus(property)]
    fn state_since(&self) -> zbus::Result<u64>;
    /// The VM's service.
    #[zbus(property(emits_changed_signal = "const"))]
    fn unit(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn socket_unit(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn slice(&self) -> zbus::Result<String>;
    /// 0 while there is no VM.
    #[zbus(property)]
    fn qemu_pid(&self) -> zbus::Result<u32>;
    /// Open exec sessions.
    #[zbus(property)]
    fn execs(&self) -> zbus::Result<u32>;
    /// Clients on the command's terminal.
    #[zbus(property)]
    fn attached(&self) -> zbus::Result<u32>;
    /// Whether the command runs on a terminal.
    #[zbus(property(emits_changed_signal = "const"))]
    fn terminal(&self) -> zbus::Result<bool>;
    /// no, on-failure[:N], always or unless-stopped.
    #[zbus(property)]
    fn restart_policy(&self) -> zbus::Result<String>;
    /// How often the VM was started again by its restart policy.
    #[zbus(property)]
    fn restarts(&self) -> zbus::Result<u32>;
    /// When the VM starts again by its policy, or is startable by connections again,
    /// in microseconds since 1970; 0 if neither.
    #[zbus(property)]
    fn next_start(&self) -> zbus::Result<u64>;
    /// How the command last ended ([`LastExit`]); empty if it never did.
    #[zbus(property)]
    fn last_exit(&self) -> zbus::Result<Dict>;
    /// The instance daemons ([`DaemonEntry`]).
    #[zbus(property)]
    fn daemons(&self) -> zbus::Result<Vec<Dict>>;
    /// Units that somebody stopped with the service manager's own tools, and when,
    /// in microseconds since 1970; 0 where aegisd did not see it.
    #[zbus(property)]
    fn stopped_by_hand(&self) -> zbus::Result<BTreeMap<String, u64>>;
}

/// The `options` of `Stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Seconds between SIGTERM and SIGKILL in the guest.
    pub grace_secs: Option<u32>,
}

impl StopOptions {
    /// The options as they travel.
    pub fn to_dict(self) -> Dict {
        let mut dict = Dict::new();
        put_some(&mut dict, "grace", self.grace_secs);
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            grace_secs: reader.take("grace")?,
        };
        reader.finish()?;
        Ok(options)
    }
}

/// The `options` of `LetSleep`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetSleepOptions {
    /// Of which lease; without one, of all.
    pub reason: Option<String>,
}

impl LetSleepOptions {
    /// The options as they travel.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put_some(&mut dict, "reason", self.reason.as_deref());
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            reason: reader.take("reason")?,
        };
        reader.finish()?;
        Ok(options)
    }
}

/// The `options` of `Delete`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Remove the daemons' config folder too.
    pub purge: bool,
}

impl DeleteOptions {
    /// The options as they travel.
    pub fn to_dict(self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "purge", self.purge);
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            purge: reader.take("purge")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

/// The `options` of `Attach`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// The size of the caller's terminal.
    pub size: Option<TerminalSize>,
}

impl AttachOptions {
    /// The options as they travel.
    pub fn to_dict(self) -> Dict {
        let mut dict = Dict::new();
        put_some(&mut dict, "tty", self.size.map(size_to_wire));
        dict
    }

    /// Reads the options. A size beyond 65535 is cut to it, as a terminal would.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            size: reader.take_pair("tty")?.map(size_from_wire),
        };
        reader.finish()?;
        Ok(options)
    }
}

fn size_to_wire(size: TerminalSize) -> (u32, u32) {
    (size.rows.into(), size.cols.into())
}

fn size_from_wire((rows, cols): (u32, u32)) -> TerminalSize {
    let chars = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    TerminalSize {
        rows: chars(rows),
        cols: chars(cols),
    }
}

/// The `options` of `Exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets; those of the caller's own travel by the
    /// descriptor [`crate::secrets::VALUES`].
    pub secrets: BTreeMap<String, SecretSource>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    /// Run it on a terminal of this size.
    pub tty: Option<TerminalSize>,
    /// The words follow the image's entry point, and where there are none its own
    /// command is run (docker-run(1)).
    pub of_image: bool,
}

impl ExecOptions {
    /// The options as they travel.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        if !self.env.is_empty() {
            put(&mut dict, "env", self.env.clone());
        }
        put_sources(&mut dict, &self.secrets);
        put_some(&mut dict, "workdir", self.workdir.as_deref());
        put_some(&mut dict, "user", self.user.as_deref());
        put_some(&mut dict, "tty", self.tty.map(size_to_wire));
        if self.of_image {
            put(&mut dict, "of-image", true);
        }
        dict
    }

    /// Reads the options. A size beyond 65535 is cut to it, as a terminal would.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            env: reader.take("env")?.unwrap_or_default(),
            secrets: take_sources(&mut reader)?,
            workdir: reader.take("workdir")?,
            user: reader.take("user")?,
            tty: reader.take_pair("tty")?.map(size_from_wire),
            of_image: reader.take("of-image")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }

    /// The request for the VM's owner, without the secrets.
    pub fn into_request(self, argv: Vec<String>) -> ExecRequest {
        ExecRequest {
            argv,
            env: self.env,
            workdir: self.workdir,
            user: self.user,
            has_secrets: !self.secrets.is_empty(),
            tty: self.tty,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_options_travel_whole() {
        let options = ExecOptions {
            env: [("A".into(), "b".into())].into(),
            secrets: [("B".into(), SecretSource::Own)].into(),
            workdir: Some("/".into()),
            user: Some("nobody".into()),
            tty: Some(TerminalSize { rows: 24, cols: 80 }),
            of_image: true,
        };
        assert_eq!(ExecOptions::from_dict(options.to_dict()).unwrap(), options);
        assert!(ExecOptions::default().to_dict().is_empty());
    }

    #[test]
    fn a_bad_terminal_size_is_named() {
        let mut dict = Dict::new();
        put(&mut dict, "tty", "24x80");
        assert_eq!(
            ExecOptions::from_dict(dict).unwrap_err().to_string(),
            "the option 'tty' must be of the D-Bus type '(uu)', not 's'"
        );
    }

    #[test]
    fn stop_and_delete_options_travel_whole() {
        let stop = StopOptions {
            grace_secs: Some(3),
        };
        assert_eq!(StopOptions::from_dict(stop.to_dict()).unwrap(), stop);
        let attach = AttachOptions {
            size: Some(TerminalSize { rows: 24, cols: 80 }),
        };
        assert_eq!(AttachOptions::from_dict(attach.to_dict()).unwrap(), attach);
        let let_sleep = LetSleepOptions {
            reason: Some("backup".into()),
        };
        let back = LetSleepOptions::from_dict(let_sleep.to_dict()).unwrap();
        assert_eq!(back, let_sleep);
        let delete = DeleteOptions { purge: true };
        assert_eq!(DeleteOptions::from_dict(delete.to_dict()).unwrap(), delete);
    }
}
