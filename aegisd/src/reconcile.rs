//! Reconciliation, the pure part: what should be, what is, what to do about it.
//!
//! An instance's actor asks at its start, after each change of a unit and after
//! each operation, and carries the answer out ([`crate::instance`]).
//!
//! ```text
//!  registry (intent) ─┐
//!                     ├─► plan ─► actions ─► supervisor
//!  service manager ───┘
//! ```
//!
//! What a user did with the service manager's own tools is an act of the user:
//! [`adopt`] turns it into intent before anything is planned. docs/UNITS.md has
//! the table of what each of these acts leads to.

use std::collections::BTreeSet;

use aegis_core::port::PortMapping;
use aegis_core::units::UnitKind;

use crate::instance::plans;
use crate::registry::{Intent, Record};
use crate::supervisor::UnitId;
use crate::supervisor::state::{Active, UnitState};

/// One step from what is to what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Finish making an instance that a crash left half-made.
    FinishCreation,
    /// Finish or begin deleting it.
    Delete,
    /// Make its group and sockets.
    Open,
    /// Make the API socket of its daemons.
    Listen,
    /// Have a port listen.
    Expose(PortMapping),
    /// Close a port.
    Unexpose(PortMapping),
    /// Make and start a daemon, by its name.
    Launch(String),
    /// Start the VM: its restart policy wants it in each run of the service manager.
    Start,
    /// Make its sockets and the VM's unit anew with changed settings.
    Remake,
    /// Stop a unit that should not be.
    Stop(UnitId),
    /// Bring changed settings to the files, and to the VM's unit the limits it can
    /// have now.
    Limit,
}

/// What to do about one instance, in this run of the service manager (its start, in
/// microseconds since 1970), now (likewise).
pub fn plan(record: &Record, units: &[UnitState], manager_run: u64, now: u64) -> Vec<Action> {
    let group = UnitId::group(&record.handle);
    match record.intent {
        Intent::Deleting | Intent::Purging => vec![Action::Delete],
        // Nobody waits for the one command it was made for.
        Intent::Creating if record.spec.ephemeral => vec![Action::Delete],
        Intent::Creating => vec![Action::FinishCreation],
        Intent::Disabled if units.is_empty() => Vec::new(),
        Intent::Disabled => vec![Action::Stop(group)],
        Intent::Enabled if record.spec.ephemeral => match vm_runs(record, units) {
            true => Vec::new(),
            false => vec![Action::Delete],
        },
        Intent::Enabled => {
            let mut actions = complete(record, units);
            if is_due(record, manager_run, now) && !vm_runs(record, units) {
                actions.push(Action::Start);
            }
            actions
        }
    }
}

/// Whether the VM is to be started because the service manager was: its restart policy
/// says so, or a lease that began before.
fn is_due(record: &Record, manager_run: u64, now: u64) -> bool {
    let is_new_run = record.made_in != Some(manager_run);
    let stopped = record.stopped_at.is_some();
    let is_leased = record.leases.iter().any(|lease| !lease.is_over(now));
    is_new_run && (is_leased || record.spec.restart.starts_with_manager(stopped))
}

/// The ports that are to be closed, then those that are to be opened, which may need a
/// place that was another's. A VM that runs stands in the way of neither.
pub fn ports(record: &Record, units: &[UnitState]) -> Vec<Action> {
    let is_known = |port: &PortMapping| record.spec.ports.contains(port);
    let there = units
        .iter()
        .filter(|state| state.active != Active::Inactive);
    let there: BTreeSet<PortMapping> = there
        .filter_map(|state| match state.unit.kind {
            UnitKind::PortSocket(port) | UnitKind::PortDoor(port) => Some(port),
            _ => None,
        })
        .collect();
    let closed = there.into_iter().filter(|port| !is_known(port));
    let lost = record.spec.ports.iter().copied().filter(|port| {
        let unit = UnitId::port_socket(&record.handle, *port);
        let by_hand = record.stopped_by_hand.contains_key(&unit.name());
        is_lost(units, &unit) && !by_hand
    });
    let closed = closed.map(Action::Unexpose);
    closed.chain(lost.map(Action::Expose)).collect()
}

/// Whether a socket does not listen and will not by itself.
fn is_lost(units: &[UnitState], unit: &UnitId) -> bool {
    let found = units.iter().find(|state| state.unit == *unit);
    found.is_none_or(|state| state.active == Active::Failed)
}

