//! What the owner answers to what is asked of it.

use aegis_core::control::Outcome;
use aegis_core::fault::Fault;
use aegis_core::lifecycle::{Admission, Denial, Event, Request, VmState, admit};
use aegis_link::Handle;
use aegis_link::message::TtySize;

use super::mailbox::{Ask, By, Reply, tell};
use super::{Owner, Phase, Then};
use crate::hypervisor::{Hypervisor, Machine};
use crate::terminal::TerminalHandle;

/// Asked while the VM was starting.
#[derive(Debug)]
pub(super) enum Waiting {
    Use(Reply<Handle>),
    Attach {
        size: Option<TtySize>,
        reply: Reply<TerminalHandle>,
    },
    Resume(Reply<Outcome>),
}

impl Waiting {
    /// Whether nobody waits for the answer any more.
    fn is_given_up(&self) -> bool {
        match self {
            Self::Use(reply) => reply.is_closed(),
            Self::Attach { reply, .. } => reply.is_closed(),
            Self::Resume(reply) => reply.is_closed(),
        }
    }

    pub(super) fn refuse(self, fault: Fault) {
        match self {
            Self::Use(reply) => tell(reply, Err(fault)),
            Self::Attach { reply, .. } => tell(reply, Err(fault)),
            Self::Resume(reply) => tell(reply, Err(fault)),
        }
    }
}

impl<H> Owner<H>
where
    H: Hypervisor + Send + Sync + 'static,
    H::Machine: 'static,
{
    pub(super) async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Pause(reply) => {
                let outcome = match admit(self.state(), Request::Pause) {
                    Admission::Do => self.pause().await,
                    Admission::AlreadySo => Ok(Outcome::Unchanged),
                    Admission::Wait => Err(self.denied(Denial::Starting)),
                    Admission::Deny(denial) => Err(self.denied(denial)),
                };
                tell(reply, outcome);
            }
            Ask::Resume(reply) => match self.admit(Request::Resume) {
                Admission::Do => {
                    let outcome = self.resume().await;
                    tell(reply, outcome);
                }
                Admission::AlreadySo => tell(reply, Ok(Outcome::Unchanged)),
                Admission::Wait => self.wait(Waiting::Resume(reply)),
                Admission::Deny(denial) => tell(reply, Err(self.denied(denial))),
            },
            Ask::Hibernate(reply) => self.hibernate(reply).await,
            Ask::Keep { keep, reply } => {
                let outcome = self.keep(keep).await;
                tell(reply, outcome);
            }
            Ask::Use { by, reply } => {
                let request = match by {
                    By::Hand => Request::Use,
                    By::Connection => Request::Visit,
                };
                match self.admit(request) {
                    Admission::Do | Admission::AlreadySo => {
                        let link = self.awake_link().await;
                        tell(reply, link);
                    }
                    Admission::Wait => self.wait(Waiting::Use(reply)),
                    Admission::Deny(denial) => tell(reply, Err(self.denied(denial))),
                }
            }
            Ask::Attach { size, reply } => match self.admit(Request::Use) {
                Admission::Do | Admission::AlreadySo => {
                    let terminal = match self.awake_link().await {
                        Ok(_) => self.terminal(),
                        Err(fault) => Err(fault),
                    };
                    tell(reply, terminal);
                }
                Admission::Wait => self.wait(Waiting::Attach { size, reply }),
                Admission::Deny(denial) => tell(reply, Err(self.denied(denial))),
            },
        }
    }

    /// What becomes of a use. While a VM ends that nobody needed it is kept for the
    /// next one.
    fn admit(&self, request: Request) -> Admission {
        match &self.phase {
            Phase::Stopping {
                then: Then::LookForVisitors,
                ..
            } => Admission::Wait,
            _ => admit(self.state(), request),
        }
    }

    async fn awake_link(&mut self) -> Result<Handle, Fault> {
        if self.state() == VmState::Paused {
            self.resume().await?;
        }
        match &self.phase {
            Phase::Up(up) => Ok(up.link.clone()),
            _ => Err(self.denied(Denial::Stopping)),
        }
    }

    fn terminal(&self) -> Result<TerminalHandle, Fault> {
        match &self.phase {
            Phase::Up(up) => up.terminal(),
            _ => Err(self.denied(Denial::Stopping)),
        }
    }

    pub(super) async fn pause(&mut self) -> Result<Outcome, Fault> {
        let Phase::Up(up) = &mut self.phase else {
            return Err(self.denied(Denial::Stopping));
        };
        up.machine.pause().await?;
        up.paused();
        self.enter(Event::CpusStopped, "paused");
        Ok(Outcome::Changed)
    }

    pub(super) async fn resume(&mut self) -> Result<Outcome, Fault> {
        let Phase::Up(up) = &mut self.phase else {
            return Err(self.denied(Denial::Stopping));
        };
        up.machine.resume().await?;
        up.resumed();
        self.idle.wind();
        self.enter(Event::CpusResumed, "running");
        self.publish_idle();
        Ok(Outcome::Changed)
    }

    /// Keeps a question until the VM runs, and forgets those nobody waits for.
    fn wait(&mut self, waiting: Waiting) {
        self.waiting.retain(|waiting| !waiting.is_given_up());
        self.waiting.push(waiting);
        match self.state() {
            VmState::Resting => self.start_anew(),
            VmState::Saving => self.give_up_save(),
            _ => {}
        }
    }

    /// The VM runs: answers those who waited for it.
    pub(super) fn answer_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Use(reply) => {
                    if let Phase::Up(up) = &self.phase {
                        tell(reply, Ok(up.link.clone()));
                    }
                }
                Waiting::Attach { reply, .. } => tell(reply, self.terminal()),
                Waiting::Resume(reply) => tell(reply, Ok(Outcome::Unchanged)),
            }
        }
    }
}
