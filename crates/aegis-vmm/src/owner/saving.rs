//! Hibernation, as the owner carries it out.
//!
//! ```text
//!  Phase::Saving(up, save) ──► nobody came ──► Phase::Saved(end) ──► the process ends,
//!        │ somebody came,                          unless somebody came: then the machine is
//!        │ or it failed                            restored
//!        ▼
//!  Phase::Returning(up, back) ──► Phase::Up
//! ```
//!
//! A save that the command's start or end came into is done again, a few times.
//!
//! Whoever comes while the machine is being saved has that given up. Once it is on the
//! disk, only one look decides: under the doorway's lock nobody is there, and the gate
//! closes.

use std::time::Duration;

use aegis_core::control::{CommandState, Outcome};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::lifecycle::{Admission, Denial, Event, Request, VmState, admit};
use aegis_core::secret::GIVEN_MARK;
use tokio::time::timeout;
use tracing::{info, warn};

use super::mailbox::{Reply, tell};
use super::up::{BackError, Beginning, SaveError, Saved, Up};
use super::{Owner, Phase, Then, Verdict};
use crate::hypervisor::Hypervisor;

/// How long QEMU may take to say whether it can be saved.
const JUDGE_PATIENCE: Duration = Duration::from_secs(5);

/// How often a save is done again that the command's start or end came into. After a
/// boot there is one of each at most; this is for a guest that tells of more.
const SPOILED_TIMES: u32 = 3;

/// Why a VM cannot be hibernated.
#[derive(Debug)]
pub(super) struct NoSave {
    /// As long as it runs, and not only until it has been used again.
    lasts: bool,
}