fn complete(record: &Record, units: &[UnitState]) -> Vec<Action> {
    let mut actions = Vec::new();
    for unit in wanted(record) {
        let found = units.iter().find(|state| state.unit == unit);
        let by_hand = record.stopped_by_hand.contains_key(&unit.name());
        match &unit.kind {
            UnitKind::Daemon(name) => {
                // One that failed for good is shown, not started again and again.
                if found.is_none() && !by_hand {
                    actions.push(Action::Launch(name.clone()));
                }
            }
            UnitKind::ApiSocket => {
                if is_lost(units, &unit) && !by_hand {
                    actions.push(Action::Listen);
                }
            }
            UnitKind::PortSocket(_) => {}
            _ => {
                let lost = is_lost(units, &unit);
                // A socket cannot be made while its service runs.
                if !by_hand && !vm_runs(record, units) {
                    match record.units_due.is_empty() {
                        true if lost => actions.push(Action::Open),
                        true => {}
                        false => actions.push(Action::Remake),
                    }
                }
            }
        }
    }
    actions.extend(ports(record, units));
    if limits_wait(record, units) {
        actions.push(Action::Limit);
    }
    let known = wanted(record);
    for state in units {
        let is_daemon = matches!(state.unit.kind, UnitKind::Daemon(_));
        if is_daemon && !known.contains(&state.unit) {
            actions.push(Action::Stop(state.unit.clone()));
        }
    }
    actions
}

/// Whether limits that were changed can be brought to the VM's unit. Only then are
/// they compared: what somebody set by hand on a unit stays.
fn limits_wait(record: &Record, units: &[UnitState]) -> bool {
    let vm = UnitId::vm(&record.handle);
    let unit = units.iter().find(|state| state.unit == vm);
    record.limits_due
        && unit.is_none_or(|unit| {
            let now = plans::limits_now(&record.spec, &unit.limits, vm_runs(record, units));
            now != unit.limits || plans::has_limits(&record.spec, &now)
        })
}

/// The units that an enabled instance has at rest.
pub fn wanted(record: &Record) -> Vec<UnitId> {
    let daemons = record.spec.daemons.iter();
    let daemons = daemons.map(|daemon| UnitId::daemon(&record.handle, &daemon.name));
    let ports = record.spec.ports.iter();
    let ports = ports.map(|port| UnitId::port_socket(&record.handle, *port));
    // Only daemons use it, and it is there before the first of them looks.
    let api = (!record.spec.daemons.is_empty()).then(|| UnitId::api_socket(&record.handle));
    std::iter::once(UnitId::sockets(&record.handle))
        .chain(ports)
        .chain(api)
        .chain(daemons)
        .collect()
}

/// Whether the VM's service is there in any form but an ended one.
pub fn vm_runs(record: &Record, units: &[UnitState]) -> bool {
    let vm = UnitId::vm(&record.handle);
    let ended = |state: &UnitState| matches!(state.active, Active::Inactive | Active::Failed);
    units.iter().any(|state| state.unit == vm && !ended(state))
}

/// Takes what people did with the service manager's own tools for intent:
/// `stopped` are the units that a stop job of somebody else's ended, with the
/// time, not yet judged. Returns whether the record changed.
pub fn adopt(record: &mut Record, units: &[UnitState], stopped: Vec<(UnitId, u64)>) -> bool {
    if record.intent != Intent::Enabled {
        return false;
    }
    let before = record.stopped_by_hand.clone();
    for (unit, at) in stopped {
        // The news may be older than the look; what is up was started since.
        if unit.handle == record.handle && !is_up(units, &unit) {
            record.stopped_by_hand.insert(unit.name(), at);
        }
    }
    let group = UnitId::group(&record.handle);
    let by_hand = &mut record.stopped_by_hand;
    if is_up(units, &group) && by_hand.contains_key(&group.name()) {
        // Whoever starts the group wants what was stopped with it.
        by_hand.clear();
    }
    for state in units {
        if is_up(units, &state.unit) {
            by_hand.remove(&state.unit.name());
        }
    }
    *by_hand != before
}

