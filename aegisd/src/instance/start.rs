//! Starting a VM and waiting for its guest.

use std::pin::pin;
use std::time::Duration;

use aegis_core::control::{Call, VmStatus};
use aegis_core::lifecycle::VmState;
use tokio::time::Instant;

use super::InstanceError;
use super::owner_calls::change;
use super::work::Work;
use crate::jobs::{Outcome, Reporter};
use crate::reconcile;
use crate::supervisor::{self, UnitId};

/// The manager's job ends when the owner says that it is ready; its status
/// comes over another socket and may be this much later on a busy machine.
const STATUS_DELAY: Duration = Duration::from_secs(10);

impl Work {
    /// Makes the VM run. On failure its unit is stopped again, so that it does
    /// not go on trying what the user was told has failed.
    pub(super) async fn start_vm(&self, report: &Reporter) -> Result<Outcome, InstanceError> {
        let first = self.status.borrow().clone();
        match first.as_ref().map(|status| status.state) {
            Some(VmState::Running) => return Ok(Outcome::Unchanged),
            Some(VmState::Paused) => {
                report.says("resuming the VM");
                return change(&self.control_socket(), Call::Resume).await;
            }
            Some(VmState::Failed | VmState::Stopping | VmState::Resting) => {
                report.says("waiting for the last VM to end");
                self.stop_unit(&self.vm()).await?;
            }
            // It gives its hibernation up for us.
            Some(VmState::Saving) => {
                report.says("waking the VM");
                return change(&self.control_socket(), Call::Resume).await;
            }
            Some(VmState::Starting) | None => {}
        }
        // Told here, where somebody waits for the reason; the unit itself is told
        // when it asks.
        let record = self.record.borrow().clone();
        self.shared.vault.env_of(&record).await?;
        report.says("starting the VM");
        let failure = match self.guest_ready(first.as_ref(), report).await {
            Ok(outcome) => return Ok(outcome),
            Err(failure) => failure,
        };
        let mut errors = vec![failure];
        errors.extend(self.stop_unit(&self.vm()).await.err());
        InstanceError::all(errors).map(|()| Outcome::Changed)
    }

    /// Waits until the status is no longer that of a VM that was stopped: the
    /// manager's job ends before its news of the unit is heard.
    pub(super) async fn forget_vm(&self, stale: Option<&VmStatus>) {
        let mut status = self.status.clone();
        let is_other = |current: &Option<VmStatus>| match (current, stale) {
            (Some(current), Some(stale)) => {
                let up = [VmState::Running, VmState::Paused, VmState::Saving];
                let up = up.contains(&current.state);
                !up || current.since != stale.since
            }
            _ => true,
        };
        let other = status.wait_for(is_other);
        // Too late is as good: then the start finds the unit gone.
        drop(tokio::time::timeout(STATUS_DELAY, other).await);
    }

    /// Has the manager start the unit and waits for whoever knows first how it
    /// went. `stale` is the status of a VM before this one.
    async fn guest_ready(
        &self,
        stale: Option<&VmStatus>,
        report: &Reporter,
    ) -> Result<Outcome, InstanceError> {
        let vm = self.vm();
        let mut status = self.status.clone();
        let mut job = pin!(self.shared.supervisor.start(&vm));
        let mut ended: Option<(Outcome, Instant)> = None;
        loop {
            let current = status.borrow_and_update().clone();
            if let Some(current) = current.as_ref().filter(|&current| Some(current) != stale) {
                report.says(&current.words);
                match (current.state, &current.fault) {
                    (VmState::Running | VmState::Paused | VmState::Saving, _) => {
                        return Ok(ended.map_or(Outcome::Changed, |(outcome, _)| outcome));
                    }
                    (VmState::Failed, Some(fault)) => {
                        return Err(InstanceError::Start(fault.clone()));
                    }
                    (VmState::Failed, None) => return Err(InstanceError::EndedEarly),
                    (VmState::Starting | VmState::Stopping | VmState::Resting, _) => {}
                }
            }
            let late = ended.map_or_else(Instant::now, |(_, late)| late);
            tokio::select! {
                biased;
                // The user's word counts most.
                () = report.cancelled() => return Err(InstanceError::Cancelled),
                // The owner knows why it failed, the manager only that.
                Ok(()) = status.changed() => {}
                end = &mut job, if ended.is_none() => {
                    let outcome = outcome(end?);
                    // A short command may be over before anybody could look.
                    if !self.vm_runs().await? {
                        return Ok(outcome);
                    }
                    ended = Some((outcome, Instant::now() + STATUS_DELAY));
                }
                () = tokio::time::sleep_until(late), if ended.is_some() => {
                    return Ok(ended.map_or(Outcome::Changed, |(outcome, _)| outcome));
                }
            }
        }
    }

    async fn vm_runs(&self) -> Result<bool, InstanceError> {
        let units = self.shared.supervisor.list(Some(&self.handle)).await?;
        Ok(reconcile::vm_runs(&self.record.borrow(), &units))
    }

    pub(super) fn vm(&self) -> UnitId {
        UnitId::vm(&self.handle)
    }

    pub(super) fn control_socket(&self) -> std::path::PathBuf {
        self.shared.host.layout.control_socket(&self.handle)
    }
}

/// The service manager's outcome as an operation's.
pub(super) fn outcome(outcome: supervisor::Outcome) -> Outcome {
    match outcome {
        supervisor::Outcome::Changed => Outcome::Changed,
        supervisor::Outcome::Unchanged => Outcome::Unchanged,
    }
}
