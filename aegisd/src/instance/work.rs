//! The operations of an instance. Each is a future of its own that may be given
//! up between any two steps; the intent written before the first of them says
//! what is left to do.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aegis_core::control::VmStatus;
use aegis_core::daemon::Reload;
use aegis_core::handle::Handle;
use aegis_core::state::InstanceState;
use tokio::sync::watch;

use super::config;
use super::own_stops::OwnStops;
use super::start::outcome;
use super::view::phase;
use super::{InstanceError, Operation, Shared, blocking, files, now_us, plans};
use crate::jobs::{Outcome, Reporter};
use crate::reconcile::{self, Action};
use crate::registry::{Intent, Record};
use crate::supervisor::state::{Active, ProcessEnd, UnitState};
use crate::supervisor::{self, SupervisorError, UnitId};

/// signal(7).
const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;

/// How an operation ended.
#[derive(Debug)]
pub(super) struct Conclusion {
    pub(super) result: Result<Outcome, InstanceError>,
    /// Nothing is left of the instance.
    pub(super) removed: bool,
}

impl From<Result<Outcome, InstanceError>> for Conclusion {
    fn from(result: Result<Outcome, InstanceError>) -> Self {
        Self {
            result,
            removed: false,
        }
    }
}

/// What an operation works with. Only one of an instance's is under way at a
/// time, so it is the one writer of the record.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) shared: Arc<Shared>,
    pub(super) handle: Handle,
    pub(super) record: Arc<watch::Sender<Record>>,
    pub(super) status: watch::Receiver<Option<VmStatus>>,
    pub(super) own_stops: OwnStops,
}

impl Work {
    /// Does what a client asked for.
    pub(super) async fn perform(self, operation: Operation, report: Reporter) -> Conclusion {
        match operation {
            Operation::Create { start } => self.create(start, &report).await,
            Operation::Start => self.start(&report).await.into(),
            Operation::Stop { grace_secs } => self.stop(grace_secs, &report).await.into(),
            Operation::Restart { grace_secs } => self.restart(grace_secs, &report).await.into(),
            Operation::Wake => self.wake(&report).await.into(),
            Operation::Hibernate => self.hibernate(&report).await.into(),
            Operation::KeepAwake { reason, time } => {
                self.keep_awake(&reason, time, &report).await.into()
            }
            Operation::LetSleep { reason } => self.let_sleep(reason.as_deref()).await.into(),
            Operation::Refresh { secrets } => self.refresh(&secrets, &report).await.into(),
            Operation::Update(request) => self.update(*request, &report).await.into(),
            Operation::Prune { asleep } => self.prune(asleep, &report).await,
            Operation::Enable => self.enable(&report).await.into(),
            Operation::Disable => self.disable(&report).await.into(),
            Operation::Delete { purge } => self.delete(purge, &report).await,
            Operation::Rest if self.record.borrow().spec.ephemeral => {
                self.delete(false, &report).await
            }
            Operation::Rest => self.rest(&report).await.into(),
        }
    }

    /// Carries out what reconciliation found.
    pub(super) async fn correct(self, actions: Vec<Action>) -> Conclusion {
        let report = Reporter::silent();
        let mut errors = Vec::new();
        for action in actions {
            let done = match action {
                Action::Delete => {
                    let purge = self.record.borrow().intent == Intent::Purging;
                    return self.delete(purge, &report).await;
                }
                Action::FinishCreation => self.make(false, &report).await,
                Action::Open => self.open().await,
                Action::Listen => self.listen().await,
                Action::Expose(port) => self.expose(port).await,
                Action::Unexpose(port) => self.unexpose(port).await,
                Action::Launch(daemon) => self.launch(&daemon).await,
                Action::Start => self.start_marked(&report).await,
                Action::Stop(unit) => self.stop_unit(&unit).await,
                Action::Limit => self.limit().await,
                Action::Remake => self.remake().await,
            };
            errors.extend(done.err());
        }
        let made = match errors.is_empty() && self.record.borrow().intent == Intent::Enabled {
            true => self.note_made().await,
            false => Ok(()),
        };
        errors.extend(made.err());
        InstanceError::all(errors).map(|()| Outcome::Changed).into()
    }