/// At aegisd's start: takes units that are missing for stopped by hand where the
/// service manager that made them is the same. Another run of the manager (a
/// reboot, a new login) begins with a clean slate. Returns whether the record
/// changed.
pub fn adopt_unseen(record: &mut Record, units: &[UnitState], manager_run: u64) -> bool {
    if record.intent != Intent::Enabled {
        return false;
    }
    if record.made_in != Some(manager_run) {
        let changed = !record.stopped_by_hand.is_empty();
        // What its restart policy makes of it outlives the clean slate.
        let vm = UnitId::vm(&record.handle).name();
        record.stopped_at = record
            .stopped_by_hand
            .get(&vm)
            .copied()
            .or(record.stopped_at);
        record.stopped_by_hand.clear();
        return changed;
    }
    let noted = |unit: &UnitId| record.stopped_by_hand.contains_key(&unit.name());
    let missing = wanted(record).into_iter().filter(|unit| !noted(unit));
    let missing = missing.filter(|unit| units.iter().all(|state| state.unit != *unit));
    let missing: Vec<_> = missing.map(|unit| (unit, UNSEEN)).collect();
    adopt(record, units, missing)
}

/// The time of a stop that nobody saw.
const UNSEEN: u64 = 0;

fn is_up(units: &[UnitState], unit: &UnitId) -> bool {
    let found = units.iter().find(|state| state.unit == *unit);
    found.is_some_and(|state| {
        matches!(
            state.active,
            Active::Active | Active::Reloading | Active::Activating
        )
    })
}

#[cfg(test)]
mod tests {
    use aegis_core::daemon::InstanceDaemon;
    use aegis_core::handle::Handle;
    use aegis_core::restart::RestartPolicy;
    use aegis_core::spec::InstanceSpec;

    use super::*;
    use crate::testing::unit_state;

    fn handle() -> Handle {
        "web".parse().unwrap()
    }

    fn record(intent: Intent) -> Record {
        let daemon = InstanceDaemon::new("gateway", "/g");
        let spec = InstanceSpec {
            daemons: vec![daemon],
            ..Default::default()
        };
        Record {
            intent,
            made_in: Some(1),
            ..Record::new(handle(), spec, 0)
        }
    }

    fn socket(active: Active) -> UnitState {
        unit_state(UnitId::sockets(&handle()), active)
    }

    fn vm(active: Active) -> UnitState {
        unit_state(UnitId::vm(&handle()), active)
    }

    fn api(active: Active) -> UnitState {
        unit_state(UnitId::api_socket(&handle()), active)
    }

    fn gateway(active: Active) -> UnitState {
        unit_state(UnitId::daemon(&handle(), "gateway"), active)
    }

    #[test]
    fn an_enabled_instance_is_completed_and_then_left_alone() {
        let record = record(Intent::Enabled);
        let launch = Action::Launch("gateway".into());
        assert_eq!(
            plan(&record, &[], 1, 0),
            [Action::Open, Action::Listen, launch.clone()]
        );
        let sockets = [socket(Active::Active), api(Active::Active)];
        assert_eq!(plan(&record, &sockets, 1, 0), [launch]);
        let lost = [
            socket(Active::Active),
            api(Active::Failed),
            gateway(Active::Active),
        ];
        assert_eq!(plan(&record, &lost, 1, 0), [Action::Listen]);
        let whole = [
            socket(Active::Active),
            api(Active::Active),
            gateway(Active::Active),
        ];
        assert_eq!(plan(&record, &whole, 1, 0), []);
        let asleep = [
            socket(Active::Active),
            api(Active::Active),
            gateway(Active::Activating),
            vm(Active::Inactive),
        ];
        assert_eq!(plan(&record, &asleep, 1, 0), []);
    }

    #[test]
    fn a_failed_socket_is_made_again_but_not_under_a_running_vm() {
        let record = record(Intent::Enabled);
        let failed = [
            socket(Active::Failed),
            api(Active::Active),
            gateway(Active::Active),
        ];
        assert_eq!(plan(&record, &failed, 1, 0), [Action::Open]);
        let running = [
            socket(Active::Failed),
            api(Active::Active),
            gateway(Active::Active),
            vm(Active::Active),
        ];
        assert_eq!(plan(&record, &running, 1, 0), []);
    }

