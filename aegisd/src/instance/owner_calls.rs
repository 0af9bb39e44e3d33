//! What goes straight to the owner of an instance's VM: nothing of it waits for the
//! actor, and no byte of a session passes aegisd.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aegis_bus::job::JobState;
use aegis_core::control::{
    self, Answer, AttachRequest, Call, CommandState, Dial, ExecRequest, Process, VmStatus,
};
use aegis_core::secret::SecretEnv;
use aegis_core::spec;
use aegis_core::state::InstanceState;
use rustix::fd::OwnedFd;
use tokio::net::UnixStream;

use super::admission::Kind;
use super::{Instance, InstanceError, now_us};
use crate::board::Shown;
use crate::jobs::Outcome;
use crate::registry::Intent;
use crate::vm::{self, VmError};

/// The last of the real-time signals (signal(7)).
const LAST_SIGNAL: i32 = 64;

/// Stdin, stdout, stderr and control of an exec session.
const EXEC_DESCRIPTORS: usize = 4;

/// How long an owner's status may take to be seen after its answer.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);

impl Instance {
    /// Stops the virtual CPUs.
    ///
    /// # Errors
    /// There is no VM, or its owner refuses.
    pub async fn pause(&self) -> Result<Outcome, InstanceError> {
        self.status()?;
        self.change_state(Call::Pause).await
    }

    /// Lets the virtual CPUs run on.
    ///
    /// # Errors
    /// There is no VM, or its owner refuses.
    pub async fn resume(&self) -> Result<Outcome, InstanceError> {
        self.check_awakes()?;
        self.change_state(Call::Resume).await
    }

    /// Sends a signal to the process group of its command, if that runs.
    ///
    /// # Errors
    /// There is no VM or no command, or the owner refuses.
    pub async fn kill(&self, signal: i32) -> Result<(), InstanceError> {
        if !(1..=LAST_SIGNAL).contains(&signal) {
            return Err(InstanceError::Signal(signal));
        }
        let command = self
            .status
            .borrow()
            .as_ref()
            .map(|status| status.command.clone());
        match command {
            Some(CommandState::Running { .. }) => {}
            None => self.check_awakes()?,
            Some(_) => return Err(InstanceError::NoCommand(self.handle.clone())),
        }
        change(&self.control_socket(), Call::Kill { signal })
            .await
            .map(drop)
    }

    /// The processes in the guest.
    ///
    /// # Errors
    /// There is no VM, or its owner refuses.
    pub async fn processes(&self) -> Result<Vec<Process>, InstanceError> {
        self.check_awakes()?;
        match vm::call(&self.control_socket(), Call::Processes).await? {
            (Answer::Processes(processes), _) => Ok(processes),
            _ => Err(VmError::Misfit.into()),
        }
    }

    /// Checks that there is a VM, or a machine that a call lets run on.
    fn check_awakes(&self) -> Result<(), InstanceError> {
        match self.is_hibernated() {
            true => Ok(()),
            false => self.status().map(drop),
        }
    }

    /// Whether its machine is on the disk, and its use lets it run on.
    fn is_hibernated(&self) -> bool {
        let shown = self.shared.board.follow();
        let shown = shown.borrow();
        let view = shown.instances.get(&self.handle);
        view.is_some_and(|view| view.state == InstanceState::Hibernated.as_str())
    }

    /// What the VM's owner says; asking it would wake a VM that sleeps.
    fn status(&self) -> Result<VmStatus, InstanceError> {
        let status = self.status.borrow().clone();
        status.ok_or_else(|| InstanceError::NoVm(self.handle.clone()))
    }

    /// Asks for another state, and waits until it is on the board: whoever asked
    /// looks next, and the owner's status comes by another connection.
    async fn change_state(&self, call: Call) -> Result<Outcome, InstanceError> {
        let asked_at = now_us();
        let outcome = change(&self.control_socket(), call).await?;
        if outcome == Outcome::Changed {
            let mut shown = self.shared.board.follow();
            let entered = |shown: &Shown| {
                let view = shown.instances.get(&self.handle);
                view.is_none_or(|view| view.state_since_us >= asked_at)
            };
            // Where the clock was set back in between, the answer comes as it is.
            drop(tokio::time::timeout(SHOWN_WITHIN, shown.wait_for(entered)).await);
        }
        Ok(outcome)
    }

    /// The command that these words are of the instance's image.
    pub fn words_of_image(&self, words: &[String]) -> Vec<String> {
        self.record.borrow().spec.command_of(words)
    }

    /// Runs a command in the guest, waking the VM if need be. Returns stdin,
    /// stdout, stderr and control; nothing of the session passes aegisd. May be asked
    /// for while the VM is being made.
    ///
    /// # Errors
    /// It is disabled, or the VM does not start.
    pub async fn exec(
        &self,
        mut request: ExecRequest,
        secrets: SecretEnv,
    ) -> Result<Vec<OwnedFd>, InstanceError> {
        if request.argv.is_empty() {
            return Err(InstanceError::EmptyExec);
        }
        let revealed = secrets.iter().map(|(name, value)| (name, value.reveal()));
        let revealed = revealed.map(|(name, value)| (name.clone(), value.to_owned()));
        request.env.extend(revealed);
        let (workdir, user) = (request.workdir.as_deref(), request.user.as_deref());
        spec::validate_program(&request.argv, &request.env, workdir, user)?;
        self.check_usable()?;
        // A VM that would start without its secrets is not woken for nothing.
        if self.status.borrow().is_none() {
            self.shared.vault.env_of(&self.record()).await?;
        }
        self.until_made().await;
        let (answer, descriptors) = vm::call(&self.control_socket(), Call::Exec(request)).await?;
        match answer {
            Answer::Exec if descriptors.len() == EXEC_DESCRIPTORS => {
                // From here on the VM's owner sees the client come and go.
                self.set_owner(None);
                Ok(descriptors)
            }
            _ => Err(VmError::Misfit.into()),
        }
    }

