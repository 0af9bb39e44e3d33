//! What follows the end of the instance's command, carried out: another start by
//! the service manager, a rest, or the end of a VM that nobody needs.

use aegis_core::control::{CommandExit, CommandState};
use aegis_core::fault::Fault;
use aegis_core::lifecycle::{Event, VmState};
use aegis_core::restart::AfterEnd;
use aegis_link::message::CommandEnd;
use tokio::time::sleep;
use tracing::{error, info};

use super::{Owner, Phase, Then, Verdict, starting};
use crate::hypervisor::Hypervisor;
use crate::status::now_us;
use crate::{command_exit, guest};

impl<H> Owner<H>
where
    H: Hypervisor + Send + Sync + 'static,
    H::Machine: 'static,
{
    pub(super) async fn command_ended(&mut self, end: CommandEnd, oom: bool) -> Option<Verdict> {
        if self.command_is_over || self.spec.ephemeral || self.spec.command.is_empty() {
            return None;
        }
        self.command_is_over = true;
        let mut exit = command_exit::of(end, oom);
        info!("{}", exit.words());
        // One that ended because it was told to says nothing about the next.
        let is_stopping = self.state() == VmState::Stopping;
        let after = match is_stopping {
            true => AfterEnd::Rest,
            false => self.history.ended(self.spec.restart, &mut exit),
        };
        self.status
            .change(|status| status.command = CommandState::Ended(exit.clone()));
        if is_stopping {
            return None;
        }
        self.keep_exit(exit).await;
        if after == AfterEnd::Restart && matches!(self.phase, Phase::Up(_)) {
            info!("the command is started again, in a new VM");
            // From here on nothing is accepted but by the next VM.
            self.doorway.close();
            self.begin_stop(Then::Restart);
            return None;
        }
        self.visits_changed()
    }

    async fn keep_exit(&self, exit: CommandExit) {
        let path = self.spec.dir.join("exit.json");
        if let Err(error) = command_exit::write(path.clone(), exit).await {
            error!("cannot write {}: {error}, ignoring", path.display());
        }
    }

    /// The VM is gone without having been asked to end, and a command that ran in
    /// it with it.
    pub(super) async fn lost(&mut self, fault: Fault) -> Verdict {
        if self.command_is_over || guest::command(&self.spec).is_none() {
            return Verdict::Lost(fault);
        }
        let mut exit = command_exit::lost(fault.clone());
        let after = self.history.ended(self.spec.restart, &mut exit);
        self.keep_exit(exit).await;
        match after {
            // The service manager would go on where the policy does not.
            AfterEnd::GiveUp => Verdict::Finished,
            AfterEnd::Restart | AfterEnd::Rest => Verdict::Lost(fault),
        }
    }

    /// Begins a start, or the rest of the back-off. A start that somebody waits for
    /// by hand begins when they ask.
    pub(super) fn start_or_rest(&mut self) {
        let rest = self.history.rest(now_us());
        let Some(rest) = rest.filter(|_| self.waiting.is_empty()) else {
            info!("somebody came meanwhile, starting anew");
            self.start_anew();
            return;
        };
        let words = "resting: the command ended a moment ago; connections are reset";
        self.phase = Phase::Resting(Box::pin(sleep(rest)));
        let until = self.history.rests_until();
        self.enter_with(Event::RestBegan, words, |status| {
            status.state = VmState::Resting;
            status.machine = None;
            status.network_fault = None;
            status.rests_until = until;
        });
    }

    /// Connections count again. Nobody is here now; who waits gets a VM.
    pub(super) fn rest_over(&mut self) -> Option<Verdict> {
        let visits = self.doorway.visits();
        let nobody = self.doorway.close_if_idle(|| !self.queues.any_waits());
        if nobody {
            self.phase = Phase::Over;
            info!("nobody waits, ending");
            return Some(Verdict::Finished);
        }
        info!("somebody waits ({visits:?}), starting");
        self.start_anew();
        None
    }

    /// Begins the next start: after a failed one, or after a VM that has ended.
    pub(super) fn start_anew(&mut self) {
        self.command_is_over = false;
        self.idle.wind();
        self.phase = starting(&self.spec, &self.hypervisor, &self.status);
        self.enter_with(Event::Retry, "starting", |status| {
            status.state = VmState::Starting;
            status.machine = None;
            status.network_fault = None;
            status.command = CommandState::None;
            status.rests_until = None;
        });
    }
}