    #[test]
    fn ports_come_and_go_while_the_vm_runs() {
        let [kept, new, old] = ["8080:80", "8081:81", "8081:80"].map(|port| port.parse().unwrap());
        let mut record = record(Intent::Enabled);
        record.spec.ports = vec![kept, new];
        let port = |port, active| unit_state(UnitId::port_socket(&handle(), port), active);
        let whole = |ports: [UnitState; 2]| {
            let rest = [socket(Active::Active), api(Active::Active)];
            let rest = rest
                .into_iter()
                .chain([gateway(Active::Active), vm(Active::Active)]);
            ports.into_iter().chain(rest).collect::<Vec<_>>()
        };
        let units = whole([port(kept, Active::Active), port(old, Active::Active)]);
        let changes = [Action::Unexpose(old), Action::Expose(new)];
        assert_eq!(plan(&record, &units, 1, 0), changes);
        let units = whole([port(kept, Active::Active), port(new, Active::Active)]);
        assert_eq!(plan(&record, &units, 1, 0), []);
        let units = whole([port(kept, Active::Failed), port(new, Active::Active)]);
        assert_eq!(plan(&record, &units, 1, 0), [Action::Expose(kept)]);
        let name = UnitId::port_socket(&handle(), kept).name();
        record.stopped_by_hand.insert(name, 5);
        assert_eq!(plan(&record, &units, 1, 0), []);
        let mut door = unit_state(UnitId::port_door(&handle(), old), Active::Failed);
        let units = |door| whole([door, port(new, Active::Active)]);
        assert_eq!(
            plan(&record, &units(door.clone()), 1, 0),
            [Action::Unexpose(old)]
        );
        door.active = Active::Inactive;
        assert_eq!(plan(&record, &units(door), 1, 0), [], "loaded and no more");
    }

    #[test]
    fn a_daemon_that_failed_for_good_is_shown_and_not_started() {
        let record = record(Intent::Enabled);
        assert_eq!(
            plan(
                &record,
                &[
                    socket(Active::Active),
                    api(Active::Active),
                    gateway(Active::Failed)
                ],
                1,
                0
            ),
            []
        );
    }

    #[test]
    fn what_was_stopped_by_hand_stays_stopped() {
        let mut record = record(Intent::Enabled);
        let stopped = wanted(&record).into_iter().map(|unit| (unit.name(), 5));
        record.stopped_by_hand = stopped.collect();
        assert_eq!(plan(&record, &[], 1, 0), []);
    }

    #[test]
    fn units_of_daemons_the_spec_does_not_know_are_stopped() {
        let record = record(Intent::Enabled);
        let stray = UnitId::daemon(&handle(), "stray");
        let units = [
            socket(Active::Active),
            api(Active::Active),
            gateway(Active::Active),
            unit_state(stray.clone(), Active::Active),
        ];
        assert_eq!(plan(&record, &units, 1, 0), [Action::Stop(stray)]);
    }

    #[test]
    fn changed_limits_reach_the_unit_as_soon_as_they_can() {
        let mut record = record(Intent::Enabled);
        let whole = |unit| {
            [
                socket(Active::Active),
                api(Active::Active),
                gateway(Active::Active),
                unit,
            ]
        };
        let mut running = vm(Active::Active);
        running.limits = plans::limits(&record.spec);
        record.spec.memory_mib /= 2;
        assert_eq!(
            plan(&record, &whole(running.clone()), 1, 0),
            [],
            "set by hand, perhaps"
        );
        record.limits_due = true;
        assert_eq!(
            plan(&record, &whole(running.clone()), 1, 0),
            [],
            "not under the guest"
        );
        let mut asleep = running.clone();
        asleep.active = Active::Inactive;
        assert_eq!(plan(&record, &whole(asleep), 1, 0), [Action::Limit]);
        record.spec.limits.cpu_quota = Some(10);
        assert_eq!(plan(&record, &whole(running), 1, 0), [Action::Limit]);
    }

    #[test]
    fn units_with_changed_settings_are_made_anew_once_no_vm_runs() {
        let mut record = record(Intent::Enabled);
        record.units_due.insert("volumes".to_owned());
        let whole = |vm_is| {
            [
                socket(Active::Active),
                api(Active::Active),
                gateway(Active::Active),
                vm(vm_is),
            ]
        };
        assert_eq!(plan(&record, &whole(Active::Active), 1, 0), []);
        assert_eq!(
            plan(&record, &whole(Active::Inactive), 1, 0),
            [Action::Remake]
        );
    }

    #[test]
    fn a_disabled_instance_has_no_units() {
        let record = record(Intent::Disabled);
        assert_eq!(plan(&record, &[], 1, 0), []);
        let stop = Action::Stop(UnitId::group(&handle()));
        assert_eq!(plan(&record, &[vm(Active::Active)], 1, 0), [stop]);
    }

    #[test]
    fn half_made_things_are_finished_or_undone() {
        assert_eq!(
            plan(&record(Intent::Creating), &[], 1, 0),
            [Action::FinishCreation]
        );
        assert_eq!(plan(&record(Intent::Purging), &[], 1, 0), [Action::Delete]);
        let mut ephemeral = record(Intent::Creating);
        ephemeral.spec.ephemeral = true;
        assert_eq!(
            plan(&ephemeral, &[vm(Active::Active)], 1, 0),
            [Action::Delete]
        );
    }

