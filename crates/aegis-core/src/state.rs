//! What an instance is: derived from intent, unit and VM, and stored nowhere.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lifecycle::VmState;

/// The state of an instance as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Off until enabled again; nothing listens.
    Disabled,
    /// Asleep; the next use wakes it.
    Stopped,
    Starting,
    Running,
    Paused,
    Stopping,
    /// Its VM could not be started or its unit failed.
    Failed,
}

/// A service as the service manager sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnitPhase {
    /// No process, and none wanted.
    Inactive,
    /// Being started, or waiting to be restarted.
    Activating,
    Active,
    Deactivating,
    Failed,
}

impl InstanceState {
    /// The state that follows from the three sources.
    ///
    /// The service manager decides whether there is a VM; only where it says so
    /// is the VM's owner asked (`vm`, `None` while it has not answered yet).
    pub fn derive(enabled: bool, unit: UnitPhase, vm: Option<VmState>) -> Self {
        match (unit, vm) {
            (UnitPhase::Inactive, _) if enabled => Self::Stopped,
            (UnitPhase::Inactive, _) => Self::Disabled,
            (UnitPhase::Failed, _) => Self::Failed,
            (UnitPhase::Deactivating, _) => Self::Stopping,
            (UnitPhase::Activating | UnitPhase::Active, Some(VmState::Failed)) => Self::Failed,
            (UnitPhase::Activating, _) | (UnitPhase::Active, None | Some(VmState::Starting)) => {
                Self::Starting
            }
            (UnitPhase::Active, Some(VmState::Running)) => Self::Running,
            (UnitPhase::Active, Some(VmState::Paused)) => Self::Paused,
            (UnitPhase::Active, Some(VmState::Stopping)) => Self::Stopping,
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "disabled",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_decides_whether_there_is_a_vm() {
        use InstanceState as S;
        use UnitPhase as U;
        for (enabled, unit, vm, state) in [
            (true, U::Inactive, Some(VmState::Running), S::Stopped),
            (false, U::Inactive, None, S::Disabled),
            (true, U::Activating, None, S::Starting),
            (true, U::Activating, Some(VmState::Failed), S::Failed),
            (true, U::Active, None, S::Starting),
            (true, U::Active, Some(VmState::Running), S::Running),
            (true, U::Active, Some(VmState::Paused), S::Paused),
            (true, U::Deactivating, Some(VmState::Running), S::Stopping),
            (true, U::Failed, None, S::Failed),
        ] {
            assert_eq!(
                S::derive(enabled, unit, vm),
                state,
                "{enabled} {unit:?} {vm:?}"
            );
        }
    }
}
