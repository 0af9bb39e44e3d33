//! The owner: the one task that holds a VM and decides about it.
//!
//! Others ask through its mailbox ([`OwnerHandle`]) and follow its status; nobody
//! else touches the machine. What a state allows and where an event leads is
//! decided by [`aegis_core::lifecycle`]; here it is carried out.
//!
//! ```text
//!  Phase::Starting(future) ──► Phase::Up(machine, link) ──► Phase::Stopping(up, future)
//!        ▲      │                                                │
//!        │      ▼                                                ▼
//!        └─ Phase::Failed(delay), Phase::Resting(delay)              the process ends, or a new start for
//!                                             connections that came meanwhile
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`phase`] | what is held in each state, and what happens next in it |
//! | [`mailbox`], [`answers`] | what can be asked, and what is answered |
//! | [`bring_up`] | from a spec to a guest that is ready |
//! | [`up`] | the running VM and its ends |
//! | [`report`] | what the status tells |
//! | [`saving`] | hibernation |
//! | [`idle`] | how long nobody has needed the VM, and what follows |
//! | [`aftermath`] | what follows the end of the command |
//! | [`history`] | how the command ended before, and what follows its next end |
//! | [`backoff`] | the delay between two starts that failed |

mod aftermath;
mod answers;
pub mod backoff;
pub mod bring_up;
mod history;
mod idle;
pub mod mailbox;
mod phase;
mod report;
mod saving;
pub mod up;

use std::sync::Arc;
use std::time::Duration;

use aegis_core::control::{CommandState, Outcome, VmStatus};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::lifecycle::{Admission, Denial, Event, Next, Request, VmState, admit, apply};
use aegis_core::vm_spec::VmSpec;
use aegis_link::LinkError;
use aegis_link::message::CommandEnd;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::activation::Queues;
use crate::doorway::Doorway;
use crate::guest_api::Requests;
use crate::hypervisor::{Hypervisor, MachineEnd};
use crate::status::{StatusDoor, now_us};
use crate::{guest, notify};
use answers::Waiting;
use backoff::Backoff;
use bring_up::StartError;
use history::History;
use idle::IdleClock;
pub use mailbox::OwnerHandle;
use mailbox::{Ask, Reply};
use phase::{Happening, Phase, Then, starting};
use report::facts;
use saving::NoSave;
use up::{Up, UpEvent};

/// How long an ephemeral VM waits for the exec it was made for.
const EPHEMERAL_PATIENCE: Duration = Duration::from_secs(60);

/// How long clients have to take their last words when the VM has ended.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);

/// How an owner ended.
#[derive(Debug)]
pub enum Verdict {
    /// In order: by request, or because nobody needs the VM.
    Finished,
    /// The command ended and its policy wants it again: the service manager
    /// starts the VM after its delay.
    Restart,
    /// The VM was lost; the service manager starts it again.
    Lost(Fault),
}

/// The owner of one VM.
pub struct Owner<H: Hypervisor> {
    spec: Arc<VmSpec>,
    hypervisor: Arc<H>,
    status: Arc<StatusDoor>,
    doorway: Arc<Doorway>,
    queues: Queues,
    mailbox: mpsc::Receiver<Ask>,
    phase: Phase<H::Machine>,
    /// Asked while the VM was starting. Their number is bounded by that of the
    /// connections and exec sessions.
    waiting: Vec<Waiting>,
    backoff: Backoff,
    /// Requests of programs in the guest.
    requests: Requests,
    /// How the command ended before.
    history: History,
    /// The instance's command has ended by itself.
    command_is_over: bool,
    /// When an ephemeral VM that nobody used ends.
    unused_at: Option<Instant>,
    idle: IdleClock,
    /// Why the VM cannot be hibernated, as far as is known.
    no_save: Option<NoSave>,
    /// It was asked whether it can.
    is_judged: bool,
    /// The end of a command that came while the machine was being saved.
    put_off: Option<(CommandEnd, bool)>,
    /// Those who wait for it to be hibernated.
    sleepers: Vec<Reply<Outcome>>,
    /// How often in a row a save was spoiled and is done again.
    spoiled: u32,
}