    #[test]
    fn an_ephemeral_instance_ends_with_its_vm() {
        let mut record = record(Intent::Enabled);
        record.spec.ephemeral = true;
        assert_eq!(plan(&record, &[vm(Active::Active)], 1, 0), []);
        assert_eq!(plan(&record, &[vm(Active::Deactivating)], 1, 0), []);
        for units in [vec![], vec![vm(Active::Inactive)], vec![vm(Active::Failed)]] {
            assert_eq!(plan(&record, &units, 1, 0), [Action::Delete]);
        }
    }

    #[test]
    fn a_policy_starts_the_vm_once_in_each_run_of_the_manager() {
        let mut record = record(Intent::Enabled);
        let whole = [
            socket(Active::Active),
            api(Active::Active),
            gateway(Active::Active),
        ];
        for (policy, stopped_at, start) in [
            (RestartPolicy::No, None, false),
            (RestartPolicy::OnFailure { most: None }, None, false),
            (RestartPolicy::Always, None, true),
            (RestartPolicy::Always, Some(7), true),
            (RestartPolicy::UnlessStopped, None, true),
            (RestartPolicy::UnlessStopped, Some(7), false),
        ] {
            record.spec.restart = policy;
            record.stopped_at = stopped_at;
            let wanted: &[Action] = if start { &[Action::Start] } else { &[] };
            assert_eq!(plan(&record, &whole, 2, 0), wanted, "{policy}");
            assert_eq!(
                plan(&record, &whole, 1, 0),
                [],
                "{policy}: not made in this run"
            );
        }
        let running = [
            socket(Active::Active),
            api(Active::Active),
            gateway(Active::Active),
            vm(Active::Active),
        ];
        record.spec.restart = RestartPolicy::Always;
        assert_eq!(plan(&record, &running, 2, 0), []);
    }

    #[test]
    fn a_unit_missing_in_the_same_run_was_stopped_by_hand() {
        let mut same = record(Intent::Enabled);
        let units = [socket(Active::Active), api(Active::Active)];
        assert!(adopt_unseen(&mut same, &units, 1));
        let name = "aegis-kit-web:gateway.service".to_owned();
        assert_eq!(same.stopped_by_hand, [(name, UNSEEN)].into());
        assert!(!adopt_unseen(&mut same, &units, 1));
        let mut rebooted = same.clone();
        assert!(adopt_unseen(&mut rebooted, &[], 2));
        assert!(rebooted.stopped_by_hand.is_empty());
        let mut never_made = record(Intent::Enabled);
        never_made.made_in = None;
        assert!(!adopt_unseen(&mut never_made, &[], 1));
    }

    #[test]
    fn what_was_stopped_is_noted_with_its_time_until_it_is_up_again() {
        let mut record = record(Intent::Enabled);
        let stopped = vec![(UnitId::vm(&handle()), 7), (UnitId::sockets(&handle()), 8)];
        let units = [vm(Active::Inactive)];
        assert!(adopt(&mut record, &units, stopped.clone()));
        let noted = [("aegis-vm-web.service", 7), ("aegis-vm-web.socket", 8)];
        let noted = noted.map(|(name, at)| (name.to_owned(), at));
        assert_eq!(record.stopped_by_hand, noted.into());
        assert!(!adopt(&mut record, &units, Vec::new()));
        let up = [vm(Active::Activating), socket(Active::Active)];
        assert!(
            adopt(&mut record, &up, stopped),
            "the news is older than the look"
        );
        assert!(record.stopped_by_hand.is_empty());
    }

    #[test]
    fn a_group_that_is_started_brings_all_of_it_back() {
        let mut record = record(Intent::Enabled);
        let group = UnitId::group(&handle());
        let stopped = vec![(group.clone(), 7), (UnitId::sockets(&handle()), 7)];
        assert!(adopt(&mut record, &[], stopped));
        let started = [unit_state(group, Active::Active)];
        assert!(adopt(&mut record, &started, Vec::new()));
        assert!(record.stopped_by_hand.is_empty());
    }

    #[test]
    fn nothing_is_adopted_of_an_instance_that_is_not_enabled() {
        let mut record = record(Intent::Disabled);
        assert!(!adopt(&mut record, &[], vec![(UnitId::vm(&handle()), 7)]));
    }
}
