//! Changing the settings of an instance that exists: all of a request or nothing.
//!
//! ```text
//!  request ─► apply (pure, checked) ─► registry ─► vm.json ─► limits of the unit
//!                                         ▲                        │ refused
//!                                         └──── as it was before ──┘
//! ```
//!
//! A crash between the registry and the unit leaves `limits_due` in the record,
//! which reconciliation carries out; so it does for limits that must wait for the
//! end of a VM.
//!
//! Volumes and the restart policy are of the VM's unit itself, which the manager does not
//! change: it is made anew, at once where no VM runs, else (`units_due`) by
//! reconciliation when the VM has ended. Ports have units of their own and change at once.

use std::collections::{BTreeMap, BTreeSet};

use aegis_bus::instance::UpdateRequest;
use aegis_core::network;
use aegis_core::spec::{DEFAULT_DISK_MIB, InstanceSpec, SpecError};
use aegis_core::volume::Volume;

use super::work::Work;
use super::{InstanceError, plans, ports, shares};
use crate::jobs::{Outcome, Reporter};
use crate::reconcile;
use crate::registry::Record;
use crate::supervisor::UnitId;

/// Whether two specs differ in a setting.
type Differ = fn(&InstanceSpec, &InstanceSpec) -> bool;

/// Settings a VM has only from its next start on, by their names in a request.
const AT_START: [(&str, Differ); 12] = [
    ("memory", |a, b| a.memory_mib != b.memory_mib),
    ("cpus", |a, b| a.cpus != b.cpus),
    ("disk", |a, b| a.disk_mib != b.disk_mib),
    ("read-only", |a, b| a.read_only != b.read_only),
    ("entrypoint", |a, b| a.entrypoint != b.entrypoint),
    ("command", |a, b| {
        (&a.command, a.terminal) != (&b.command, b.terminal)
    }),
    ("env", |a, b| (&a.env, &a.secrets) != (&b.env, &b.secrets)),
    ("workdir", |a, b| a.workdir != b.workdir),
    ("user", |a, b| a.user != b.user),
    ("network", |a, b| {
        (a.network, &a.allowed_hosts) != (b.network, &b.allowed_hosts)
    }),
    (RESTART, |a, b| a.restart != b.restart),
    (VOLUMES, |a, b| a.volumes != b.volumes),
];
/// Those among them that the units have too.
const OF_UNITS: [&str; 2] = [RESTART, VOLUMES];
const RESTART: &str = "restart";
const VOLUMES: &str = "volumes";

/// The record with the changes in it but those of ports.
///
/// # Errors
/// The first value that is not acceptable.
pub(super) fn apply(before: &Record, mut request: UpdateRequest) -> Result<Record, SpecError> {
    let mut record = before.clone();
    let spec = &mut record.spec;
    spec.memory_mib = request.memory_mib.unwrap_or(spec.memory_mib);
    spec.cpus = request.cpus.unwrap_or(spec.cpus);
    spec.restart = request.restart.unwrap_or(spec.restart);
    spec.read_only = request.read_only.unwrap_or(spec.read_only);
    spec.idle.pause = request.idle_pause.unwrap_or(spec.idle.pause);
    spec.idle.hibernate = request.idle_hibernate.unwrap_or(spec.idle.hibernate);
    if let Some(mib) = request.disk_mib {
        grow(&mut spec.disk_mib, mib)?;
    }
    run(spec, &mut request)?;
    for (setting, change) in [
        (&mut spec.workdir, request.workdir),
        (&mut spec.user, request.user),
    ] {
        if let Some(text) = change {
            *setting = (!text.is_empty()).then_some(text);
        }
    }
    network::check_request(request.network, &request.allowed_hosts)?;
    spec.network = request.network.unwrap_or(spec.network);
    let gone = &request.remove_allowed_hosts;
    spec.allowed_hosts.retain(|host| !gone.contains(host));
    for host in request.allowed_hosts {
        if !spec.allowed_hosts.contains(&host) {
            spec.allowed_hosts.push(host);
        }
    }
    show(&mut spec.volumes, request.volumes, &request.remove_volumes);
    for (limit, change) in [
        (&mut spec.limits.memory_max_mib, request.memory_max_mib),
        (&mut spec.limits.cpu_quota, request.cpu_quota),
        (&mut spec.limits.tasks_max, request.tasks_max),
    ] {
        if let Some(number) = change {
            *limit = (number != 0).then_some(number);
        }
    }
    edit(&mut spec.labels, request.labels, &request.remove_labels);
    // A plain value takes the place of a secret one.
    spec.secrets.retain(|variable, _| {
        !request.remove_env.contains(variable) && !request.env.contains_key(variable)
    });
    edit(&mut spec.env, request.env, &request.remove_env);
    spec.validate()?;
    let next = before.revision() + 1;
    let (old, new) = (&before.spec, &record.spec);
    let mut waits = false;
    for (name, _) in AT_START.into_iter().filter(|(_, differ)| differ(old, new)) {
        waits = true;
        record.revisions.insert(name.to_owned(), next);
        if OF_UNITS.contains(&name) {
            record.units_due.insert(name.to_owned());
        }
    }
    if old.volumes != new.volumes && record.volumes_before.is_none() {
        record.volumes_before = Some(old.volumes.clone());
    }
    // Labels are in the registry alone; everything else has to reach files and unit.
    record.limits_due |= waits || old.limits != new.limits || old.idle != new.idle;
    Ok(record)
}