    /// Gives daemons their changed config in the way the kit says; one that ended is
    /// started again. One that was stopped by hand stays so.
    pub(super) async fn configure(self, daemons: BTreeMap<String, Reload>) -> Conclusion {
        let units = match self.shared.supervisor.list(Some(&self.handle)).await {
            Ok(units) => units,
            Err(error) => return Err(error.into()).into(),
        };
        let mut errors = Vec::new();
        for (daemon, reload) in daemons {
            let unit = UnitId::daemon(&self.handle, &daemon);
            let Some(state) = units.iter().find(|state| state.unit == unit) else {
                continue;
            };
            let handle = &self.handle;
            tracing::info!(instance = %handle, "{handle}: the config of {daemon} changed");
            let supervisor = &self.shared.supervisor;
            let done = match reload {
                _ if matches!(state.active, Active::Failed | Active::Inactive) => {
                    self.launch_again(&daemon).await.map(drop)
                }
                Reload::Restart => supervisor.restart(&unit).await.map_err(Into::into),
                Reload::Signal => supervisor.signal(&unit, SIGHUP).await.map_err(Into::into),
                Reload::Itself => Ok(()),
            };
            errors.extend(done.err());
        }
        InstanceError::all(errors).map(|()| Outcome::Changed).into()
    }

    async fn create(&self, start: bool, report: &Reporter) -> Conclusion {
        // What a failed creation leaves of the user's config is what was there.
        let fresh_config = !self.shared.host.layout.daemon_config(&self.handle).exists();
        let failure = match self.make(start, report).await {
            Ok(outcome) => return Ok(outcome).into(),
            Err(failure) => failure,
        };
        report.says("undoing the creation");
        let undone = self.delete(fresh_config, &Reporter::silent()).await;
        let errors = std::iter::once(failure)
            .chain(undone.result.err())
            .collect();
        Conclusion {
            result: InstanceError::all(errors).map(|()| Outcome::Changed),
            removed: undone.removed,
        }
    }

    /// Every step of a creation, also to finish one that a crash interrupted.
    async fn make(&self, start: bool, report: &Reporter) -> Result<Outcome, InstanceError> {
        report.says("writing the instance's files");
        self.write_defaults().await?;
        if !self.record.borrow().is_enabled() {
            return Ok(Outcome::Changed);
        }
        report.says("opening its sockets");
        self.open().await?;
        self.arrange_ports().await?;
        let daemons = self.record.borrow().spec.daemons.clone();
        if !daemons.is_empty() {
            self.listen().await?;
        }
        for daemon in daemons {
            report.says(&format!("starting {}", daemon.label));
            self.launch(&daemon.name).await?;
        }
        if start {
            self.start_marked(report).await?;
        }
        let run = self.shared.facts.started_at;
        self.intend(|record| {
            record.intent = Intent::Enabled;
            record.made_in = Some(run);
        })
        .await?;
        Ok(Outcome::Changed)
    }

    pub(super) async fn start(&self, report: &Reporter) -> Result<Outcome, InstanceError> {
        let completed = self.enable(report).await?;
        self.intend(|record| record.stopped_at = None).await?;
        Ok(self.start_marked(report).await?.or(completed))
    }

    /// Starts the VM for somebody who wants it: how its command ended before does
    /// not count any more.
    async fn start_marked(&self, report: &Reporter) -> Result<Outcome, InstanceError> {
        let (shared, handle) = (self.shared.clone(), self.handle.clone());
        blocking(move || files::mark_start(&shared.host, &handle)).await?;
        self.start_vm(report).await
    }

