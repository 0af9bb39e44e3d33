//! launchd: jobs of a user's domain or of the system, by launchctl(1).
//!
//! Not run on a Mac so far: the tests run it against `tests/stand_ins/launchctl.py`, which
//! keeps launchd's rules as they are documented and reported, and runs the jobs.
//!
//! | the seam | launchd |
//! |---|---|
//! | group | none: all jobs whose labels name the instance |
//! | open, listen, launch | a property list and `launchctl bootstrap` |
//! | start, restart | an order in the record of runs, then `launchctl kickstart` |
//! | stop of a VM or a door | `launchctl kill SIGTERM`; the job stays, so its sockets do |
//! | stop of all else | `launchctl bootout`, then `print` until it is not found |
//! | signal | `launchctl kill` |
//! | list | `launchctl print`, and the record that aegis-shim keeps |
//! | changes | the same, looked at once a second |
//! | readiness | sd_notify(3) on sockets of ours |
//! | delay that grows, restart of a VM, end with 78 | aegis-shim ([`aegis_core::launchd`]) |
//! | help | a process of aegisd's in a group of its own |
//! | place | the job with that process |
//!
//! launchd confines nothing, limits nothing, and hands out no credentials: [`CAPABILITIES`]
//! says so. Programs of ours fetch their own from aegisd's socket, which their environment
//! names. The user of the system's jobs may not reach that, so there are none in system mode.
//!
//! | module | what it owns |
//! |---|---|
//! | [`launchctl`] | calls of the program, and what its exit codes mean |
//! | [`jobs`] | units as labels and property lists |
//! | `domain` | the steps that calls are made of |
//! | [`files`] | those on disk, and the records of runs |
//! | `logs` | what jobs write, kept within bounds |
//! | `readiness` | what jobs say of themselves |
//! | `states` | all of this as states of units, pure |
//! | `watch` | changes |

mod domain;
pub mod files;
pub mod jobs;
pub mod launchctl;
mod logs;
mod readiness;
mod states;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::handle::Handle;
use aegis_core::launchd::Order;
use aegis_core::layout::Layout;
use aegis_core::units::UnitKind;
use async_trait::async_trait;
use futures_util::future::try_join_all;
use futures_util::stream::BoxStream;

use self::domain::{Domain, call_failed, changed, file_failed};
use self::jobs::{JobFiles, UnitUser};
use self::launchctl::Launchctl;
use super::bind::bind_error;
use super::plan::Listen;
use super::state::Active;
use super::{
    Capabilities, Change, DaemonPlan, DoorPlan, Facts, HelperPlan, InstancePlan, Limits, Outcome,
    Supervisor, SupervisorError, UnitId, UnitState, Usage,
};

/// What launchd can do.
pub const CAPABILITIES: Capabilities = Capabilities {
    growing_delay: false,
    confinement: false,
    log_fields: false,
    journal: false,
    credentials: false,
    outlives_logout: false,
    between_starts: Duration::from_secs(jobs::THROTTLE_SECONDS),
};

/// Why nothing is confined.
const NO_SANDBOX: &str = "launchd has no sandbox: units run with all that their user may do, \
     and without limits of memory, CPU and processes";

/// How long a daemon may take to say that it is ready, as systemd has it by default.
const READY: Duration = Duration::from_secs(90);
/// Jobs that are looked at at a time: each look is a process.
const LOOKS: usize = 8;

/// launchd, in one of its domains.
#[derive(Clone, Debug)]
pub struct Launchd(Arc<Domain>);

impl Launchd {
    /// Finds the domain of the layout's mode and listens to the jobs that are there.
    /// `shim` is aegis-shim, `user` whom jobs of the system run as.
    ///
    /// # Errors
    /// [`SupervisorError::Unreachable`] where launchctl does not work or no domain is there.
    pub async fn connect(
        launchctl: Launchctl,
        layout: &Layout,
        shim: PathBuf,
        uid: u32,
        user: Option<UnitUser>,
    ) -> Result<Self, SupervisorError> {
        let domain = Domain::find(launchctl, layout, shim, uid, user).await?;
        let domain = Arc::new(domain);
        tokio::spawn(logs::keep_bounded(Arc::downgrade(&domain)));
        Ok(Self(domain))
    }
}

#[async_trait]
impl Supervisor for Launchd {
    async fn facts(&self) -> Result<Facts, SupervisorError> {
        Ok(Facts {
            name: format!("launchd ({})", self.0.maker.domain),
            version: 0,
            mode: self.0.layout.mode,
            started_at: self.0.began,
            lingering: None,
            capabilities: CAPABILITIES,
        })
    }

