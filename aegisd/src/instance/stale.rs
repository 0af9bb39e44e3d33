//! Secrets that are other ones by now than a running daemon or guest was given.
//!
//! ```text
//!  a unit asks for its secrets ─► note (registry): this run has these versions
//!                                   │
//!  units and VM as they are ────────┼──► held: who has an older version than there is now
//!  versions of now (registry) ──────┘
//! ```
//!
//! A note counts for the run of a unit that it was made for, so it never outlives that
//! run: a start that asked nobody, or whose note could not be written, is not known to
//! be stale. A machine on the disk is no run; it has what its guest was booted with.
//!
//! Only secrets that the instance uses still are told: a variable that was taken from it
//! is a setting that waits for the next start, and told as such.

use std::collections::BTreeSet;

use aegis_bus::instance::StaleSecret;
use aegis_bus::secrets::StaleUser;
use aegis_core::control::VmStatus;
use aegis_core::lifecycle::VmState;
use aegis_core::secret::{SecretName, SecretSource};
use aegis_core::units::UnitKind;

use super::work::Work;
use super::{Instance, InstanceError, Shared, blocking, now_us, sleep};
use crate::jobs::{Outcome, Reporter};
use crate::registry::{Given, Record, Registry, SecretId, Versions};
use crate::supervisor::UnitId;
use crate::supervisor::state::UnitState;

/// What the units of an instance were given, and what there is now.
#[derive(Debug, Default)]
pub(super) struct Notes {
    given: Vec<Given>,
    now: Versions,
}

/// Who can have a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    Daemon(String),
    Guest,
}

impl Notes {
    /// As they are in the registry; none where that cannot be read.
    pub(super) async fn read(shared: &Shared, record: &Record) -> Self {
        if record.spec.secrets.is_empty() {
            return Self::default();
        }
        let handle = &record.handle;
        match shared.registry.given(handle.clone()).await {
            Ok((given, now)) => Self { given, now },
            Err(error) => {
                let fault = error.fault();
                tracing::warn!(instance = %handle, "{handle}: {fault}, ignoring");
                Self::default()
            }
        }
    }

    /// Takes note of a guest that was booted though its machine was on the disk: it has
    /// what its unit was given.
    pub(super) async fn settle(
        &mut self,
        registry: &Registry,
        vm: &UnitId,
        seen: Option<&VmStatus>,
    ) {
        if seen.is_none_or(|vm| vm.not_restored.is_none()) {
            return;
        }
        let name = vm.name();
        let given = self.given.iter_mut().find(|given| given.unit == name);
        let Some(given) = given.filter(|given| given.machine.is_some()) else {
            return;
        };
        given.machine = None;
        if let Err(error) = registry.note_booted(name).await {
            let (handle, fault) = (&vm.handle, error.fault());
            tracing::warn!(instance = %handle, "{handle}: {fault}, ignoring");
        }
    }

    /// The secrets of which somebody has an older version, by name. `saved`: there is a
    /// machine on the disk, as far as there is no VM.
    pub(super) fn stale(
        &self,
        record: &Record,
        units: &[UnitState],
        vm: Option<&VmStatus>,
        saved: bool,
    ) -> Vec<StaleSecret> {
        let used = used(record);
        let mut stale: Vec<StaleSecret> = Vec::new();
        for given in &self.given {
            let Some((holder, has)) = holder(given, units, vm, saved) else {
                continue;
            };
            for (id, version) in has.iter().filter(|(id, _)| used.contains(id)) {
                let now = self.now.get(id);
                if now == Some(version) {
                    continue;
                }
                let known = stale
                    .iter()
                    .position(|one| (&one.name, one.own) == (&id.name, id.own));
                let at = known.unwrap_or_else(|| {
                    stale.push(StaleSecret {
                        name: id.name.clone(),
                        own: id.own,
                        set_at_us: now.copied().unwrap_or(0),
                        ..StaleSecret::default()
                    });
                    stale.len() - 1
                });
                match &holder {
                    Holder::Daemon(daemon) => stale[at].daemons.push(daemon.clone()),
                    Holder::Guest => stale[at].guest = true,
                }
            }
        }
        for one in &mut stale {
            one.daemons.sort();
        }
        stale.sort_by(|a, b| (&a.name, a.own).cmp(&(&b.name, b.own)));
        stale
    }
}

