//! The VM's status and the one door it leaves by.
//!
//! Only the owner changes it. The control socket, the service manager's status
//! line and the log all follow the same channel, so nobody can be told more, or
//! something else, than the others.

use std::time::{SystemTime, UNIX_EPOCH};

use aegis_core::control::{CommandState, VmStatus};
use aegis_core::lifecycle::VmState;
use tokio::sync::watch;

/// Publishes the status. There is one, in the owner.
#[derive(Debug)]
pub struct StatusDoor {
    sender: watch::Sender<VmStatus>,
}

/// Follows the status. Cheap to clone.
pub type StatusWatch = watch::Receiver<VmStatus>;

impl StatusDoor {
    /// A VM that has just begun to start, from this revision of its spec.
    pub fn new(revision: u64) -> Self {
        let status = VmStatus {
            generation: 1,
            state: VmState::Starting,
            since: now_us(),
            words: "starting".to_owned(),
            fault: None,
            machine: None,
            command: CommandState::None,
            execs: 0,
            attached: 0,
            connections: 0,
            revision,
            network_fault: None,
            awake_because: Vec::new(),
            sleeps: None,
            cannot_hibernate: None,
            not_restored: None,
            rests_until: None,
        };
        Self {
            sender: watch::Sender::new(status),
        }
    }

    /// Changes the status. Followers hear of it only if something is different;
    /// generation and the beginning of the state are kept here.
    pub fn change(&self, change: impl FnOnce(&mut VmStatus)) {
        self.sender.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            if *status == before {
                return false;
            }
            status.generation += 1;
            if status.state != before.state {
                status.since = now_us();
            }
            true
        });
    }

    pub fn state(&self) -> VmState {
        self.sender.borrow().state
    }

    pub fn watch(&self) -> StatusWatch {
        self.sender.subscribe()
    }
}

/// Microseconds since 1970, as every status and record counts them.
pub(crate) fn now_us() -> u64 {
    u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970, as the guest's clock is set.
pub(crate) fn now_ns() -> u64 {
    u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX)
}

fn since_epoch() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_is_told() {
        let door = StatusDoor::new(0);
        let mut watch = door.watch();
        let first = watch.borrow_and_update().clone();
        door.change(|status| status.execs = 0);
        assert!(!watch.has_changed().unwrap());
        door.change(|status| status.execs = 1);
        let second = watch.borrow_and_update().clone();
        assert_eq!(second.generation, first.generation + 1);
        assert_eq!(second.since, first.since);
        door.change(|status| status.state = VmState::Running);
        assert!(watch.borrow_and_update().since >= first.since);
    }
}