impl<H> Owner<H>
where
    H: Hypervisor + Send + Sync + 'static,
    H::Machine: 'static,
{
    /// An owner that begins to start its VM when it runs.
    pub fn new(
        spec: Arc<VmSpec>,
        hypervisor: Arc<H>,
        status: Arc<StatusDoor>,
        doorway: Arc<Doorway>,
        queues: Queues,
    ) -> (Self, OwnerHandle) {
        let (handle, mailbox) = OwnerHandle::new();
        let history = History::read(&spec.dir);
        let idle = IdleClock::new(spec.idle, spec.leases.clone());
        let mut owner = Self {
            spec,
            hypervisor,
            status,
            doorway,
            queues,
            mailbox,
            phase: Phase::Over,
            requests: Requests::new(),
            history,
            waiting: Vec::new(),
            backoff: Backoff::new(),
            command_is_over: false,
            unused_at: None,
            idle,
            no_save: None,
            is_judged: false,
            put_off: None,
            sleepers: Vec::new(),
            spoiled: 0,
        };
        match owner.history.rest(now_us()) {
            Some(_) => owner.start_or_rest(),
            None => owner.phase = starting(&owner.spec, &owner.hypervisor, &owner.status),
        }
        (owner, handle)
    }

    /// Lives the VM's life. `stop` resolves when the service manager wants an end.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Verdict {
        tokio::pin!(stop);
        let mut stop_is_asked = false;
        let mut beat = notify::heartbeat();
        loop {
            let idle_at = self.idle_at();
            let verdict = tokio::select! {
                // In the order of urgency. The first three are rare and bounded, so
                // they starve nobody; clients come before the guest, which could
                // talk without end.
                biased;
                () = &mut stop, if !stop_is_asked => {
                    stop_is_asked = true;
                    self.stop()
                }
                _ = beat.tick() => {
                    notify::alive();
                    None
                }
                () = reached(self.unused_at) => {
                    info!("no exec came, ending");
                    self.stop()
                }
                () = self.doorway.changed() => self.visits_changed(),
                Some(ask) = self.mailbox.recv() => {
                    self.answer(ask).await;
                    None
                }
                // After all who might need the VM.
                () = reached(idle_at) => self.idle_tick().await,
                happening = self.phase.next(self.status.state()) => match happening {
                    Happening::Started(Ok(up)) => self.started(*up),
                    Happening::Saved(saved) => {
                        self.saved(saved);
                        None
                    }
                    Happening::SavedAndGone => self.hibernated(),
                    Happening::Returned(back) => self.returned(back).await,
                    Happening::Started(Err(error)) => {
                        self.start_failed(error);
                        None
                    }
                    Happening::RetryDue => self.retry(),
                    Happening::RestOver => self.rest_over(),
                    Happening::Up(event) => self.up_event(event).await,
                },
            };
            if let Some(verdict) = verdict {
                self.say_farewell().await;
                return verdict;
            }
        }
    }

    fn started(&mut self, up: Up<H::Machine>) -> Option<Verdict> {
        let mut up = up;
        self.take_beginning(&up);
        if self.spec.terminal {
            // Whoever waits to attach sees the program in the right size from the beginning.
            let size = self.waiting.iter().find_map(|waiting| match waiting {
                Waiting::Attach { size, .. } => *size,
                Waiting::Use(_) | Waiting::Resume(_) => None,
            });
            up.start_terminal(&self.spec, size);
        }
        self.backoff = Backoff::new();
        if self.spec.ephemeral && !self.doorway.visits().exec_seen {
            self.unused_at = Some(Instant::now() + EPHEMERAL_PATIENCE);
        }
        let facts = facts(&*up.machine);
        self.phase = Phase::Up(up);
        self.enter_with(Event::GuestReady, "running", |status| {
            status.machine = Some(facts);
        });
        self.answer_waiting();
        self.visits_changed()
    }

    fn start_failed(&mut self, error: StartError) {
        let fault = Fault::from(error);
        let delay = self.backoff.delay();
        error!(
            "the VM cannot be started: {fault}; trying again in {} s",
            delay.as_secs()
        );
        for waiting in self.waiting.drain(..) {
            waiting.refuse(fault.clone());
        }
        let words = format!("failed: {fault}; trying again in {} s", delay.as_secs());
        self.phase = Phase::Failed {
            fault: fault.clone(),
            retry: Box::pin(sleep(delay)),
        };
        self.enter_with(Event::StartFailed, &words, |status| {
            status.fault = Some(fault);
        });
    }

    async fn up_event(&mut self, event: UpEvent) -> Option<Verdict> {
        match event {
            UpEvent::MachineEnded(end) => return self.machine_ended(&end).await,
            // The command ended just before the machine would have been saved.
            UpEvent::CommandEnded { end, oom }
                if matches!(self.phase, Phase::Saving { .. } | Phase::Returning { .. }) =>
            {
                self.put_off = Some((end, oom));
                self.give_up_save();
            }
            UpEvent::LinkOver(error) => self.link_over(&error),
            UpEvent::CommandStarted { pid } => {
                self.history.started();
                self.status.change(|status| {
                    if status.command == CommandState::None {
                        status.command = CommandState::Running { pid };
                    }
                });
            }
            UpEvent::CommandEnded { end, oom } => return self.command_ended(end, oom).await,
            UpEvent::Request(stream) => {
                if let Some(aegisd) = self.spec.aegisd.as_deref() {
                    let visit = self.doorway.enter_request();
                    self.requests.carry(stream, aegisd, visit);
                }
            }
            UpEvent::Network(fault) => {
                self.status.change(|status| status.network_fault = fault);
            }
            UpEvent::Silent(silent) => {
                let words = if silent {
                    warn!("the guest does not answer");
                    "running, but the guest does not answer"
                } else {
                    info!("the guest answers again");
                    "running"
                };
                self.status
                    .change(|status| words.clone_into(&mut status.words));
            }
        }
        None
    }

    fn link_over(&mut self, error: &LinkError) {
        if !guest::is_violation(error) {
            return;
        }
        let fault = Fault::from_error(Symbol::LinkViolation, error);
        error!("the guest broke the protocol of the link and is ended: {fault}");
        self.status.change(|status| {
            status.words = format!("ending: {fault}");
            status.fault = Some(fault);
        });
    }

    /// Publishes who uses the VM and ends it if nobody needs it any more.
    fn visits_changed(&mut self) -> Option<Verdict> {
        self.idle.wind();
        self.publish_idle();
        let visits = self.doorway.visits();
        if !visits.nobody() {
            self.give_up_save();
            self.may_save_again();
        }
        if self.spec.ephemeral {
            if visits.exec_seen {
                self.unused_at = None;
            }
            let is_over = visits.exec_seen && visits.execs == 0;
            return if is_over { self.stop() } else { None };
        }
        self.end_if_unneeded()
    }

    /// Ends a VM whose command is over, if nobody needs it for anything else.
    fn end_if_unneeded(&mut self) -> Option<Verdict> {
        let nobody = |owner: &Self| owner.doorway.close_if_idle(|| !owner.queues.port_waits());
        let is_over = self.command_is_over && !self.idle.is_leased();
        if is_over && self.state() == VmState::Running && nobody(self) {
            info!("the command has ended and nobody uses the VM, ending");
            self.begin_stop(Then::LookForVisitors);
        }
        None
    }

    /// Ends the VM by request.
    fn stop(&mut self) -> Option<Verdict> {
        if let Phase::Stopping { then, .. } = &mut self.phase {
            *then = Then::End;
        }
        self.unused_at = None;
        if admit(self.state(), Request::Stop) != Admission::Do {
            return None;
        }
        self.doorway.close();
        for waiting in std::mem::take(&mut self.waiting) {
            waiting.refuse(self.denied(Denial::Stopping));
        }
        self.give_up_save();
        if let Phase::Returning { stop, .. } | Phase::Saved { stop, .. } = &mut self.phase {
            *stop = true;
            return None;
        }
        if matches!(self.phase, Phase::Up(_)) {
            self.begin_stop(Then::End);
            return None;
        }
        // A start that is dropped leaves nothing behind, so nothing is awaited.
        self.phase = Phase::Over;
        self.enter(Event::StopBegan, "stopping");
        self.enter(Event::MachineEnded, "stopped");
        self.queues.refuse_control();
        Some(Verdict::Finished)
    }

    fn begin_stop(&mut self, then: Then) {
        let cpus_run = self.state() == VmState::Running;
        let Phase::Up(up) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return;
        };
        let grace = Duration::from_secs(self.spec.grace_secs);
        let end = match (self.spec.ephemeral, self.spec.writes_to_host()) {
            // Nothing it has written outlives it.
            (true, false) => up.end_at_once(),
            // Its programs are not waited for, what they wrote to the host is.
            (true, true) => up.orderly_stop(cpus_run, Duration::ZERO),
            (false, _) => up.orderly_stop(cpus_run, grace),
        };
        self.phase = Phase::Stopping { up, end, then };
        self.enter(Event::StopBegan, "stopping");
    }

    async fn machine_ended(&mut self, end: &MachineEnd) -> Option<Verdict> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Stopping { up, then, .. } => {
                up.close().await;
                self.enter(Event::MachineEnded, "stopped");
                // From here on nothing is accepted but by the next VM.
                match then {
                    Then::LookForVisitors if !self.nobody_waits() => {
                        self.doorway.open();
                        self.start_or_rest();
                        None
                    }
                    Then::LookForVisitors => Some(Verdict::Finished),
                    Then::Restart => {
                        // Those who came for this VM learn that it is over.
                        self.queues.reset_ports();
                        Some(Verdict::Restart)
                    }
                    Then::End => {
                        self.queues.refuse_control();
                        Some(Verdict::Finished)
                    }
                }
            }
            Phase::Up(up) | Phase::Saving { up, .. } | Phase::Returning { up, .. } => {
                up.close().await;
                let known = self.status.watch().borrow().fault.clone();
                let fault = known.unwrap_or_else(|| {
                    Fault::new(Symbol::VmEnded, format!("the VM ended unexpectedly: {end}"))
                });
                error!("{fault}");
                self.enter_with(Event::MachineEnded, &fault.message, |status| {
                    status.fault = Some(fault.clone());
                });
                Some(self.lost(fault).await)
            }
            Phase::Starting(_)
            | Phase::Saved { .. }
            | Phase::Failed { .. }
            | Phase::Resting(_)
            | Phase::Over => None,
        }
    }

    /// Secrets that were missing come with another start of the process alone.
    fn retry(&mut self) -> Option<Verdict> {
        if let Some(fault) = self.spec.credential.fault.clone() {
            return Some(Verdict::Lost(fault));
        }
        self.start_anew();
        None
    }

    /// Lets sessions and connections tell their clients that the VM is over.
    async fn say_farewell(&mut self) {
        // Whoever still asks finds the mailbox closed, which says that the VM ended.
        self.mailbox.close();
        while self.mailbox.try_recv().is_ok() {}
        let gone = async {
            loop {
                let visits = self.doorway.visits();
                if visits.nobody() {
                    return;
                }
                self.doorway.changed().await;
            }
        };
        if timeout(FAREWELL_PATIENCE, gone).await.is_err() {
            info!("some clients are still there, ending without them");
        }
    }

    fn enter(&self, event: Event, words: &str) {
        self.enter_with(event, words, |_| {});
    }

    /// The state is what the lifecycle makes of an event. Followers see it together
    /// with its `details`.
    fn enter_with(&self, event: Event, words: &str, details: impl FnOnce(&mut VmStatus)) {
        let next = apply(self.state(), event);
        info!("{words}");
        self.status.change(|status| {
            words.clone_into(&mut status.words);
            if let Next::State(state) = next {
                status.state = state;
                status.fault = None;
            }
            details(status);
        });
    }

    fn state(&self) -> VmState {
        self.status.state()
    }

    fn denied(&self, denial: Denial) -> Fault {
        match &self.phase {
            Phase::Failed { fault, .. } => fault.clone(),
            _ => Fault::from_error(Symbol::WrongState, &denial),
        }
    }
}

impl<H: Hypervisor> std::fmt::Debug for Owner<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner")
            .field("handle", &self.spec.handle)
            .field("state", &self.status.state())
            .finish_non_exhaustive()
    }
}

async fn reached(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