    async fn enable(&self, report: &Reporter) -> Result<Outcome, InstanceError> {
        self.check_not_deleting()?;
        let units = self.shared.supervisor.list(Some(&self.handle)).await?;
        let before = self.record.borrow().clone();
        let sockets = UnitId::sockets(&self.handle);
        let is_closed = units.iter().all(|state| state.unit != sockets);
        if is_closed && reconcile::vm_runs(&before, &units) {
            // It could be used by nobody.
            let (unit, other) = (sockets.name(), self.vm().name());
            return Err(SupervisorError::StillRuns { unit, other }.into());
        }
        let mut outcome = Outcome::Unchanged;
        if before.intent == Intent::Disabled || !before.stopped_by_hand.is_empty() {
            self.intend(|record| {
                record.intent = Intent::Enabled;
                record.stopped_by_hand.clear();
            })
            .await?;
            outcome = Outcome::Changed;
        }
        if before.intent == Intent::Disabled && before.made_in.is_none() {
            // It was made as it is, and a crash may have come before its files.
            self.write_defaults().await?;
        }
        let record = self.record.borrow().clone();
        // Being enabled is no reason to start the VM, nor is a start held up by one.
        let run = self.shared.facts.started_at;
        let mut actions = reconcile::plan(&record, &units, run, now_us());
        actions.retain(|action| *action != Action::Start);
        let ended = units.iter().filter(|state| deserves_another_start(state));
        actions.extend(ended.filter_map(|state| match &state.unit.kind {
            aegis_core::units::UnitKind::Daemon(name) => Some(Action::Launch(name.clone())),
            _ => None,
        }));
        let is_there = |daemon: &str| {
            let unit = UnitId::daemon(&self.handle, daemon);
            units.iter().any(|state| state.unit == unit)
        };
        for action in actions {
            report.says("opening the sockets and starting the daemons");
            outcome = Outcome::Changed;
            match action {
                Action::Open => self.open().await?,
                Action::Listen => self.listen().await?,
                Action::Expose(port) => self.expose(port).await?,
                Action::Unexpose(port) => self.unexpose(port).await?,
                Action::Launch(daemon) if is_there(&daemon) => self.launch_again(&daemon).await?,
                Action::Launch(daemon) => self.launch(&daemon).await?,
                Action::Stop(unit) => self.stop_unit(&unit).await?,
                Action::Limit => self.limit().await?,
                Action::Remake => self.remake().await?,
                // Those of other intents; this one is enabled, and an ephemeral
                // instance whose VM is gone is the actor's to delete.
                Action::FinishCreation | Action::Delete | Action::Start => Outcome::Unchanged,
            };
        }
        self.note_made().await?;
        Ok(outcome)
    }

    pub(super) async fn stop(
        &self,
        grace_secs: Option<u32>,
        report: &Reporter,
    ) -> Result<Outcome, InstanceError> {
        // Written first: a crash after the stop must not let a policy start it again.
        self.intend(|record| {
            record.stopped_at = Some(now_us());
            // Who stops it wants it asleep.
            record.leases.clear();
        })
        .await?;
        // Whoever gives it no time wants its end, not an orderly one.
        if grace_secs != Some(0) {
            self.thaw(report).await;
        }
        report.says("stopping the guest");
        let vm = self.vm();
        let killed = AtomicBool::new(false);
        let killing = async {
            let Some(grace) = grace_secs else {
                return std::future::pending::<Infallible>().await;
            };
            tokio::time::sleep(Duration::from_secs(grace.into())).await;
            report.says("killing the VM");
            killed.store(true, Ordering::Relaxed);
            // It may end by itself at this moment; then there is nothing to kill.
            drop(self.shared.supervisor.signal(&vm, SIGKILL).await);
            std::future::pending().await
        };
        // Side by side: a call that waits for another to go on waits for ever.
        let stopped = tokio::select! {
            stopped = self.stop_unit(&vm) => stopped?,
            never = killing => match never {},
        };
        if killed.load(Ordering::Relaxed) {
            // To the manager a kill is a failure. Here it was asked for.
            self.shared.supervisor.clear(&vm).await?;
        }
        Ok(stopped.or(self.forget_machine().await?))
    }

