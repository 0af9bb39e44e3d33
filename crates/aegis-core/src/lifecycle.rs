//! The life of a VM, as its owner (aegis-vmm) lives it.
//!
//! ```text
//!              Launched         GuestReady          Pause
//!   (process) ──────────► Starting ─────► Running ────────► Paused
//!                           ▲  │ │           │  ▲ ──────────── │
//!                     Retry │  │ │ Stop      │  └── Resume ────┤
//!                           │  │ │           │ Stop            │ Stop
//!              StartFailed  │  ▼ │           ▼                 ▼
//!                          Failed └──────► Stopping ◄──────────┘
//!                             └──── Stop ────┘ │ MachineEnded
//!                                              ▼
//!                                            Ended ─► the process exits
//!
//!  Starting ── RestBegan ──► Resting ── Retry ──► Starting
//!                               └─ Stop ─► Ended
//!
//!  Running, Paused ── SaveBegan ──► Saving ── Saved ──► Ended, with a snapshot
//!       ▲                              ├─ SaveGivenUp ─► Paused
//!       └───────── Resume ─────────────┘      and on, where somebody came
//! ```
//!
//! Two pure functions hold the rules: [`admit`] says what becomes of a request
//! in a state, [`apply`] which state an event leads to and what has to be done.
//! Neither waits, reads a clock or does I/O, so every pair can be tested. A VM
//! that is not there has no process and no state here: the service manager says
//! so ([`crate::state`]).

use serde::{Deserialize, Serialize};

/// The state of a VM that has an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// From the owner's start to the guest's word that it is ready.
    Starting,
    Running,
    /// All virtual CPUs are stopped; memory is kept.
    Paused,
    /// The machine is being written to the disk. Nobody needs it; who comes has that
    /// given up.
    Saving,
    /// An orderly stop is under way, or the machine's end is awaited.
    Stopping,
    /// The start failed; the owner keeps the ports and will try again.
    Failed,
    /// The command ended by itself a moment ago: connections are reset until the
    /// back-off is over; a use by hand starts the VM.
    Resting,
}

impl VmState {
    /// Every state.
    pub const ALL: [VmState; 7] = [
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Saving,
        Self::Stopping,
        Self::Failed,
        Self::Resting,
    ];
}

/// What somebody asks of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Stop the virtual CPUs.
    Pause,
    /// Let them run on.
    Resume,
    /// Write the machine to the disk and end its processes.
    Hibernate,
    /// Work for the guest that somebody asked for by hand: an exec. Wakes a paused VM.
    Use,
    /// A connection on a port: as [`Request::Use`], but it starts no VM that rests.
    Visit,
    /// End the VM in an orderly way.
    Stop,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admission {
    /// Do it now.
    Do,
    /// Nothing to do: it is so already.
    AlreadySo,
    /// Keep it until the VM runs; the owner gives up what stands in the way.
    Wait,
    /// It cannot be.
    Deny(Denial),
}

/// Why a request cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    #[error("the VM has not finished starting")]
    Starting,
    #[error("the VM is being stopped")]
    Stopping,
    #[error("the VM is being hibernated")]
    Saving,
    #[error("the VM could not be started")]
    Failed,
    #[error("the command of the instance ended a moment ago")]
    Resting,
}

/// What happened to the machine or in the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The guest said that it is ready.
    GuestReady,
    /// The start failed; the reason is kept beside the state.
    StartFailed,
    /// The delay after a failed start is over.
    Retry,
    /// The virtual CPUs have stopped.
    CpusStopped,
    /// The virtual CPUs run on.
    CpusResumed,
    /// The machine begins to be written to the disk.
    SaveBegan,
    /// It is not written: somebody came, or it failed. The virtual CPUs are stopped.
    SaveGivenUp,
    /// The machine is on the disk, whole; its processes end.
    Saved,
    /// An orderly stop was admitted.
    StopBegan,
    /// The machine's process has ended.
    MachineEnded,
    /// Instead of a start: the back-off after the command's end is not over.
    RestBegan,
}

/// Where an event leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// The VM is now in this state.
    State(VmState),
    /// The VM is over and the owner's process ends.
    Ended,
    /// The event says nothing new in this state.
    Unchanged,
}

