//! An instance of a test: made by the client, looked at through the service
//! manager, deleted when the value is dropped.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::machine::Output;
use crate::seat::{Seat, quote};
use crate::wait::{wait_for, wait_until};

/// How long a state may take to come. A guest without KVM boots in 2 to 10 s
/// on a loaded host; only a hang meets this.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// An instance of the test that holds this value.
#[derive(Debug)]
pub struct Instance<'a> {
    seat: Seat<'a>,
    handle: String,
}

impl<'a> Instance<'a> {
    /// `aegisctl instance start --name HANDLE FLAGS`, after removing what an
    /// interrupted run of the same test may have left.
    ///
    /// # Errors
    /// The client fails.
    pub fn start(seat: Seat<'a>, handle: &str, flags: &str) -> Result<Self> {
        let instance = Self::expected(seat, handle)?;
        seat.aegis_ok(&format!("instance start --name {handle} {flags}"))?;
        Ok(instance)
    }

    /// An instance that the test is going to make in its own way. None of that
    /// name exists now.
    ///
    /// # Errors
    /// The client cannot be run.
    pub fn expected(seat: Seat<'a>, handle: &str) -> Result<Self> {
        seat.aegis(&format!("instance delete --purge {handle}"))?;
        Ok(Self::existing(seat, handle))
    }

    /// An instance that is there already.
    #[must_use]
    pub fn existing(seat: Seat<'a>, handle: &str) -> Self {
        Self {
            seat,
            handle: handle.to_owned(),
        }
    }

    /// Its handle.
    #[must_use]
    pub fn handle(&self) -> &str {
        &self.handle
    }

    /// The unit of its VM.
    #[must_use]
    pub fn vm_unit(&self) -> String {
        format!("aegis-vm-{}.service", self.handle)
    }

    /// The socket unit of a port, `ADDRESS:HOST:GUEST`.
    #[must_use]
    pub fn port_unit(&self, port: &str) -> String {
        format!("aegis-port-{}:{port}.socket", self.handle)
    }

    /// The unit of its control socket.
    #[must_use]
    pub fn socket_unit(&self) -> String {
        format!("aegis-vm-{}.socket", self.handle)
    }

    /// The unit of one of its daemons.
    #[must_use]
    pub fn daemon_unit(&self, daemon: &str) -> String {
        format!("aegis-kit-{}:{daemon}.service", self.handle)
    }

    /// The slice of all its units.
    #[must_use]
    pub fn slice(&self) -> String {
        format!("aegis-{}.slice", self.handle.replace('-', "\\x2d"))
    }

    /// Its control socket.
    #[must_use]
    pub fn control_socket(&self) -> String {
        format!("{}/vm/{}/control.sock", self.seat.runtime(), self.handle)
    }

    /// Its private folder.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}/instances/{}", self.seat.home(), self.handle)
    }

    /// `aegisctl instance VERB HANDLE`, which must succeed; `verb` may hold flags.
    ///
    /// # Errors
    /// The client fails.
    pub fn act(&self, verb: &str) -> Result<String> {
        self.seat
            .aegis_ok(&format!("instance {verb} {}", self.handle))
    }

    /// As [`Instance::act`] for an action that may fail.
    ///
    /// # Errors
    /// The client cannot be run.
    pub fn try_act(&self, verb: &str) -> Result<Output> {
        self.seat.aegis(&format!("instance {verb} {}", self.handle))
    }

    /// Starts it again by its name alone.
    ///
    /// # Errors
    /// The client fails.
    pub fn start_again(&self) -> Result<String> {
        self.seat
            .aegis_ok(&format!("instance start --name {}", self.handle))
    }

    /// Runs a shell line in the guest.
    ///
    /// # Errors
    /// The client cannot be run; the line's own failure is no error.
    pub fn exec(&self, line: &str) -> Result<Output> {
        self.exec_with("", &format!("sh -c {}", quote(line)))
    }

    /// Runs a command in the guest with flags of `aegisctl exec`.
    ///
    /// # Errors
    /// As [`Instance::exec`].
    pub fn exec_with(&self, flags: &str, command: &str) -> Result<Output> {
        self.seat
            .aegis(&format!("exec {flags} {} -- {command}", self.handle))
    }

    /// Runs a shell line in the guest, which must succeed, and gives its output.
    ///
    /// # Errors
    /// The line fails.
    pub fn exec_ok(&self, line: &str) -> Result<String> {
        self.exec(line)?
            .success()
            .with_context(|| format!("in the guest of {}: {line}", self.handle))
    }

    /// All of `aegisctl instance info`.
    ///
    /// # Errors
    /// The client fails.
    pub fn info(&self) -> Result<String> {
        self.act("info")
    }

    /// What `instance info` says behind `LABEL:`, if it has that line.
    ///
    /// # Errors
    /// The client fails.
    pub fn info_value(&self, label: &str) -> Result<Option<String>> {
        let info = self.info()?;
        let value = |line: &str| {
            let rest = line.strip_prefix(label)?.strip_prefix(':')?;
            Some(rest.trim().to_owned())
        };
        Ok(info.lines().find_map(value))
    }

    /// Its state in the words of the interface: the first word of `State:`.
    ///
    /// # Errors
    /// The client fails or prints no state.
    pub fn state(&self) -> Result<String> {
        let value = self.info_value("State")?.context("info prints no State")?;
        let word = value.split([' ', ',']).next().unwrap_or_default();
        Ok(word.to_owned())
    }

    /// Waits for a state.
    ///
    /// # Errors
    /// It does not come; the text then holds what `info` says.
    pub fn wait_for_state(&self, state: &str) -> Result<()> {
        wait_until(DEADLINE, &format!("{} to be {state}", self.handle), || {
            Ok(self.state()? == state)
        })
        .with_context(|| self.info().unwrap_or_default())
    }

    /// The pid of its QEMU process, `None` while there is no VM.
    ///
    /// # Errors
    /// The service manager does not answer.
    pub fn qemu_pid(&self) -> Result<Option<u32>> {
        let processes = self.seat.processes(&self.vm_unit())?;
        let qemu = processes
            .iter()
            .find(|process| process.name.starts_with("qemu"));
        Ok(qemu.map(|process| process.pid))
    }

    /// Waits for a daemon's process and gives its pid.
    ///
    /// # Errors
    /// It does not come.
    pub fn daemon_pid(&self, daemon: &str) -> Result<u32> {
        let unit = self.daemon_unit(daemon);
        wait_for(DEADLINE, &format!("a process of {unit}"), || {
            self.seat.main_pid(&unit)
        })
    }

    /// Deletes it and all its files.
    ///
    /// # Errors
    /// The client fails.
    pub fn delete(self) -> Result<()> {
        self.act("delete --purge")?;
        Ok(())
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        // A drop has nobody to return an error to, and the next run of the test
        // removes what this one left.
        drop(self.try_act("delete --purge"));
    }
}