/// The settings that a VM started with a revision does not have yet, or its units.
pub(super) fn pending(record: &Record, of_vm: u64) -> Vec<String> {
    let later = record.revisions.iter();
    let later = later.filter(|(_, revision)| **revision > of_vm);
    let names: BTreeSet<&String> = later
        .map(|(name, _)| name)
        .chain(&record.units_due)
        .collect();
    names.into_iter().cloned().collect()
}

/// The record as it was before a change of which some may have been carried out: `now`
/// says how far that came. What it asked the manager for is due again, since the manager
/// may have done it.
fn taken_back(before: Record, wanted: &Record, now: &Record) -> Record {
    let has = now.unit_volumes();
    let volumes_before = (has != before.spec.volumes).then(|| has.to_vec());
    Record {
        limits_due: wanted.limits_due,
        units_due: wanted.units_due.clone(),
        made_in: now.made_in,
        volumes_before,
        ..before
    }
}

/// A disk's file system is never made smaller: what lies at its end would be lost.
fn grow(disk_mib: &mut Option<u32>, mib: u32) -> Result<(), SpecError> {
    let before = disk_mib.unwrap_or(DEFAULT_DISK_MIB);
    if mib < before {
        return Err(SpecError::DiskShrinks { before, mib });
    }
    if mib > before {
        *disk_mib = Some(mib);
    }
    Ok(())
}

/// What runs after boot, and on what.
fn run(spec: &mut InstanceSpec, request: &mut UpdateRequest) -> Result<(), SpecError> {
    if request.remove_entrypoint || request.entrypoint.is_some() {
        spec.entrypoint = request.entrypoint.take();
    }
    if let Some(command) = request.command.take() {
        if spec.ephemeral && !command.is_empty() {
            return Err(SpecError::EphemeralCommand);
        }
        spec.command = command;
    }
    // A command from a kit or an image is no dialogue.
    spec.terminal = request.terminal.unwrap_or(spec.terminal) && !spec.command.is_empty();
    Ok(())
}

/// Removes volumes by their targets, and adds others or puts them in the place of what
/// has that target.
fn show(volumes: &mut Vec<Volume>, add: Vec<Volume>, remove: &[String]) {
    volumes.retain(|volume| !remove.contains(&volume.target));
    for new in add {
        match volumes.iter_mut().find(|v| v.target == new.target) {
            Some(volume) => *volume = new,
            None => volumes.push(new),
        }
    }
}

fn edit(map: &mut BTreeMap<String, String>, set: BTreeMap<String, String>, remove: &[String]) {
    map.retain(|key, _| !remove.contains(key));
    map.extend(set);
}

/// Checks that there are volumes with these targets.
fn has_volumes(record: &Record, targets: &[String]) -> Result<(), InstanceError> {
    let volumes = &record.spec.volumes;
    let unknown = |target: &&String| volumes.iter().all(|volume| volume.target != **target);
    match targets.iter().find(unknown) {
        Some(target) => Err(InstanceError::NoVolume(target.clone())),
        None => Ok(()),
    }
}