/// What becomes of a request in a state.
pub fn admit(state: VmState, request: Request) -> Admission {
    use Admission::{AlreadySo, Deny, Do, Wait};
    match (state, request) {
        (VmState::Starting, Request::Pause | Request::Hibernate) => Deny(Denial::Starting),
        (VmState::Starting, Request::Resume | Request::Use | Request::Visit) => Wait,
        (VmState::Starting, Request::Stop) => Do,

        (VmState::Running, Request::Pause | Request::Hibernate | Request::Stop) => Do,
        (VmState::Running, Request::Use | Request::Visit) => Do,
        (VmState::Running, Request::Resume) => AlreadySo,

        (VmState::Paused, Request::Pause) => AlreadySo,
        // A use of a paused VM resumes it first; the owner does both.
        (VmState::Paused, Request::Resume | Request::Use | Request::Visit) => Do,
        (VmState::Paused, Request::Hibernate | Request::Stop) => Do,

        (VmState::Saving, Request::Pause) => Deny(Denial::Saving),
        (VmState::Saving, Request::Hibernate) => AlreadySo,
        (VmState::Saving, Request::Resume | Request::Use | Request::Visit) => Wait,
        (VmState::Saving, Request::Stop) => Do,

        (VmState::Stopping, Request::Stop) => AlreadySo,
        (VmState::Stopping, _) => Deny(Denial::Stopping),

        (VmState::Failed, Request::Stop) => Do,
        (VmState::Failed, _) => Deny(Denial::Failed),

        // The owner begins the start that is waited for.
        (VmState::Resting, Request::Use) => Wait,
        (VmState::Resting, Request::Stop) => Do,
        (VmState::Resting, _) => Deny(Denial::Resting),
    }
}