impl<H> Owner<H>
where
    H: Hypervisor + Send + Sync + 'static,
    H::Machine: 'static,
{
    /// Whether hibernation can be had, as far as is known.
    pub(super) fn can_hibernate(&self) -> bool {
        self.no_save.is_none()
    }

    /// Why the VM cannot be hibernated now; told in the status.
    pub(super) async fn judge_save(&mut self) -> Result<(), Fault> {
        let Phase::Up(up) = &self.phase else {
            return Err(self.denied(Denial::Stopping));
        };
        let judged = match self.would_bare_secrets() {
            true => Err(secrets_fault()),
            false => match timeout(JUDGE_PATIENCE, up.can_hibernate()).await {
                Ok(judged) => judged.map_err(Fault::from),
                Err(_) => Err(Fault::new(Symbol::QemuFailed, "QEMU does not answer")),
            },
        };
        self.is_judged = true;
        self.cannot_save(judged.as_ref().err().cloned(), true);
        judged
    }

    fn cannot_save(&mut self, why: Option<Fault>, lasts: bool) {
        self.no_save = why.is_some().then_some(NoSave { lasts });
        self.status.change(|status| status.cannot_hibernate = why);
    }

    /// A save that failed is tried again after the next use.
    pub(super) fn may_save_again(&mut self) {
        if self.no_save.as_ref().is_some_and(|why| !why.lasts) {
            self.cannot_save(None, false);
        }
    }

    /// Whether a secret in the guest's memory would lie on the disk in clear.
    fn would_bare_secrets(&self) -> bool {
        let has_key = self.spec.credential.snapshot_key.is_some();
        let mark = || self.spec.dir.join(GIVEN_MARK);
        !has_key && (self.spec.needs_secrets || mark().exists())
    }

    /// Somebody asks for it by hand.
    pub(super) async fn hibernate(&mut self, reply: Reply<Outcome>) {
        match admit(self.state(), Request::Hibernate) {
            Admission::Do => {}
            Admission::AlreadySo => return self.sleepers.push(reply),
            Admission::Wait => return tell(reply, Err(self.denied(Denial::Starting))),
            Admission::Deny(denial) => return tell(reply, Err(self.denied(denial))),
        }
        let mut reasons = super::report::reasons(self.doorway.visits());
        reasons.extend(self.idle.leases_in_words());
        if !reasons.is_empty() {
            let message = format!("somebody needs the instance: {}", reasons.join(", "));
            return tell(reply, Err(Fault::new(Symbol::Busy, message)));
        }
        if let Err(fault) = self.judge_save().await {
            return tell(reply, Err(fault));
        }
        self.sleepers.push(reply);
        self.begin_save();
    }

    /// Begins to write the machine to the disk.
    pub(super) fn begin_save(&mut self) {
        let cpus_run = self.state() == VmState::Running;
        let Phase::Up(mut up) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return;
        };
        up.paused();
        let command = self.status.watch().borrow().command.clone();
        let save = up.hibernate(cpus_run, command);
        self.phase = Phase::Saving { up, save };
        self.enter(Event::SaveBegan, "hibernating");
        self.publish_idle();
    }

    /// Lets the machine run on: somebody needs it.
    pub(super) fn give_up_save(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Saving { up, save } => {
                drop(save);
                info!("somebody came, the hibernation is given up");
                self.return_to(up);
            }
            other => self.phase = other,
        }
    }

    fn return_to(&mut self, up: Up<H::Machine>) {
        self.go_back(up);
        self.stay_awake();
    }

    fn go_back(&mut self, up: Up<H::Machine>) {
        let back = up.unsuspend();
        self.phase = Phase::Returning {
            up,
            back,
            stop: false,
        };
    }

    /// Nobody is to wait for a hibernation any more.
    fn stay_awake(&mut self) {
        self.spoiled = 0;
        let fault = Fault::new(
            Symbol::Busy,
            "somebody needed the instance while it was being hibernated",
        );
        self.wake_sleepers(&Err(fault));
    }

    /// Begins the save anew that was spoiled, if it can still be had.
    fn save_again(&mut self) {
        let is_up = self.state() == VmState::Running && !self.command_is_over;
        if self.spoiled > 0 && is_up && self.nobody_waits() {
            return self.begin_save();
        }
        // Whoever asked while the machine came back from one has come too late for it.
        self.stay_awake();
    }

    fn wake_sleepers(&mut self, outcome: &Result<Outcome, Fault>) {
        for reply in std::mem::take(&mut self.sleepers) {
            tell(reply, outcome.clone());
        }
    }

    pub(super) fn saved(&mut self, saved: Result<Saved, SaveError>) {
        let Phase::Saving { up, .. } = std::mem::replace(&mut self.phase, Phase::Over) else {
            return;
        };
        match saved {
            Ok(saved) if self.nobody_waits() => {
                info!("the machine is on the disk, {} KiB", saved.bytes / 1024);
                self.spoiled = 0;
                self.end_saved(up, false);
                self.wake_sleepers(&Ok(Outcome::Changed));
            }
            Ok(_) => {
                info!("somebody came, the machine runs on");
                self.return_to(up);
            }
            Err(SaveError::Command) if self.spoiled < SPOILED_TIMES => {
                info!("{}, the machine is saved anew", SaveError::Command);
                self.spoiled += 1;
                self.go_back(up);
            }
            Err(error) => {
                let fault = Fault::from(error);
                warn!("the VM cannot be hibernated: {fault}");
                self.wake_sleepers(&Err(fault.clone()));
                self.cannot_save(Some(fault), false);
                self.return_to(up);
            }
        }
    }

    /// Whether nobody is there or knocks.
    pub(super) fn nobody_waits(&self) -> bool {
        self.doorway.visits().nobody() && !self.idle.is_leased() && !self.queues.any_waits()
    }

    pub(super) async fn returned(&mut self, back: Result<(), BackError>) -> Option<Verdict> {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        let Phase::Returning { mut up, stop, .. } = phase else {
            return None;
        };
        match back {
            Ok(()) => {
                up.resumed();
                self.phase = Phase::Up(up);
                self.enter(Event::SaveGivenUp, "paused");
                self.enter(Event::CpusResumed, "running");
                if stop {
                    self.stay_awake();
                    self.begin_stop(Then::End);
                    return None;
                }
                self.answer_waiting();
                let verdict = match self.put_off.take() {
                    Some((end, oom)) => self.command_ended(end, oom).await,
                    None => self.visits_changed(),
                };
                self.save_again();
                verdict
            }
            Err(BackError::Machine(error)) => {
                warn!("the machine does not run on: {error}");
                self.stay_awake();
                // Its end says more, and follows.
                self.phase = Phase::Up(up);
                self.enter(Event::SaveGivenUp, "paused");
                if stop {
                    self.begin_stop(Then::End);
                }
                None
            }
            Err(BackError::Snapshot(error)) => {
                // What is on the disk must not run twice, so it is what runs on.
                warn!("{error}: the machine ends, and begins again with the snapshot");
                self.stay_awake();
                self.end_saved(up, stop);
                None
            }
        }
    }

    fn end_saved(&mut self, up: Up<H::Machine>, stop: bool) {
        let end = Box::pin(up.end_saved());
        self.phase = Phase::Saved { end, stop };
    }

    /// The processes of a machine that is on the disk are gone.
    pub(super) fn hibernated(&mut self) -> Option<Verdict> {
        let stop = matches!(self.phase, Phase::Saved { stop: true, .. });
        let nobody = self.nobody_waits() && self.doorway.close_if_idle(|| !self.queues.any_waits());
        self.phase = Phase::Over;
        if !nobody && !stop {
            info!("somebody came meanwhile, the machine is restored");
            self.stay_awake();
            self.start_anew();
            return None;
        }
        self.wake_sleepers(&Ok(Outcome::Changed));
        self.enter(Event::Saved, "hibernated");
        Some(Verdict::Finished)
    }

    /// Takes over what a machine brought along.
    pub(super) fn take_beginning(&mut self, up: &Up<H::Machine>) {
        self.is_judged = false;
        self.cannot_save(None, false);
        match &up.beginning {
            Beginning::Booted { refused } => {
                let refused = refused.as_deref().cloned();
                self.status.change(|status| status.not_restored = refused);
            }
            Beginning::Restored(memory) => {
                self.command_is_over = matches!(memory.command, CommandState::Ended(_));
                let command = memory.command.clone();
                self.status.change(|status| status.command = command);
            }
        }
    }
}

fn secrets_fault() -> Fault {
    Fault::new(
        Symbol::Unsupported,
        "the guest was given secrets, which would lie on the disk in clear",
    )
    .with_hint("it is paused instead; once it was disabled and enabled its snapshots are sealed")
}
