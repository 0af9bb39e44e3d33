//! What an instance is: derived from intent, unit and VM, and stored nowhere.

use std::fmt;
use std::str::FromStr;

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
    /// Its machine is being written to the disk.
    Hibernating,
    /// Asleep, its machine on the disk; the next use lets it run on.
    Hibernated,
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
    /// is the VM's owner asked (`vm`, `None` while it has not answered yet). `saved` is
    /// whether there is a snapshot.
    pub fn derive(enabled: bool, unit: UnitPhase, vm: Option<VmState>, saved: bool) -> Self {
        match (unit, vm) {
            (UnitPhase::Inactive, _) if enabled && saved => Self::Hibernated,
            (UnitPhase::Inactive, _) if enabled => Self::Stopped,
            (UnitPhase::Inactive, _) => Self::Disabled,
            (UnitPhase::Failed, _) => Self::Failed,
            (UnitPhase::Deactivating, _) => Self::Stopping,
            (UnitPhase::Activating | UnitPhase::Active, Some(VmState::Failed)) => Self::Failed,
            (UnitPhase::Activating | UnitPhase::Active, Some(VmState::Resting)) => Self::Stopped,
            (UnitPhase::Activating, _) | (UnitPhase::Active, None | Some(VmState::Starting)) => {
                Self::Starting
            }
            (UnitPhase::Active, Some(VmState::Running)) => Self::Running,
            (UnitPhase::Active, Some(VmState::Paused)) => Self::Paused,
            (UnitPhase::Active, Some(VmState::Saving)) => Self::Hibernating,
            (UnitPhase::Active, Some(VmState::Stopping)) => Self::Stopping,
        }
    }
}

impl InstanceState {
    /// Whether nothing of an instance runs and nothing will: it is disabled or has
    /// failed. One that sleeps is woken by its next use, so it is left over only
    /// for who counts those too (`asleep`).
    pub fn is_left_over(self, asleep: bool) -> bool {
        match self {
            Self::Disabled | Self::Failed => true,
            Self::Stopped => asleep,
            // Its programs are in the middle of something.
            Self::Hibernated | Self::Hibernating => false,
            Self::Starting | Self::Running | Self::Paused | Self::Stopping => false,
        }
    }
}

impl InstanceState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Disabled,
        Self::Stopped,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Hibernating,
        Self::Hibernated,
        Self::Stopping,
        Self::Failed,
    ];

    /// As it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Hibernating => "hibernating",
            Self::Hibernated => "hibernated",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no state, or one of a newer version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no state '{0}'; known are {known}",
    known = InstanceState::ALL.map(InstanceState::as_str).join(", ")
)]
pub struct UnknownState(String);

impl FromStr for InstanceState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| UnknownState(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_decides_whether_there_is_a_vm() {
        use InstanceState as S;
        use UnitPhase as U;
        for (enabled, unit, vm, saved, state) in [
            (true, U::Inactive, Some(VmState::Running), false, S::Stopped),
            (false, U::Inactive, None, false, S::Disabled),
            (true, U::Activating, None, false, S::Starting),
            (true, U::Activating, Some(VmState::Failed), false, S::Failed),
            (
                true,
                U::Activating,
                Some(VmState::Resting),
                false,
                S::Stopped,
            ),
            (true, U::Active, None, false, S::Starting),
            (true, U::Active, Some(VmState::Running), false, S::Running),
            (true, U::Active, Some(VmState::Paused), false, S::Paused),
            (
                true,
                U::Deactivating,
                Some(VmState::Running),
                false,
                S::Stopping,
            ),
            (true, U::Failed, None, false, S::Failed),
            (
                true,
                U::Active,
                Some(VmState::Saving),
                false,
                S::Hibernating,
            ),
            (true, U::Inactive, None, true, S::Hibernated),
            (true, U::Active, Some(VmState::Running), true, S::Running),
            (false, U::Inactive, None, true, S::Disabled),
        ] {
            assert_eq!(
                S::derive(enabled, unit, vm, saved),
                state,
                "{enabled} {unit:?} {vm:?} {saved}"
            );
        }
    }
}
