//! What the owner holds in each state, and what happens next in it.

use std::pin::Pin;
use std::sync::Arc;

use aegis_core::fault::Fault;
use aegis_core::lifecycle::VmState;
use aegis_core::vm_spec::VmSpec;
use tokio::time::Sleep;

use super::bring_up::{StartError, bring_up};
use super::up::{BackError, SaveError, Saved, Up, UpEvent};
use crate::hypervisor::{Hypervisor, Machine, MachineEnd};
use crate::status::StatusDoor;

/// What the owner holds, by state.
pub(super) enum Phase<M> {
    Starting(Pin<Box<dyn Future<Output = Result<Up<M>, StartError>>>>),
    Up(Up<M>),
    Stopping {
        up: Up<M>,
        end: Pin<Box<dyn Future<Output = MachineEnd>>>,
        then: Then,
    },
    /// The machine is being written to the disk.
    Saving {
        up: Up<M>,
        save: Pin<Box<dyn Future<Output = Result<Saved, SaveError>>>>,
    },
    /// It is there, and its processes end.
    Saved {
        end: Pin<Box<dyn Future<Output = ()>>>,
        /// Whoever comes meanwhile is too late.
        stop: bool,
    },
    /// It is not after all, and runs on.
    Returning {
        up: Up<M>,
        back: Pin<Box<dyn Future<Output = Result<(), BackError>>>>,
        /// It is then stopped.
        stop: bool,
    },
    Failed {
        fault: Fault,
        retry: Pin<Box<Sleep>>,
    },
    /// The back-off after the command's end is not over.
    Resting(Pin<Box<Sleep>>),
    /// The machine is gone and the owner is about to be.
    Over,
}

/// What follows an orderly stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The stop was asked for.
    End,
    /// Nobody needed the VM. Somebody may have come meanwhile.
    LookForVisitors,
    /// The command is to be started again, by the service manager.
    Restart,
}

/// What happens in a phase.
pub(super) enum Happening<M> {
    Started(Result<Box<Up<M>>, StartError>),
    Up(UpEvent),
    Saved(Result<Saved, SaveError>),
    SavedAndGone,
    Returned(Result<(), BackError>),
    RetryDue,
    RestOver,
}

impl<M: Machine + 'static> Phase<M> {
    /// What happens next. Loses nothing when it is dropped.
    pub(super) async fn next(&mut self, state: VmState) -> Happening<M> {
        match self {
            Self::Starting(start) => Happening::Started(start.await.map(Box::new)),
            Self::Saving { up, save } => tokio::select! {
                biased;
                saved = save => Happening::Saved(saved),
                event = up.next(false) => Happening::Up(event),
            },
            Self::Saved { end, .. } => {
                end.await;
                Happening::SavedAndGone
            }
            Self::Returning { up, back, .. } => tokio::select! {
                biased;
                back = back => Happening::Returned(back),
                event = up.next(false) => Happening::Up(event),
            },
            Self::Up(up) => Happening::Up(up.next(state == VmState::Running).await),
            Self::Stopping { up, end, .. } => Happening::Up(tokio::select! {
                biased;
                end = end => UpEvent::MachineEnded(end),
                event = up.next(false) => event,
            }),
            Self::Failed { retry, .. } => {
                retry.await;
                Happening::RetryDue
            }
            Self::Resting(over) => {
                over.await;
                Happening::RestOver
            }
            Self::Over => std::future::pending().await,
        }
    }
}

/// A start of the VM begins.
pub(super) fn starting<H>(
    spec: &Arc<VmSpec>,
    hypervisor: &Arc<H>,
    status: &Arc<StatusDoor>,
) -> Phase<H::Machine>
where
    H: Hypervisor + Send + Sync + 'static,
    H::Machine: 'static,
{
    Phase::Starting(Box::pin(bring_up(
        Arc::clone(spec),
        Arc::clone(hypervisor),
        Arc::clone(status),
    )))
}
