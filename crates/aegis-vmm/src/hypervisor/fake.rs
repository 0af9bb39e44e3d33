//! A hypervisor without a guest: tests of the VM's owner play the guest's side
//! of the link and decide when the machine ends.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use aegis_core::idle::Activity;
use aegis_core::spec::Accel;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::kernel::KernelKind;
use super::{
    EndCause, Hypervisor, LaunchError, LoadError, Machine, MachineEnd, MachineError, MachineFacts,
    MachinePlan, MachineType, SaveRefusal,
};
use crate::egress::NetworkState;
use crate::snapshot::stamp::Stamp;

/// Hands every plan to a function, which keeps what it needs of it and says
/// whether the launch succeeds.
#[derive(Debug)]
pub struct Fake<F> {
    on_launch: F,
}

impl<F> Fake<F>
where
    F: Fn(MachinePlan) -> Result<FakeMachine, LaunchError> + Sync,
{
    pub fn new(on_launch: F) -> Self {
        Self { on_launch }
    }
}

impl<F> Hypervisor for Fake<F>
where
    F: Fn(MachinePlan) -> Result<FakeMachine, LaunchError> + Sync,
{
    type Machine = FakeMachine;

    async fn launch(&self, mut plan: MachinePlan) -> Result<FakeMachine, LaunchError> {
        let incoming = plan.incoming.take();
        let machine = (self.on_launch)(plan)?;
        if let Some(incoming) = incoming {
            let failed = LaunchError::Load(LoadError::Failed);
            let Ok(mut state) = pipe::Receiver::from_owned_fd(incoming.state) else {
                return Err(failed);
            };
            let mut loaded = Vec::new();
            if state.read_to_end(&mut loaded).await.is_err() || loaded != STATE {
                return Err(failed);
            }
            machine.pause().await.map_err(|_| failed)?;
        }
        Ok(machine)
    }
}

/// A machine that runs nothing.
#[derive(Debug)]
pub struct FakeMachine {
    facts: MachineFacts,
    end: watch::Sender<Option<MachineEnd>>,
    paused: watch::Sender<bool>,
    activity: watch::Sender<Activity>,
    /// Why its state cannot be saved.
    unsavable: Option<&'static str>,
}

impl Default for FakeMachine {
    fn default() -> Self {
        Self {
            facts: MachineFacts {
                accel: Accel::Tcg,
                machine: MachineType::Microvm,
                kernel: KernelKind::Own,
                version: "none".to_owned(),
                share: None,
                jailed: true,
                stamp: Stamp::default(),
            },
            end: watch::Sender::new(None),
            paused: watch::Sender::new(false),
            activity: watch::Sender::default(),
            unsavable: None,
        }
    }
}

/// The state of every fake machine.
const STATE: &[u8] = b"the state of a machine that runs nothing";

impl FakeMachine {
    /// One whose state cannot be saved.
    pub fn unsavable(reason: &'static str) -> Self {
        Self {
            unsavable: Some(reason),
            ..Self::default()
        }
    }

    /// Ends the machine as soon as a value other than `None` is sent.
    pub fn ender(&self) -> watch::Sender<Option<MachineEnd>> {
        self.end.clone()
    }

    /// Whether its CPUs are stopped.
    pub fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// Follows whether its CPUs are stopped.
    pub fn pauses(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }

    /// Says what the machine has used.
    pub fn worker(&self) -> watch::Sender<Activity> {
        self.activity.clone()
    }

    fn set_paused(&self, paused: bool) -> Result<(), MachineError> {
        if let Some(end) = self.end.borrow().clone() {
            return Err(MachineError::Ended(end));
        }
        self.paused.send_replace(paused);
        Ok(())
    }
}

impl Machine for FakeMachine {
    fn facts(&self) -> &MachineFacts {
        &self.facts
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    async fn activity(&self) -> Result<Activity, MachineError> {
        Ok(*self.activity.borrow())
    }

    fn network_state(&self) -> Option<watch::Receiver<NetworkState>> {
        None
    }

    async fn pause(&self) -> Result<(), MachineError> {
        self.set_paused(true)
    }

    async fn resume(&self) -> Result<(), MachineError> {
        self.set_paused(false)
    }

    async fn can_save(&self) -> Result<(), SaveRefusal> {
        match self.unsavable {
            None => Ok(()),
            Some(reason) => Err(SaveRefusal::Blocked(reason.to_owned())),
        }
    }

    async fn save(&self, to: OwnedFd) -> Result<(), MachineError> {
        if let Some(end) = self.end.borrow().clone() {
            return Err(MachineError::Ended(end));
        }
        // It fits into a pipe.
        File::from(to)
            .write_all(STATE)
            .map_err(|error| MachineError::Unsaved(error.to_string()))
    }

    async fn wait(&self) -> MachineEnd {
        let mut end = self.end.subscribe();
        let quit = MachineEnd {
            cause: EndCause::Quit,
            last_words: String::new(),
        };
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(quit),
            // The sender is a field of this machine, so it lives.
            Err(_) => quit,
        }
    }

    async fn quit(&self) -> MachineEnd {
        self.end.send_if_modified(|end| {
            let ended = end.is_some();
            end.get_or_insert_with(|| MachineEnd {
                cause: EndCause::Quit,
                last_words: String::new(),
            });
            !ended
        });
        self.wait().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_ended_machine_refuses_and_goes_on_telling_its_end() {
        let machine = FakeMachine::default();
        machine.pause().await.unwrap();
        assert!(*machine.pauses().borrow());
        assert_eq!(machine.quit().await.cause, EndCause::Quit);
        assert_eq!(machine.wait().await.cause, EndCause::Quit);
        assert!(matches!(
            machine.resume().await,
            Err(MachineError::Ended(_))
        ));
    }
}