/// Who has what a note says, if somebody has it still.
fn holder<'a>(
    given: &'a Given,
    units: &[UnitState],
    vm: Option<&VmStatus>,
    saved: bool,
) -> Option<(Holder, &'a Versions)> {
    let unit = UnitId::parse(&given.unit)?;
    let runs = units
        .iter()
        .find(|state| state.unit == unit && state.main_pid.is_some());
    let is_this_run = runs.is_some_and(|state| !given.run.is_empty() && state.run == given.run);
    match unit.kind {
        UnitKind::Daemon(daemon) => is_this_run.then_some((Holder::Daemon(daemon), &given.secrets)),
        UnitKind::Vm => {
            let has_guest = match runs {
                Some(_) => is_this_run && !vm.is_some_and(is_without_guest),
                None => saved,
            };
            has_guest.then(|| (Holder::Guest, given.of_guest()))
        }
        _ => None,
    }
}

/// Whether the owner of a VM has none any more.
fn is_without_guest(vm: &VmStatus) -> bool {
    matches!(vm.state, VmState::Failed | VmState::Resting)
}

/// The secrets that an instance uses.
fn used(record: &Record) -> BTreeSet<SecretId> {
    let sources = record.spec.secrets.iter();
    let ids = sources.map(|(variable, source)| match source {
        SecretSource::Named(name) => SecretId {
            own: false,
            name: name.to_string(),
        },
        SecretSource::Own => SecretId {
            own: true,
            name: variable.clone(),
        },
    });
    ids.collect()
}

/// Whether one of these is meant; all are where none is named. An instance's own has no
/// name that others could mean.
fn is_meant(stale: &StaleSecret, names: &[String]) -> bool {
    names.is_empty() || (!stale.own && names.contains(&stale.name))
}

impl Instance {
    /// Notes what a unit that starts is given, before it is.
    ///
    /// A start does not fail for want of a note: what is not noted is not known.
    pub async fn note_given(&self, unit: &UnitId, versions: Versions) {
        let noted = async {
            let registry = &self.shared.registry;
            if versions.is_empty() {
                // Most instances: they wait for no manager and no disk.
                registry.forget_given(unit.name()).await?;
                return Ok(());
            }
            let units = self.shared.supervisor.list(Some(&self.handle)).await?;
            let run = units.into_iter().find(|state| state.unit == *unit);
            let given = Given {
                unit: unit.name(),
                run: run.map(|state| state.run).unwrap_or_default(),
                secrets: versions,
                machine: None,
            };
            let path = self.shared.host.layout.instance(&self.handle).snapshot();
            let on_disk = unit.kind == UnitKind::Vm
                && blocking(move || aegis_core::snapshot::counts(&path)).await;
            registry
                .note_given(self.handle.clone(), given, on_disk)
                .await?;
            Ok::<_, InstanceError>(())
        };
        if let Err(error) = noted.await {
            let (handle, fault) = (&self.handle, error.fault());
            tracing::warn!(
                instance = %handle,
                "{handle}: which secrets {} has is not noted: {fault}, ignoring", unit.name()
            );
        }
        self.secrets_may_differ();
    }

    /// Whether it is given any secret.
    pub fn has_secrets(&self) -> bool {
        !self.record.borrow().spec.secrets.is_empty()
    }

    /// Whether it is given one of these.
    pub fn uses_secrets(&self, names: &BTreeSet<SecretName>) -> bool {
        let record = self.record.borrow();
        let mut sources = record.spec.secrets.values();
        sources.any(|source| matches!(source, SecretSource::Named(name) if names.contains(name)))
    }

    /// Tells it that values of secrets may be others than before, or who has them.
    pub fn secrets_may_differ(&self) {
        self.notice.tell(|news| news.secrets = true);
    }

    /// Who of it has older values than there are now, of these secrets or of any.
    ///
    /// # Errors
    /// The service manager does not answer.
    pub async fn stale(&self, names: &[String]) -> Result<Option<StaleUser>, InstanceError> {
        let record = self.record.borrow().clone();
        let seen = self.seen();
        let user = look(&self.shared, &record, seen.as_ref(), names).await?;
        Ok(Some(user).filter(|user| !user.secrets.is_empty()))
    }
}