    /// A VM that is stopped is started: what is asked for is one that is fresh.
    async fn restart(
        &self,
        grace_secs: Option<u32>,
        report: &Reporter,
    ) -> Result<Outcome, InstanceError> {
        self.check_not_deleting()?;
        let stale = self.status.borrow().clone();
        self.stop(grace_secs, report).await?;
        self.forget_vm(stale.as_ref()).await;
        self.start(report).await?;
        Ok(Outcome::Changed)
    }

    /// Asked again at its turn: it may be in use since it was found.
    async fn prune(&self, asleep: bool, report: &Reporter) -> Conclusion {
        let units = match self.shared.supervisor.list(Some(&self.handle)).await {
            Ok(units) => units,
            Err(error) => return Err(error.into()).into(),
        };
        let vm = self.vm();
        let unit = units.iter().find(|state| state.unit == vm);
        let vm = self.status.borrow().as_ref().map(|status| status.state);
        let enabled = self.record.borrow().is_enabled();
        let state = InstanceState::derive(enabled, phase(unit), vm, self.is_saved().await);
        if state.is_left_over(asleep) {
            return self.delete(false, report).await;
        }
        Ok(Outcome::Unchanged).into()
    }

    async fn disable(&self, report: &Reporter) -> Result<Outcome, InstanceError> {
        self.check_not_deleting()?;
        let was_enabled = self.record.borrow().is_enabled();
        if was_enabled {
            self.thaw(report).await;
            self.intend(|record| {
                record.intent = Intent::Disabled;
                record.leases.clear();
            })
            .await?;
        }
        report.says("stopping the VM and the daemons");
        let stopped = self.stop_unit(&UnitId::group(&self.handle)).await?;
        self.forget_machine().await?;
        Ok(if was_enabled {
            Outcome::Changed
        } else {
            stopped
        })
    }

    async fn rest(&self, report: &Reporter) -> Result<Outcome, InstanceError> {
        // Not made in this run of the manager, as far as the next aegisd knows:
        // so it makes the units again instead of taking them for stopped by hand.
        self.intend(|record| record.made_in = None).await?;
        report.says("stopping the VM and the daemons");
        self.stop_unit(&UnitId::group(&self.handle)).await
    }

    /// Goes on through failures, since every removed part is one less to find later.
    async fn delete(&self, purge: bool, report: &Reporter) -> Conclusion {
        let intent = if purge {
            Intent::Purging
        } else {
            Intent::Deleting
        };
        // A full disk must not keep what fills it: without the note a crash on the
        // way leaves the instance, and nothing worse.
        let noted = self.intend(|record| record.intent = intent).await;
        report.says("stopping the VM and the daemons");
        let mut errors = Vec::new();
        errors.extend(self.stop_unit(&UnitId::group(&self.handle)).await.err());
        report.says("removing its files");
        let (shared, handle) = (self.shared.clone(), self.handle.clone());
        errors.extend(blocking(move || files::remove(&shared.host, &handle, purge)).await);
        if errors.is_empty() {
            // Last, so that a crash before it is found and finished.
            let removed = self.shared.registry.remove(self.handle.clone()).await;
            errors.extend(removed.err().map(InstanceError::from));
        }
        if !errors.is_empty() {
            errors.extend(noted.err());
        }
        let result = InstanceError::all(errors);
        Conclusion {
            removed: result.is_ok(),
            result: result.map(|()| Outcome::Changed),
        }
    }

    /// Writes the files of the units and has the sockets listen.
    pub(super) async fn open(&self) -> Result<Outcome, InstanceError> {
        let record = self.write_files().await?;
        let plan = plans::instance(&self.shared.host, &record);
        Ok(outcome(self.shared.supervisor.open(&plan).await?))
    }