    async fn confinement_obstacle(&self) -> Result<Option<String>, SupervisorError> {
        Ok(Some(NO_SANDBOX.to_owned()))
    }

    async fn open(&self, plan: &InstancePlan) -> Result<Outcome, SupervisorError> {
        let domain = &self.0;
        let (sockets, vm) = (UnitId::sockets(&plan.handle), UnitId::vm(&plan.handle));
        let label = Domain::label(&vm)?;
        match domain.service(&vm, &label).await? {
            Some(service) if service.is_leaving() => drop(domain.let_go(&vm, &label).await?),
            Some(_) => return Ok(Outcome::Unchanged),
            None => {}
        }
        domain.can_ask(&vm, plan.credentials.as_deref())?;
        free(&sockets, &plan.listen)?;
        let files = domain.files(&vm, &label)?;
        files::remove(&files.record).map_err(|error| file_failed("open", &vm.name(), error))?;
        let job = domain.maker.vm(plan, &files);
        domain.load(&vm, &label, &job).await?;
        domain.first_run(&vm, &label).await?;
        Ok(Outcome::Changed)
    }

    async fn listen(&self, plan: &DoorPlan) -> Result<Outcome, SupervisorError> {
        let domain = &self.0;
        let label = Domain::label(&plan.door)?;
        match domain.service(&plan.door, &label).await? {
            Some(service) if service.is_leaving() => drop(domain.let_go(&plan.door, &label).await?),
            Some(_) => return Ok(Outcome::Unchanged),
            None => {}
        }
        free(&plan.socket, [&plan.listen])?;
        let files = domain.files(&plan.door, &label)?;
        let job = domain.maker.door(plan, &label, &files.log);
        domain.load(&plan.door, &label, &job).await?;
        Ok(Outcome::Changed)
    }

    async fn launch(&self, plan: &DaemonPlan) -> Result<Outcome, SupervisorError> {
        let domain = &self.0;
        let unit = UnitId::daemon(&plan.handle, &plan.daemon);
        let label = Domain::label(&unit)?;
        if let Some(known) = domain.known(&unit, &label).await? {
            let state = known.unit_state(unit.clone());
            let is_over = state.has_exited() || state.active == Active::Failed;
            if !is_over && !known.service.is_leaving() {
                return Ok(Outcome::Unchanged);
            }
            domain.let_go(&unit, &label).await?;
        }
        domain.can_ask(&unit, plan.credentials.as_deref())?;
        let files = JobFiles {
            record: plan.back_off.clone(),
            ..domain.files(&unit, &label)?
        };
        files::remove(&files.record).map_err(|error| file_failed("launch", &unit.name(), error))?;
        let job = domain.maker.daemon(plan, &files);
        domain.load(&unit, &label, &job).await?;
        domain.first_run(&unit, &label).await?;
        match domain.ready("start", &unit, &label, 1, Some(READY)).await {
            // The daemon's own failure is launchd's to repeat.
            Ok(()) | Err(SupervisorError::Job { .. }) => Ok(Outcome::Changed),
            Err(error) => Err(error),
        }
    }

    async fn help(&self, plan: HelperPlan) -> Result<(), SupervisorError> {
        let unit = plan.name.clone();
        let started = launchctl::start_helper(plan).await;
        started.map_err(|source| SupervisorError::Call {
            operation: "start",
            unit,
            source: source.into(),
        })
    }

    async fn start(&self, unit: &UnitId) -> Result<Outcome, SupervisorError> {
        let domain = &self.0;
        let label = Domain::label(unit)?;
        let known = domain.existing(unit, &label).await?;
        if known.unit_state(unit.clone()).active == Active::Active && known.service.pid.is_some() {
            return Ok(Outcome::Unchanged);
        }
        let is_starting = known.hold().is_none()
            && known.unit_state(unit.clone()).active == Active::Activating
            && known.service.pid.is_some();
        let mut run = known.service.runs;
        if !is_starting {
            domain.order(unit, &label, Order::Run)?;
            if let Some(pid) = known.service.pid {
                // aegis-shim waits, or decides without knowing of the order.
                domain.end_process(unit, &label, pid).await?;
            }
            let before = domain.existing(unit, &label).await?.service;
            run = before.runs + u32::from(before.pid.is_none());
            domain.kickstart(unit, &label).await?;
        }
        domain.ready("start", unit, &label, run, None).await?;
        Ok(Outcome::Changed)
    }