impl Work {
    pub(super) async fn update(
        &self,
        request: UpdateRequest,
        report: &Reporter,
    ) -> Result<Outcome, InstanceError> {
        self.check_not_deleting()?;
        let before = self.record.borrow().clone();
        let _volumes = self.shared.volumes_stay.read().await;
        has_volumes(&before, &request.remove_volumes)?;
        let asked = request.ports.clone();
        let wanted = ports::changed(&before.spec.ports, &asked, &request.remove_ports)?;
        let mut after = apply(&before, request).map_err(InstanceError::Settings)?;
        let (ports, numbered) = self.shared.number(wanted).await?;
        after.spec.ports = ports;
        after.spec.validate().map_err(InstanceError::Settings)?;
        let touched = ports::touched(&self.handle, &before.spec, &after.spec, &asked);
        after
            .stopped_by_hand
            .retain(|unit, _| !touched.contains(unit));
        if after == before {
            return Ok(Outcome::Unchanged);
        }
        if !touched.is_empty() {
            // Without this a crash on the way would leave what looks stopped by hand.
            after.made_in = None;
        }
        let had = |volume: &&Volume| before.spec.volumes.contains(volume);
        shares::check_volumes(
            &self.shared.host,
            after.creator,
            after.spec.volumes.iter().filter(|volume| !had(volume)),
        )?;
        report.says("writing the settings down");
        self.intend(|record| *record = after.clone()).await?;
        drop(numbered);
        let Err(failure) = self.carry_out(before.made_in).await else {
            return Ok(Outcome::Changed);
        };
        report.says("taking the change back");
        let made_in = before.made_in;
        let mut errors = vec![failure];
        let back = |record: &mut Record| *record = taken_back(before, &after, record);
        errors.extend(self.intend(back).await.err());
        errors.extend(self.limit().await.err());
        errors.extend(self.remake().await.err());
        errors.extend(self.arrange_ports().await.err());
        errors.extend(self.note_made_as(made_in).await.err());
        InstanceError::all(errors).map(|()| Outcome::Changed)
    }

    async fn carry_out(&self, made_in: Option<u64>) -> Result<(), InstanceError> {
        let due = self.record.borrow().limits_due;
        if due {
            self.limit().await?;
        }
        self.remake().await?;
        self.arrange_ports().await?;
        self.note_made_as(made_in).await
    }

    /// Notes again in which run of the manager all units were made, if they were.
    async fn note_made_as(&self, made_in: Option<u64>) -> Result<(), InstanceError> {
        match made_in == Some(self.shared.facts.started_at) {
            true => self.note_made().await,
            false => Ok(()),
        }
    }

    /// Makes the VM's unit and its control socket anew if settings of theirs were changed
    /// and no VM runs. Connections to its ports wait for that moment.
    pub(super) async fn remake(&self) -> Result<Outcome, InstanceError> {
        let record = self.record.borrow().clone();
        if record.units_due.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        let units = self.shared.supervisor.list(Some(&self.handle)).await?;
        if reconcile::vm_runs(&record, &units) {
            return Ok(Outcome::Unchanged);
        }
        let sockets = UnitId::sockets(&self.handle);
        // Units that are not there are made with the new settings one day.
        if record.is_enabled() && !record.stopped_by_hand.contains_key(&sockets.name()) {
            // Without this a crash in between would leave what looks stopped by hand.
            self.intend(|record| {
                record.made_in = None;
                record.volumes_before = None;
            })
            .await?;
            self.stop_unit(&sockets).await?;
            self.open().await?;
            self.note_made().await?;
        }
        self.intend(|record| {
            record.units_due.clear();
            record.volumes_before = None;
        })
        .await?;
        Ok(Outcome::Changed)
    }