    /// Joins the terminal of the command, of a VM that runs or is being started.
    /// Returns descriptors as [`Instance::exec`] does.
    ///
    /// # Errors
    /// There is no VM and none is being started, or the command has no terminal.
    pub async fn attach(&self, request: AttachRequest) -> Result<Vec<OwnedFd>, InstanceError> {
        self.check_usable()?;
        self.check_terminal()?;
        self.wait_for_owner().await?;
        let call = Call::Attach(request);
        match vm::call(&self.control_socket(), call).await? {
            (Answer::Attach, descriptors) if descriptors.len() == EXEC_DESCRIPTORS => {
                Ok(descriptors)
            }
            _ => Err(VmError::Misfit.into()),
        }
    }

    /// Connects to a port of the guest's 127.0.0.1, waking the VM if need be. A program
    /// that does not listen yet is waited for, from the moment that the guest runs.
    ///
    /// # Errors
    /// It is disabled, the VM does not start, or nothing listens.
    pub async fn dial(&self, port: u16, patience: Duration) -> Result<UnixStream, InstanceError> {
        self.check_usable()?;
        if self.status.borrow().is_none() {
            self.shared.vault.env_of(&self.record()).await?;
        }
        self.until_made().await;
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let call = Call::Dial(Dial {
            guest: port,
            patience_ms,
        });
        let (Answer::Dialed, mut descriptors) = vm::call(&self.control_socket(), call).await?
        else {
            return Err(VmError::Misfit.into());
        };
        let stream = descriptors.pop().ok_or(VmError::Misfit)?;
        let stream = StdUnixStream::from(stream);
        let usable = stream
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(stream));
        Ok(usable.map_err(VmError::Stream)?)
    }

    /// Resolves while its messages are to be brought to it: it is enabled, and not
    /// stopped since somebody had one for it.
    pub(crate) async fn wants_messages(&self, wanted_at: impl Fn() -> u64) {
        let (mut record, mut status) = (self.record.clone(), self.status.clone());
        loop {
            let is_up = status.borrow_and_update().is_some();
            let wants = {
                let record = record.borrow_and_update();
                let is_stopped = record.stopped_at.is_some_and(|at| at > wanted_at());
                record.is_enabled() && (is_up || !is_stopped)
            };
            if wants {
                return;
            }
            // Its end is that of the actor, which ends with the instance.
            tokio::select! {
                changed = record.changed() => if changed.is_err() { return },
                changed = status.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(SHOWN_WITHIN) => {}
            }
        }
    }

    /// Resolves when a VM comes up that was not there.
    pub(crate) async fn comes_up(&self) {
        let mut status = self.status.clone();
        let gone = status.wait_for(Option::is_none).await.is_ok();
        if !gone || status.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Checks that it is meant to be used.
    ///
    /// # Errors
    /// It is disabled, or being deleted.
    pub(crate) fn check_usable(&self) -> Result<(), InstanceError> {
        match self.record.borrow().intent {
            Intent::Enabled | Intent::Creating => Ok(()),
            Intent::Disabled => Err(InstanceError::Disabled(self.handle.clone())),
            Intent::Deleting | Intent::Purging => Err(InstanceError::Deleting(self.handle.clone())),
        }
    }

    fn check_terminal(&self) -> Result<(), InstanceError> {
        let record = self.record.borrow();
        match &record.spec {
            spec if spec.command.is_empty() => {
                Err(InstanceError::NothingToAttach(self.handle.clone()))
            }
            spec if !spec.terminal => Err(InstanceError::NoTerminal(self.handle.clone())),
            _ => Ok(()),
        }
    }

    /// Waits until a VM that is being made or started has an owner to talk to:
    /// connecting earlier would start another, or find no socket.
    async fn wait_for_owner(&self) -> Result<(), InstanceError> {
        if self.until_made().await || self.is_hibernated() {
            return Ok(());
        }
        // After a start of aegisd the owner may not have answered yet.
        let units = self.shared.supervisor.list(Some(&self.handle)).await?;
        match crate::reconcile::vm_runs(&self.record.borrow(), &units) {
            true => Ok(()),
            false => Err(InstanceError::NoVm(self.handle.clone())),
        }
    }

    /// Waits for an owner as long as the VM is being made or started; whether there is
    /// one.
    async fn until_made(&self) -> bool {
        let mut status = self.status.clone();
        let mut shown = self.shared.board.follow();
        let starts = |job: &crate::board::JobShown| {
            let kinds = [Kind::Create.word(), Kind::Start.word()];
            job.outcome.state == JobState::Running
                && job.instance.as_ref() == Some(&self.handle)
                && kinds.contains(&job.kind)
        };
        loop {
            if status.borrow_and_update().is_some() {
                return true;
            }
            if !shown
                .borrow_and_update()
                .jobs
                .values()
                .any(|job| starts(job))
            {
                return false;
            }
            tokio::select! {
                _ = status.changed() => {}
                _ = shown.changed() => {}
            }
        }
    }

    fn control_socket(&self) -> PathBuf {
        self.shared.host.layout.control_socket(&self.handle)
    }
}

/// Asks a VM's owner for a change.
pub(super) async fn change(control_socket: &Path, call: Call) -> Result<Outcome, InstanceError> {
    match vm::call(control_socket, call).await? {
        (Answer::Outcome(control::Outcome::Changed), _) => Ok(Outcome::Changed),
        (Answer::Outcome(control::Outcome::Unchanged), _) => Ok(Outcome::Unchanged),
        _ => Err(VmError::Misfit.into()),
    }
}
