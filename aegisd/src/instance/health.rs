//! When a service that was restarted counts as healthy again: its next failure is a
//! new one, and the delays begin anew.

use std::time::Duration;

use aegis_core::spec::InstanceSpec;
use aegis_core::state::UnitPhase;
use aegis_core::units::UnitKind;

use super::view::phase;
use crate::supervisor::state::UnitState;

/// A VM that ran this long is healthy.
const HEALTHY_VM: Duration = Duration::from_secs(600);

/// The time until then; `None` if it is healthy already or does not run.
pub(super) fn healthy_in(unit: &UnitState, spec: &InstanceSpec, now: u64) -> Option<Duration> {
    let healthy_after = match &unit.unit.kind {
        UnitKind::Vm => HEALTHY_VM,
        UnitKind::Daemon(name) => {
            let daemon = spec.daemons.iter().find(|daemon| daemon.name == *name)?;
            Duration::from_millis(daemon.restart_reset_after_ms)
        }
        _ => return None,
    };
    let runs = phase(Some(unit)) == UnitPhase::Active && !unit.has_exited();
    let age = Duration::from_micros(now.saturating_sub(unit.since));
    (runs && unit.restarts > 0).then(|| healthy_after.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use aegis_core::daemon::InstanceDaemon;

    use super::*;
    use crate::supervisor::UnitId;
    use crate::supervisor::state::Active;
    use crate::testing::unit_state;

    #[test]
    fn a_daemon_that_was_restarted_is_healthy_after_the_time_its_kit_says() {
        let spec = InstanceSpec {
            daemons: vec![InstanceDaemon {
                restart_reset_after_ms: 5000,
                ..InstanceDaemon::new("gateway", "/g")
            }],
            ..Default::default()
        };
        let handle = "web".parse().unwrap();
        let mut unit = unit_state(UnitId::daemon(&handle, "gateway"), Active::Active);
        unit.since = 1_000_000;
        assert_eq!(healthy_in(&unit, &spec, 2_000_000), None, "never restarted");
        unit.restarts = 3;
        let after = |seconds: u64| healthy_in(&unit, &spec, seconds * 1_000_000);
        assert_eq!(after(2), Some(Duration::from_secs(4)));
        assert_eq!(after(7), Some(Duration::ZERO));
        let mut vm = unit_state(UnitId::vm(&handle), Active::Active);
        vm.restarts = 1;
        assert_eq!(healthy_in(&vm, &spec, 0), Some(HEALTHY_VM));
        vm.active = Active::Activating;
        assert_eq!(healthy_in(&vm, &spec, 0), None);
    }
}