/// Which state an event leads to.
pub fn apply(state: VmState, event: Event) -> Next {
    use Next::{Ended, State, Unchanged};
    match (state, event) {
        (VmState::Starting, Event::GuestReady) => State(VmState::Running),
        (VmState::Starting, Event::StartFailed | Event::MachineEnded) => State(VmState::Failed),

        (VmState::Running, Event::CpusStopped) => State(VmState::Paused),
        (VmState::Paused, Event::CpusResumed) => State(VmState::Running),

        (VmState::Running | VmState::Paused, Event::SaveBegan) => State(VmState::Saving),
        (VmState::Saving, Event::SaveGivenUp) => State(VmState::Paused),
        (VmState::Saving, Event::Saved) => Ended,

        (VmState::Failed | VmState::Resting, Event::Retry) => State(VmState::Starting),
        (VmState::Starting, Event::RestBegan) => State(VmState::Resting),

        (
            VmState::Starting | VmState::Running | VmState::Paused | VmState::Saving,
            Event::StopBegan,
        ) => State(VmState::Stopping),
        // Nothing is left to stop without a machine.
        (VmState::Failed | VmState::Resting, Event::StopBegan) => Ended,
        (
            VmState::Running | VmState::Paused | VmState::Saving | VmState::Stopping,
            Event::MachineEnded,
        ) => Ended,

        // The orderly stop of a paused VM lets it run on first, and a machine is saved
        // with its CPUs stopped.
        (
            VmState::Stopping | VmState::Saving | VmState::Starting,
            Event::CpusResumed | Event::CpusStopped,
        ) => Unchanged,
        (VmState::Starting, Event::Retry) => Unchanged,
        (VmState::Starting, Event::SaveBegan | Event::SaveGivenUp | Event::Saved) => Unchanged,
        (VmState::Running, Event::CpusResumed) => Unchanged,
        (VmState::Paused, Event::CpusStopped) => Unchanged,
        (VmState::Saving, Event::SaveBegan) => Unchanged,
        (VmState::Stopping, Event::StopBegan) => Unchanged,
        (
            VmState::Running | VmState::Paused | VmState::Stopping,
            Event::SaveGivenUp | Event::Saved,
        ) => Unchanged,
        (VmState::Stopping, Event::SaveBegan) => Unchanged,
        (
            VmState::Running | VmState::Paused | VmState::Saving | VmState::Stopping,
            Event::GuestReady | Event::StartFailed | Event::Retry | Event::RestBegan,
        ) => Unchanged,
        (
            VmState::Failed | VmState::Resting,
            Event::GuestReady
            | Event::StartFailed
            | Event::MachineEnded
            | Event::CpusStopped
            | Event::CpusResumed
            | Event::SaveBegan
            | Event::SaveGivenUp
            | Event::Saved
            | Event::RestBegan,
        ) => Unchanged,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 11] = [
        Event::GuestReady,
        Event::StartFailed,
        Event::Retry,
        Event::CpusStopped,
        Event::CpusResumed,
        Event::SaveBegan,
        Event::SaveGivenUp,
        Event::Saved,
        Event::StopBegan,
        Event::MachineEnded,
        Event::RestBegan,
    ];

    /// A world that keeps the rules of a real machine: it has a process or not,
    /// its CPUs run or not, and events come only when they can.
    #[derive(Clone, Copy, Debug)]
    #[allow(
        clippy::struct_excessive_bools,
        reason = "independent facts about a machine"
    )]
    struct World {
        state: Option<VmState>,
        process: bool,
        cpus_run: bool,
        stop_asked: bool,
        /// Whether a snapshot holds the machine.
        saved: bool,
    }

    impl World {
        fn can(self, event: Event) -> bool {
            match event {
                Event::GuestReady => self.process && self.state == Some(VmState::Starting),
                Event::StartFailed => self.state == Some(VmState::Starting),
                Event::Retry => {
                    matches!(self.state, Some(VmState::Failed | VmState::Resting))
                }
                // The owner decides before it launches anything.
                Event::RestBegan => !self.process && self.state == Some(VmState::Starting),
                Event::CpusStopped => self.process && self.cpus_run && self.admits(Request::Pause),
                Event::CpusResumed => self.process && !self.cpus_run && !self.saved,
                Event::SaveBegan => self.admits(Request::Hibernate),
                Event::SaveGivenUp | Event::Saved => self.state == Some(VmState::Saving),
                Event::StopBegan => self.admits(Request::Stop),
                Event::MachineEnded => self.process,
            }
        }

        fn admits(self, request: Request) -> bool {
            self.state
                .is_some_and(|state| admit(state, request) == Admission::Do)
        }

        fn step(&mut self, event: Event) {
            let Some(state) = self.state else { return };
            match event {
                Event::CpusStopped => self.cpus_run = false,
                Event::CpusResumed => self.cpus_run = true,
                Event::MachineEnded | Event::StartFailed => self.process = false,
                Event::SaveBegan | Event::SaveGivenUp => self.cpus_run = false,
                Event::Saved => {
                    self.process = false;
                    self.saved = true;
                }
                Event::StopBegan => self.stop_asked = true,
                Event::GuestReady | Event::Retry | Event::RestBegan => {}
            }
            match apply(state, event) {
                Next::State(next) => self.state = Some(next),
                Next::Ended => self.state = None,
                Next::Unchanged => {}
            }
            if event == Event::Retry {
                self.process = true;
                self.cpus_run = true;
            }
        }
    }

    proptest! {
        #[test]
        fn every_history_keeps_the_invariants(rests: bool, choices in prop::collection::vec(0usize..11, 0..200)) {
            let mut world = World {
                state: Some(VmState::Starting),
                process: !rests,
                cpus_run: !rests,
                stop_asked: false,
                saved: false,
            };
            if rests {
                world.step(Event::RestBegan);
            }
            for choice in choices {
                let event = EVENTS[choice];
                if !world.can(event) { continue; }
                world.step(event);
                match world.state {
                    Some(VmState::Paused) => prop_assert!(world.process && !world.cpus_run),
                    Some(VmState::Running) => prop_assert!(world.process && world.cpus_run),
                    Some(VmState::Failed | VmState::Resting) => prop_assert!(!world.process),
                    Some(VmState::Stopping) => prop_assert!(world.stop_asked),
                    Some(VmState::Saving) => prop_assert!(world.process),
                    Some(VmState::Starting) => {}
                    None => prop_assert!(!world.process || world.stop_asked),
                }
                // A machine that is on the disk runs nowhere.
                prop_assert!(!world.saved || (world.state.is_none() && !world.process));
                // Once asked, a stop is never undone.
                prop_assert!(
                    !world.stop_asked || matches!(world.state, None | Some(VmState::Stopping))
                );
            }
        }
    }

    #[test]
    fn a_stop_is_admitted_in_every_state() {
        for state in VmState::ALL {
            assert!(matches!(
                admit(state, Request::Stop),
                Admission::Do | Admission::AlreadySo
            ));
        }
    }

    #[test]
    fn a_request_that_is_already_so_changes_nothing() {
        for (state, request, event) in [
            (VmState::Running, Request::Resume, Event::CpusResumed),
            (VmState::Paused, Request::Pause, Event::CpusStopped),
            (VmState::Saving, Request::Hibernate, Event::SaveBegan),
            (VmState::Stopping, Request::Stop, Event::StopBegan),
        ] {
            assert_eq!(admit(state, request), Admission::AlreadySo);
            assert_eq!(apply(state, event), Next::Unchanged);
        }
    }

    #[test]
    fn work_is_never_refused_while_the_vm_can_still_run() {
        use VmState::{Paused, Running, Saving, Starting};
        for state in [Starting, Running, Paused, Saving] {
            for request in [Request::Use, Request::Visit] {
                assert!(!matches!(admit(state, request), Admission::Deny(_)));
            }
        }
    }

    #[test]
    fn a_vm_that_rests_is_woken_by_hand_and_not_by_a_connection() {
        assert_eq!(admit(VmState::Resting, Request::Use), Admission::Wait);
        let denied = Admission::Deny(Denial::Resting);
        assert_eq!(admit(VmState::Resting, Request::Visit), denied);
    }
}
