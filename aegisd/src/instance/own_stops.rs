//! Which stops of units were ours: the service manager reports a stop without
//! saying who asked for it, and reports it after it answered who did.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::supervisor::UnitId;
use crate::supervisor::state::{Active, UnitState};

/// Stops that an instance's operations asked for and that were not reported yet.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnStops {
    units: Arc<Mutex<BTreeSet<UnitId>>>,
}

impl OwnStops {
    /// Notes a stop before it is asked for. That of a group is one of every member.
    /// Returns whether none was expected before, whose report is still to come.
    pub(super) fn expect(&self, unit: &UnitId) -> bool {
        self.lock().insert(unit.clone())
    }

    /// Takes back what was new and will not be reported, since there was nothing to stop.
    pub(super) fn withdraw(&self, unit: &UnitId) {
        self.lock().remove(unit);
    }

    /// Whether a reported stop is ours. It is reported once.
    pub(super) fn answers_for(&self, unit: &UnitId) -> bool {
        let mut units = self.lock();
        units.remove(unit) || units.contains(&UnitId::group(&unit.handle))
    }

    /// What is up again is stopped by the next who stops it.
    pub(super) fn forget_running(&self, states: &[UnitState]) {
        let mut units = self.lock();
        for state in states.iter().filter(|state| state.active == Active::Active) {
            units.remove(&state.unit);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<UnitId>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::handle::Handle;

    use super::*;
    use crate::testing::unit_state;

    #[test]
    fn our_own_stop_is_known_once() {
        let handle: Handle = "web".parse().unwrap();
        let vm = UnitId::vm(&handle);
        let own = OwnStops::default();
        assert!(!own.answers_for(&vm));
        assert!(own.expect(&vm));
        assert!(!own.expect(&vm), "and not yet reported");
        assert!(own.answers_for(&vm));
        assert!(!own.answers_for(&vm));
        own.expect(&vm);
        own.forget_running(&[unit_state(vm.clone(), Active::Active)]);
        assert!(!own.answers_for(&vm));
    }

    #[test]
    fn the_stop_of_a_group_is_one_of_its_members_until_it_is_over() {
        let handle: Handle = "web".parse().unwrap();
        let own = OwnStops::default();
        own.expect(&UnitId::group(&handle));
        for unit in [
            UnitId::vm(&handle),
            UnitId::sockets(&handle),
            UnitId::group(&handle),
        ] {
            assert!(own.answers_for(&unit));
        }
        assert!(!own.answers_for(&UnitId::vm(&handle)));
    }
}