    async fn stop(&self, unit: &UnitId) -> Result<Outcome, SupervisorError> {
        let domain = &self.0;
        match &unit.kind {
            UnitKind::Slice => {
                let jobs = domain.loaded(Some(&unit.handle)).await?;
                let going = jobs.iter().map(|(unit, label)| domain.let_go(unit, label));
                let outcomes = try_join_all(going).await?;
                for label in domain.folder.labels() {
                    if jobs::unit(&label).is_some_and(|left| left.handle == unit.handle) {
                        let forgotten = domain.folder.forget(&label);
                        forgotten.map_err(|error| file_failed("forget", &label, error))?;
                    }
                }
                Ok(changed(outcomes.contains(&Outcome::Changed)))
            }
            UnitKind::Vm | UnitKind::Door | UnitKind::PortDoor(_) => {
                domain.rest(unit, &Domain::label(unit)?).await
            }
            _ => domain.let_go(unit, &Domain::label(unit)?).await,
        }
    }

    async fn restart(&self, unit: &UnitId) -> Result<(), SupervisorError> {
        let domain = &self.0;
        let label = Domain::label(unit)?;
        let before = domain.existing(unit, &label).await?.service;
        domain.order(unit, &label, Order::Run)?;
        if let Some(pid) = before.pid {
            domain.end_process(unit, &label, pid).await?;
        }
        // launchd starts it by itself after some ends.
        domain.kickstart(unit, &label).await?;
        let ready = domain.ready("restart", unit, &label, before.runs + 1, None);
        ready.await
    }

    async fn signal(&self, unit: &UnitId, signal: i32) -> Result<(), SupervisorError> {
        let target = self.0.maker.target(&Domain::label(unit)?);
        let sent = self.0.launchctl.kill(signal, &target).await;
        match sent.map_err(|error| call_failed("signal", &unit.name(), error))? {
            true => Ok(()),
            false => Err(SupervisorError::NotFound { unit: unit.name() }),
        }
    }

    async fn limit(&self, _unit: &UnitId, _limits: &Limits) -> Result<(), SupervisorError> {
        Ok(())
    }

    async fn usage(&self, unit: &UnitId) -> Result<Usage, SupervisorError> {
        self.0.existing(unit, &Domain::label(unit)?).await?;
        Ok(Usage::default())
    }

    async fn clear(&self, unit: &UnitId) -> Result<Outcome, SupervisorError> {
        let domain = &self.0;
        let Some(label) = jobs::label(unit) else {
            return Ok(Outcome::Unchanged);
        };
        let Some(known) = domain.known(unit, &label).await? else {
            return Ok(Outcome::Unchanged);
        };
        if known.unit_state(unit.clone()).active == Active::Failed {
            return domain.let_go(unit, &label).await;
        }
        if let Some(record) = domain.folder.read(&label).record
            && known.record.failures > 0
        {
            let cleared = files::change_record(&record, |record| record.failures = 0);
            cleared.map_err(|error| file_failed("clear", &unit.name(), error))?;
        }
        Ok(Outcome::Changed)
    }

    async fn list(&self, instance: Option<&Handle>) -> Result<Vec<UnitState>, SupervisorError> {
        let domain = &self.0;
        let jobs = domain.loaded(instance).await?;
        let mut states = Vec::new();
        for some in jobs.chunks(LOOKS) {
            let looks = some.iter().map(|(unit, label)| async move {
                let known = domain.known(unit, label).await?;
                Ok::<_, SupervisorError>(known.map(|known| (unit, known)))
            });
            for (unit, known) in try_join_all(looks).await?.into_iter().flatten() {
                if known.service.is_leaving() && known.service.pid.is_none() {
                    continue;
                }
                if let Some(socket) = jobs::socket_of(unit).filter(|_| !known.service.is_leaving())
                {
                    states.push(states::standing(socket, "listening"));
                }
                states.push(known.unit_state(unit.clone()));
            }
        }
        let groups: BTreeSet<UnitId> = (states.iter())
            .map(|state| UnitId::group(&state.unit.handle))
            .collect();
        let groups = groups.into_iter();
        states.extend(groups.map(|group| states::standing(group, "active")));
        states.sort_by(|a, b| a.unit.cmp(&b.unit));
        Ok(states)
    }

    async fn place(&self, pid: u32) -> Result<String, SupervisorError> {
        let jobs = self.0.jobs().await?;
        let job = jobs::with_process(&jobs, pid);
        Ok(job.map(|unit| unit.name()).unwrap_or_default())
    }

    async fn changes(&self) -> Result<BoxStream<'static, Change>, SupervisorError> {
        Ok(watch::changes(Arc::clone(&self.0)).await)
    }
}

/// Refuses addresses that cannot be listened on: launchd would only say that it failed.
fn free<'a>(
    unit: &UnitId,
    listen: impl IntoIterator<Item = &'a Listen>,
) -> Result<(), SupervisorError> {
    bind_error(unit, listen).map_or(Ok(()), Err)
}