    /// Brings changed settings to the files of the units, to the owner of a VM that runs
    /// when it may sleep, and to the VM's unit the limits it can have now.
    pub(super) async fn limit(&self) -> Result<Outcome, InstanceError> {
        self.write_files().await?;
        let units = self.shared.supervisor.list(Some(&self.handle)).await?;
        let record = self.record.borrow().clone();
        // Nobody is woken to be told when to sleep.
        if reconcile::vm_runs(&record, &units) {
            self.tell_keep().await?;
        }
        let vm = self.vm();
        let mut in_the_end = true;
        // Without a unit there is nothing to change: it is made with its limits.
        if let Some(unit) = units.iter().find(|state| state.unit == vm) {
            let runs = reconcile::vm_runs(&record, &units);
            let now = plans::limits_now(&record.spec, &unit.limits, runs);
            if now != unit.limits {
                self.shared.supervisor.limit(&vm, &now).await?;
            }
            in_the_end = plans::has_limits(&record.spec, &now);
        }
        if in_the_end {
            self.intend(|record| record.limits_due = false).await?;
        }
        Ok(Outcome::Changed)
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::restart::RestartPolicy;

    use super::*;

    fn record() -> Record {
        let spec = InstanceSpec {
            labels: [("a".into(), "1".into()), ("b".into(), "2".into())].into(),
            env: [("A".into(), "1".into())].into(),
            ..InstanceSpec::default()
        };
        Record::new("web".parse().unwrap(), spec, 0)
    }

    #[test]
    fn what_is_absent_stays_and_what_waits_is_numbered() {
        let request = UpdateRequest {
            memory_mib: Some(512),
            labels: [("b".into(), "3".into())].into(),
            remove_labels: vec!["a".into()],
            ..UpdateRequest::default()
        };
        let changed = apply(&record(), request).unwrap();
        assert_eq!((changed.spec.memory_mib, changed.spec.cpus), (512, 1));
        assert_eq!(changed.spec.labels, [("b".into(), "3".into())].into());
        assert_eq!(changed.revisions, [("memory".into(), 1)].into());
        assert!(
            changed.limits_due,
            "the memory limit follows the guest's memory"
        );
        let request = UpdateRequest {
            env: [("B".into(), "2".into())].into(),
            ..UpdateRequest::default()
        };
        let again = apply(&changed, request).unwrap();
        assert_eq!(again.revision(), 2);
        assert_eq!(pending(&again, 0), ["env", "memory"]);
        assert_eq!(pending(&again, 1), ["env"]);
        assert!(pending(&again, 2).is_empty());
    }

    #[test]
    fn a_policy_waits_for_a_unit_that_is_made_anew() {
        let request = UpdateRequest {
            restart: Some(RestartPolicy::Always),
            ..UpdateRequest::default()
        };
        let policy = apply(&record(), request).unwrap();
        assert_eq!(policy.units_due, ["restart".to_owned()].into());
        assert_eq!(
            pending(&policy, policy.revision()),
            ["restart"],
            "a VM that started again has the policy of its unit"
        );
    }

    #[test]
    fn a_disk_only_grows() {
        let request = |mib| UpdateRequest {
            disk_mib: Some(mib),
            ..UpdateRequest::default()
        };
        let grown = apply(&record(), request(DEFAULT_DISK_MIB + 1)).unwrap();
        assert_eq!(grown.spec.disk_mib, Some(DEFAULT_DISK_MIB + 1));
        assert_eq!(pending(&grown, 0), ["disk"]);
        let same = apply(&record(), request(DEFAULT_DISK_MIB)).unwrap();
        assert_eq!(same.spec, record().spec);
        let less = apply(&grown, request(DEFAULT_DISK_MIB));
        assert!(matches!(less, Err(SpecError::DiskShrinks { .. })));
        let more = apply(&record(), request(u32::MAX));
        assert_eq!(more, Err(SpecError::Disk(u32::MAX)));
    }

    #[test]
    fn what_runs_is_what_was_given_or_the_image_s_own_again() {
        let words = |text: &str| Some(text.split_whitespace().map(str::to_owned).collect());
        let given = UpdateRequest {
            entrypoint: words("tini --"),
            command: words("sleep 9"),
            terminal: Some(true),
            workdir: Some("/srv".into()),
            user: Some("1000".into()),
            read_only: Some(true),
            ..UpdateRequest::default()
        };
        let changed = apply(&record(), given).unwrap();
        assert!(changed.spec.terminal && changed.spec.read_only);
        assert_eq!(
            pending(&changed, 0),
            ["command", "entrypoint", "read-only", "user", "workdir"]
        );
        let own = UpdateRequest {
            remove_entrypoint: true,
            command: Some(Vec::new()),
            workdir: Some(String::new()),
            user: Some(String::new()),
            read_only: Some(false),
            ..UpdateRequest::default()
        };
        assert_eq!(apply(&changed, own).unwrap().spec, record().spec);
        let mut ephemeral = record();
        ephemeral.spec.ephemeral = true;
        let command = UpdateRequest {
            command: words("sleep"),
            ..UpdateRequest::default()
        };
        let refused = apply(&ephemeral, command);
        assert_eq!(refused, Err(SpecError::EphemeralCommand));
    }

    #[test]
    fn a_unit_keeps_its_volumes_until_it_is_made_anew() {
        let request = |volumes: &[&str], remove: &[&str]| UpdateRequest {
            volumes: volumes.iter().map(|text| text.parse().unwrap()).collect(),
            remove_volumes: remove.iter().map(|&text| text.to_owned()).collect(),
            ..UpdateRequest::default()
        };
        let texts = |volumes: &[Volume]| -> Vec<String> {
            volumes.iter().map(ToString::to_string).collect()
        };
        let first = apply(&record(), request(&["/a:/data", "b:/b"], &[])).unwrap();
        assert_eq!(first.units_due, ["volumes".to_owned()].into());
        assert!(first.unit_volumes().is_empty());
        let second = apply(&first, request(&["/c:/data:ro"], &["/b"])).unwrap();
        assert_eq!(texts(&second.spec.volumes), ["/c:/data:ro"]);
        assert!(second.unit_volumes().is_empty());
        assert_eq!(pending(&second, second.revision()), ["volumes"]);
        assert!(has_volumes(&second, &["/data".to_owned()]).is_ok());
        assert!(has_volumes(&second, &["/b".to_owned()]).is_err());
    }

    #[test]
    fn what_was_carried_out_of_a_change_is_due_again_when_it_is_taken_back() {
        let request = UpdateRequest {
            cpu_quota: Some(50),
            volumes: vec!["/a:/data".parse().unwrap()],
            ..UpdateRequest::default()
        };
        let before = record();
        let wanted = apply(&before, request).unwrap();
        let untouched = taken_back(before.clone(), &wanted, &wanted);
        assert_eq!(untouched.spec, before.spec);
        assert!(untouched.limits_due && untouched.units_due.contains("volumes"));
        assert!(untouched.volumes_before.is_none());
        let carried_out = Record {
            limits_due: false,
            units_due: BTreeSet::new(),
            volumes_before: None,
            ..wanted.clone()
        };
        let undone = taken_back(before.clone(), &wanted, &carried_out);
        assert_eq!(undone.spec, before.spec);
        assert!(undone.limits_due && undone.units_due.contains("volumes"));
        assert_eq!(undone.unit_volumes(), wanted.spec.volumes);
    }

    #[test]
    fn labels_wait_for_nothing() {
        let request = UpdateRequest {
            labels: [("c".into(), String::new())].into(),
            ..UpdateRequest::default()
        };
        let changed = apply(&record(), request).unwrap();
        assert!(changed.revisions.is_empty() && !changed.limits_due);
    }

    #[test]
    fn a_limit_of_0_is_taken_back() {
        let request = |quota| UpdateRequest {
            cpu_quota: Some(quota),
            ..UpdateRequest::default()
        };
        let limited = apply(&record(), request(50)).unwrap();
        assert_eq!(limited.spec.limits.cpu_quota, Some(50));
        assert!(limited.limits_due && limited.revisions.is_empty());
        let freed = apply(&limited, request(0)).unwrap();
        assert_eq!(freed.spec.limits.cpu_quota, None);
    }

    #[test]
    fn one_bad_value_refuses_the_whole() {
        let request = UpdateRequest {
            cpus: Some(2),
            memory_mib: Some(1),
            ..UpdateRequest::default()
        };
        assert_eq!(apply(&record(), request), Err(SpecError::Memory(1)));
    }
}