    /// Has the API socket of the daemons listen.
    async fn listen(&self) -> Result<Outcome, InstanceError> {
        let record = self.write_files().await?;
        let plan = plans::api(&self.shared.host, &record);
        Ok(outcome(self.shared.supervisor.listen(&plan).await?))
    }

    async fn launch(&self, daemon: &str) -> Result<Outcome, InstanceError> {
        let record = self.write_files().await?;
        let Some(daemon) = record
            .spec
            .daemons
            .iter()
            .find(|known| known.name == daemon)
        else {
            return Ok(Outcome::Unchanged);
        };
        let plan = plans::daemon(&self.shared.host, &record, daemon);
        Ok(outcome(self.shared.supervisor.launch(&plan).await?))
    }

    /// The same for one that ended and whose unit is there still: that goes first, and
    /// a crash in between would leave what looks stopped by hand.
    async fn launch_again(&self, daemon: &str) -> Result<Outcome, InstanceError> {
        let made_in = self.record.borrow().made_in;
        self.intend(|record| record.made_in = None).await?;
        self.own_stops.expect(&UnitId::daemon(&self.handle, daemon));
        let launched = self.launch(daemon).await;
        // Also after a failure: to this aegisd nothing else is new.
        self.intend(|record| record.made_in = made_in).await?;
        launched
    }

    pub(super) async fn stop_unit(&self, unit: &UnitId) -> Result<Outcome, InstanceError> {
        let is_new = self.own_stops.expect(unit);
        let stopped = self.shared.supervisor.stop(unit).await?;
        if is_new && stopped == supervisor::Outcome::Unchanged {
            self.own_stops.withdraw(unit);
        }
        Ok(outcome(stopped))
    }

    pub(super) async fn write_files(&self) -> Result<Record, InstanceError> {
        let (shared, record) = (self.shared.clone(), self.record.borrow().clone());
        blocking(move || files::write(&shared.host, &record).map(|()| record)).await
    }

    async fn write_defaults(&self) -> Result<(), InstanceError> {
        let record = self.write_files().await?;
        let shared = self.shared.clone();
        blocking(move || {
            // What is at home wins over a default. What comes of it is seen when the
            // daemons' files are looked at.
            config::look_at(&shared.host, &record, &BTreeMap::new());
            files::write_defaults(&shared.host, &record)
        })
        .await
    }

    /// Notes that all units were made in this run of the service manager.
    pub(super) async fn note_made(&self) -> Result<(), InstanceError> {
        let run = Some(self.shared.facts.started_at);
        if self.record.borrow().made_in == run {
            return Ok(());
        }
        self.intend(|record| record.made_in = run).await
    }

    /// Writes a change of intent down before anybody sees it.
    pub(super) async fn intend(
        &self,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), InstanceError> {
        let mut record = self.record.borrow().clone();
        let intent = record.intent;
        change(&mut record);
        if record.intent != intent {
            record.intent_since = now_us();
        }
        if *self.record.borrow() == record {
            return Ok(());
        }
        self.shared.registry.update(record.clone()).await?;
        self.record.send_replace(record);
        Ok(())
    }

    pub(super) fn check_not_deleting(&self) -> Result<(), InstanceError> {
        match self.record.borrow().intent {
            Intent::Deleting | Intent::Purging => Err(InstanceError::Deleting(self.handle.clone())),
            Intent::Creating | Intent::Enabled | Intent::Disabled => Ok(()),
        }
    }
}

/// Whether a start that was asked for is one for this daemon too: it failed for
/// good, or was ended by a signal that counts as no failure. One that exited has
/// done its work.
fn deserves_another_start(state: &UnitState) -> bool {
    let was_killed = matches!(state.last_end, Some(ProcessEnd::Signal(_)));
    state.active == Active::Failed || (state.has_exited() && was_killed)
}