/// Asks everybody anew.
async fn look(
    shared: &Shared,
    record: &Record,
    vm: Option<&VmStatus>,
    names: &[String],
) -> Result<StaleUser, InstanceError> {
    let notes = Notes::read(shared, record).await;
    let units = shared.supervisor.list(Some(&record.handle)).await?;
    let path = shared.host.layout.instance(&record.handle).snapshot();
    let saved = blocking(move || aegis_core::snapshot::counts(&path)).await;
    let id = UnitId::vm(&record.handle);
    let runs = units
        .iter()
        .any(|state| state.unit == id && state.main_pid.is_some());
    let mut secrets = notes.stale(record, &units, vm, saved);
    secrets.retain(|stale| is_meant(stale, names));
    Ok(StaleUser {
        instance: record.handle.to_string(),
        hibernated: !runs && secrets.iter().any(|stale| stale.guest),
        ephemeral: record.spec.ephemeral,
        secrets,
    })
}

impl Work {
    /// Brings the secrets of now to who has older ones. Goes on through failures, since
    /// each is one less that has an old one.
    pub(super) async fn refresh(
        &self,
        names: &[String],
        report: &Reporter,
    ) -> Result<Outcome, InstanceError> {
        self.check_not_deleting()?;
        let record = self.record.borrow().clone();
        let seen = self.status.borrow().clone();
        let user = look(&self.shared, &record, seen.as_ref(), names).await?;
        // One that lives for one command ends with its VM.
        if user.secrets.is_empty() || user.ephemeral {
            return Ok(Outcome::Unchanged);
        }
        let stale = &user.secrets;
        let daemons: BTreeSet<&String> = stale.iter().flat_map(|one| &one.daemons).collect();
        let mut errors = Vec::new();
        for daemon in daemons {
            report.says(&format!("restarting {daemon}"));
            let unit = UnitId::daemon(&self.handle, daemon);
            let restarted = self.shared.supervisor.restart(&unit).await;
            errors.extend(restarted.err().map(InstanceError::from));
        }
        if stale.iter().any(|one| one.guest) {
            let renewed = match user.hibernated {
                true => self.put_down(report).await,
                false => self.reboot(report).await,
            };
            errors.extend(renewed.err());
        }
        InstanceError::all(errors).map(|()| Outcome::Changed)
    }

    /// Ends a machine on the disk in order, so that the next use boots. To nobody else
    /// it was stopped.
    async fn put_down(&self, report: &Reporter) -> Result<(), InstanceError> {
        let stopped_at = self.record.borrow().stopped_at;
        self.stop(None, report).await?;
        self.intend(|record| record.stopped_at = stopped_at).await
    }

    /// Starts the VM anew. What keeps it awake stays.
    async fn reboot(&self, report: &Reporter) -> Result<(), InstanceError> {
        let leases = sleep::current(&self.record.borrow(), now_us());
        let before = self.status.borrow().clone();
        self.stop(None, report).await?;
        self.forget_vm(before.as_ref()).await;
        if !leases.is_empty() {
            self.lease(leases).await?;
        }
        self.start(report).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::fault::{Fault, Symbol};
    use aegis_core::spec::InstanceSpec;

    use super::*;
    use crate::supervisor::state::Active;
    use crate::testing::{unit_state, vm_status};

    fn id(own: bool, name: &str) -> SecretId {
        let name = name.to_owned();
        SecretId { own, name }
    }

    fn record() -> Record {
        let spec = InstanceSpec {
            secrets: [
                ("A".to_owned(), SecretSource::Named("KEY".parse().unwrap())),
                ("B".to_owned(), SecretSource::Named("KEY".parse().unwrap())),
                ("OWN".to_owned(), SecretSource::Own),
            ]
            .into(),
            ..InstanceSpec::default()
        };
        Record::new("web".parse().unwrap(), spec, 0)
    }

    fn daemon() -> UnitId {
        UnitId::daemon(&"web".parse().unwrap(), "gateway")
    }

    fn vm() -> UnitId {
        UnitId::vm(&"web".parse().unwrap())
    }

    fn given(unit: &UnitId, key: u64) -> Given {
        Given {
            unit: unit.name(),
            run: "r".into(),
            secrets: [
                (id(false, "KEY"), key),
                (id(true, "OWN"), 1),
                (id(false, "OTHER"), 0),
            ]
            .into(),
            machine: None,
        }
    }

    fn notes(given: Vec<Given>) -> Notes {
        let now = [(id(false, "KEY"), 2), (id(true, "OWN"), 1)].into();
        Notes { given, now }
    }

    fn runs(unit: UnitId, run: &str) -> UnitState {
        let mut state = unit_state(unit, Active::Active);
        state.main_pid = Some(7);
        state.run = run.into();
        state
    }

    #[test]
    fn who_runs_with_an_older_version_is_told() {
        let notes = notes(vec![given(&daemon(), 1), given(&vm(), 1)]);
        let stale = |units: &[UnitState]| notes.stale(&record(), units, None, false);
        let both = stale(&[runs(daemon(), "r"), runs(vm(), "r")]);
        let expected = StaleSecret {
            name: "KEY".into(),
            own: false,
            daemons: vec!["gateway".into()],
            guest: true,
            set_at_us: 2,
        };
        assert_eq!(
            both,
            [expected],
            "a secret that it does not use is left out"
        );
        assert_eq!(stale(&[]), []);
        // A note is of one run.
        assert_eq!(stale(&[runs(daemon(), "s"), runs(vm(), "")]), []);
        let ended = unit_state(daemon(), Active::Failed);
        assert_eq!(stale(&[ended]), []);
    }

    #[test]
    fn what_is_as_given_is_not_told_and_what_is_gone_is() {
        let units = [runs(daemon(), "r")];
        let mut notes = notes(vec![given(&daemon(), 2)]);
        assert_eq!(notes.stale(&record(), &units, None, false), []);
        notes.now.clear();
        let gone = notes.stale(&record(), &units, None, false);
        let names: Vec<_> = gone.iter().map(|one| (&*one.name, one.set_at_us)).collect();
        assert_eq!(names, [("KEY", 0), ("OWN", 0)]);
        assert!(is_meant(&gone[0], &["KEY".into()]) && is_meant(&gone[1], &[]));
        assert!(!is_meant(&gone[1], &["OWN".into()]));
    }

    #[test]
    fn a_machine_on_the_disk_has_what_it_was_booted_with() {
        let mut woken = given(&vm(), 2);
        woken.machine = Some([(id(false, "KEY"), 1)].into());
        let notes = notes(vec![woken]);
        let guest = |units: &[UnitState], vm: Option<&VmStatus>, saved| {
            !notes.stale(&record(), units, vm, saved).is_empty()
        };
        assert!(guest(&[], None, true));
        assert!(!guest(&[], None, false));
        let units = [runs(vm(), "r")];
        assert!(guest(&units, Some(&vm_status(VmState::Running)), false));
        assert!(!guest(&units, Some(&vm_status(VmState::Resting)), false));
    }

    #[tokio::test]
    async fn a_guest_that_was_booted_all_the_same_has_what_its_unit_was_given() {
        let root = tempfile::tempdir().unwrap();
        let registry = Registry::open(&root.path().join("r.db")).unwrap();
        let handle = record().handle;
        let note = async |on_disk| {
            let noted = registry.note_given(handle.clone(), given(&vm(), 2), on_disk);
            noted.await.unwrap();
        };
        note(false).await;
        note(true).await;
        let mut booted = vm_status(VmState::Running);
        booted.not_restored = Some(Fault::new(Symbol::Internal, "another kernel"));
        let (given, now) = registry.given(handle.clone()).await.unwrap();
        assert!(given[0].machine.is_some());
        let mut notes = Notes { given, now };
        let name = vm().name();
        notes.settle(&registry, &vm(), None).await;
        assert!(notes.given[0].machine.is_some());
        notes.settle(&registry, &vm(), Some(&booted)).await;
        assert!(notes.given[0].machine.is_none());
        let (given, _) = registry.given(handle).await.unwrap();
        assert_eq!((&given[0].unit, given[0].machine.is_some()), (&name, false));
    }
}
