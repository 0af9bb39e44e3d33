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
//!
//! launchd confines nothing, limits nothing, and hands out no credentials:
//! [`CAPABILITIES`] says so.
//!
//! | module | what it owns |
//! |---|---|
//! | [`launchctl`] | calls of the program, and what its exit codes mean |
//! | [`jobs`] | units as labels and property lists |
//! | [`files`] | those on disk, and the records of runs |
//! | `readiness` | what jobs say of themselves |
//! | `states` | all of this as states of units, pure |
//! | `watch` | changes |

pub mod files;
pub mod jobs;
pub mod launchctl;
mod readiness;
mod states;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_core::handle::Handle;
use aegis_core::launchd::{Order, Service, labels};
use aegis_core::layout::{Layout, Mode};
use aegis_core::units::UnitKind;
use async_trait::async_trait;
use futures_util::future::try_join_all;
use futures_util::stream::BoxStream;
use plist::Dictionary;
use tokio::time::{Instant, sleep};

use self::files::{JobFileError, JobFolder};
use self::jobs::{JobFiles, JobMaker, UnitUser};
use self::launchctl::{Launchctl, LaunchctlError};
use self::readiness::Ears;
use self::states::Known;
use super::bind::bind_error;
use super::error::JobEnd;
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

/// Between two looks at a job that is waited for.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a job that was loaded may take to have its first run, before it is started by
/// hand: launchd was seen to forget that.
const FIRST_RUN: Duration = Duration::from_secs(10);
/// How much longer than its program may take a label may stay.
const LINGERS: Duration = Duration::from_secs(30);
/// How long a daemon may take to say that it is ready, as systemd has it by default.
const READY: Duration = Duration::from_secs(90);
/// Jobs that are looked at at a time: each look is a process.
const LOOKS: usize = 8;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// launchd, in one of its domains.
#[derive(Clone, Debug)]
pub struct Launchd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    launchctl: Launchctl,
    maker: JobMaker,
    folder: JobFolder,
    ears: Ears,
    layout: Layout,
    /// When the first job of ours was loaded, in microseconds since 1970.
    began: u64,
}

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
        let (domain, text) = domain(&launchctl, layout.mode, uid).await?;
        let folder = JobFolder::at(layout.home.join("launchd"));
        let folder = folder.map_err(|error| file_failed("make", &domain, error))?;
        let maker = JobMaker {
            launchctl: launchctl.path().to_owned(),
            shim,
            path: std::env::var("PATH").unwrap_or_default(),
            user,
            domain,
        };
        let began = session(&launchctl, &maker, &folder, &text).await?;
        let inner = Inner {
            ears: Ears::in_folder(layout.runtime.join("notify")),
            layout: layout.clone(),
            launchctl,
            maker,
            folder,
            began,
        };
        for label in labels(&text) {
            if let Some(unit) = jobs::unit(label)
                && inner.folder.read(label).notify.is_some()
            {
                inner.listen_to(&unit, label)?;
            }
        }
        Ok(Self(Arc::new(inner)))
    }
}

/// The domain of a mode, with what launchd says of it.
async fn domain(
    launchctl: &Launchctl,
    mode: Mode,
    uid: u32,
) -> Result<(String, String), SupervisorError> {
    let candidates = match mode {
        Mode::System => vec!["system".to_owned()],
        // The first is there while its user is logged in at the screen.
        Mode::User => vec![format!("gui/{uid}"), format!("user/{uid}")],
    };
    let unreachable = |source: LaunchctlError| SupervisorError::Unreachable {
        address: launchctl.path().display().to_string(),
        source: source.into(),
    };
    for domain in &candidates {
        if let Some(text) = launchctl.print(domain).await.map_err(unreachable)? {
            return Ok((domain.clone(), text));
        }
    }
    let names = candidates.join(", ");
    Err(unreachable(LaunchctlError::NoDomain(names)))
}

/// Since when launchd has jobs of ours: a job that never runs says it, for it goes with
/// all others.
async fn session(
    launchctl: &Launchctl,
    maker: &JobMaker,
    folder: &JobFolder,
    text: &str,
) -> Result<u64, SupervisorError> {
    if let Some(began) = labels(text).find_map(jobs::session_began) {
        return Ok(began);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let began = since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0));
    for old in folder.labels() {
        if jobs::session_began(&old).is_some() {
            folder
                .forget(&old)
                .map_err(|error| file_failed("forget", &old, error))?;
        }
    }
    let label = jobs::session_label(began);
    let file = folder.write(&label, &jobs::session_job(&label));
    let file = file.map_err(|error| file_failed("write", &label, error))?;
    let loaded = launchctl.bootstrap(&maker.domain, &file).await;
    loaded.map_err(|error| call_failed("load", &label, error))?;
    Ok(began)
}

impl Inner {
    /// The label of a unit's job. Only groups have none, which no caller asks for.
    fn label(unit: &UnitId) -> Result<String, SupervisorError> {
        jobs::label(unit).ok_or_else(|| SupervisorError::NotFound { unit: unit.name() })
    }

    /// Where the log, the record and the words of a job go.
    fn files(&self, unit: &UnitId, label: &str) -> Result<JobFiles, SupervisorError> {
        let instance = self.layout.instance(&unit.handle);
        let logs = instance.log_dir();
        let made =
            files::private_folder(&logs).and_then(|()| files::give_like(&logs, instance.dir()));
        made.map_err(|error| file_failed("prepare", &unit.name(), error))?;
        let name = match &unit.kind {
            UnitKind::Daemon(daemon) => format!("daemon-{daemon}.log"),
            UnitKind::Vm => "vm.log".to_owned(),
            _ => "doors.log".to_owned(),
        };
        Ok(JobFiles {
            log: logs.join(name),
            record: instance.dir().join("runs.json"),
            notify: self.ears.socket(label),
        })
    }

    fn listen_to(&self, unit: &UnitId, label: &str) -> Result<(), SupervisorError> {
        let instance = self.layout.instance(&unit.handle);
        let listening = self.ears.listen(label, instance.dir());
        listening.map_err(|error| file_failed("listen to", &unit.name(), error))
    }

    async fn service(
        &self,
        unit: &UnitId,
        label: &str,
    ) -> Result<Option<Service>, SupervisorError> {
        let text = self.launchctl.print(&self.maker.target(label)).await;
        let text = text.map_err(|error| call_failed("read", &unit.name(), error))?;
        Ok(text.map(|text| Service::parse(&text)))
    }

    /// All that is known of a job; `None` if it is not loaded.
    async fn known(&self, unit: &UnitId, label: &str) -> Result<Option<Known>, SupervisorError> {
        let loaded = self.folder.read(label);
        let Some(service) = self.service(unit, label).await? else {
            return Ok(None);
        };
        Ok(Some(Known {
            service,
            record: files::read_record(loaded.record.as_deref()),
            heard: self.ears.heard(label),
            keeps: loaded.keeps,
        }))
    }

    /// The job of a unit that is to be there.
    async fn existing(&self, unit: &UnitId, label: &str) -> Result<Known, SupervisorError> {
        let known = self.known(unit, label).await?;
        let known = known.filter(|known| !known.service.is_leaving());
        known.ok_or_else(|| SupervisorError::NotFound { unit: unit.name() })
    }

    /// Leaves an order for the next start in the record of a job that has one.
    fn order(&self, unit: &UnitId, label: &str, order: Order) -> Result<(), SupervisorError> {
        let Some(record) = self.folder.read(label).record else {
            return Ok(());
        };
        let left = files::change_record(&record, |record| record.order = Some(order));
        left.map_err(|error| file_failed("order", &unit.name(), error))
    }

    /// Loads a job in place of one that leaves.
    async fn load(
        &self,
        unit: &UnitId,
        label: &str,
        job: &Dictionary,
    ) -> Result<(), SupervisorError> {
        let prepare = |error| file_failed("write", &unit.name(), error);
        let file = self.folder.write(label, job).map_err(prepare)?;
        let loaded = self.folder.read(label);
        for socket in &loaded.sockets {
            let folder = socket.parent().unwrap_or(socket);
            files::private_folder(folder).map_err(prepare)?;
        }
        if loaded.notify.is_some() {
            self.listen_to(unit, label)?;
        }
        let Err(error) = self.launchctl.bootstrap(&self.maker.domain, &file).await else {
            return Ok(());
        };
        self.ears.forget(label);
        self.folder.forget(label).map_err(prepare)?;
        Err(call_failed("load", &unit.name(), error))
    }

    /// Waits until a job that launchd starts by itself had its first run.
    async fn first_run(&self, unit: &UnitId, label: &str) -> Result<(), SupervisorError> {
        let deadline = Instant::now() + FIRST_RUN;
        loop {
            let known = self.existing(unit, label).await?;
            let is_decided = known.hold().is_some() || known.is_ready(true);
            if known.service.runs > 0 && (known.service.pid.is_none() || is_decided) {
                return Ok(());
            }
            if known.service.runs == 0 && Instant::now() > deadline {
                tracing::warn!("launchd does not run {label}: starting it, ignoring");
                self.kickstart(unit, label).await?;
                return Ok(());
            }
            let heard = known.heard.as_ref();
            if known.service.runs > 0 && heard.is_some_and(|heard| heard.pid == known.service.pid) {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }

    async fn kickstart(&self, unit: &UnitId, label: &str) -> Result<(), SupervisorError> {
        let started = self.launchctl.kickstart(&self.maker.target(label)).await;
        match started.map_err(|error| call_failed("start", &unit.name(), error))? {
            true => Ok(()),
            false => Err(SupervisorError::NotFound { unit: unit.name() }),
        }
    }

    /// Waits until the run of this number is ready.
    async fn ready(
        &self,
        operation: &'static str,
        unit: &UnitId,
        label: &str,
        run: u32,
        patience: Option<Duration>,
    ) -> Result<(), SupervisorError> {
        let begun = Instant::now();
        let keeps_record = self.folder.read(label).record.is_some();
        loop {
            let known = self.existing(unit, label).await?;
            let service = &known.service;
            let is_over = service.runs > run || (service.runs == run && service.pid.is_none());
            let end = match patience {
                _ if is_over => JobEnd::Failed,
                Some(patience) if begun.elapsed() > patience => JobEnd::Timeout,
                _ if service.runs == run && known.is_ready(keeps_record) => return Ok(()),
                _ => {
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let last_end = service.last_end.map(states::process_end);
            return Err(SupervisorError::Job {
                operation,
                unit: unit.name(),
                end,
                result: Some(states::run_result(last_end)),
                last_end,
            });
        }
    }

    /// Ends the process of a job, and waits until it is gone.
    async fn end_process(
        &self,
        unit: &UnitId,
        label: &str,
        pid: u32,
    ) -> Result<(), SupervisorError> {
        let target = self.maker.target(label);
        let limit = self.folder.read(label).exit_timeout;
        let failed = |error| call_failed("stop", &unit.name(), error);
        let mut deadline = Some(Instant::now() + limit);
        self.launchctl
            .kill(SIGTERM, &target)
            .await
            .map_err(failed)?;
        while let Some(service) = self.service(unit, label).await? {
            if service.pid != Some(pid) {
                break;
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                deadline = None;
                self.launchctl
                    .kill(SIGKILL, &target)
                    .await
                    .map_err(failed)?;
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Has launchd let a job go, waits until it has, and removes what belongs to it.
    async fn let_go(&self, unit: &UnitId, label: &str) -> Result<Outcome, SupervisorError> {
        let limit = self.folder.read(label).exit_timeout + LINGERS;
        let deadline = Instant::now() + limit;
        let gone = self.launchctl.bootout(&self.maker.target(label)).await;
        let was_there = gone.map_err(|error| call_failed("stop", &unit.name(), error))?;
        while self.service(unit, label).await?.is_some() {
            if Instant::now() > deadline {
                return Err(SupervisorError::Job {
                    operation: "stop",
                    unit: unit.name(),
                    end: JobEnd::Timeout,
                    result: None,
                    last_end: None,
                });
            }
            sleep(PAUSE).await;
        }
        self.ears.forget(label);
        let forgotten = self.folder.forget(label);
        forgotten.map_err(|error| file_failed("forget", &unit.name(), error))?;
        Ok(changed(was_there))
    }

    /// Stops what is behind a socket, which listens on.
    async fn rest(&self, unit: &UnitId, label: &str) -> Result<Outcome, SupervisorError> {
        let Some(known) = self.known(unit, label).await? else {
            return Ok(Outcome::Unchanged);
        };
        if known.service.is_leaving() {
            self.let_go(unit, label).await?;
            return Ok(Outcome::Changed);
        }
        let is_up = known.unit_state(unit.clone()).active != Active::Inactive;
        if is_up {
            self.order(unit, label, Order::Rest)?;
        }
        if let Some(pid) = known.service.pid {
            self.end_process(unit, label, pid).await?;
        }
        Ok(changed(is_up))
    }

    async fn labels(&self) -> Result<Vec<String>, SupervisorError> {
        let domain = &self.maker.domain;
        let text = self.launchctl.print(domain).await;
        let text = text.map_err(|error| call_failed("list", domain, error))?;
        let text = text.unwrap_or_default();
        Ok(labels(&text).map(str::to_owned).collect())
    }

    /// The loaded jobs of all instances or of one, and the units they run.
    async fn loaded(
        &self,
        instance: Option<&Handle>,
    ) -> Result<Vec<(UnitId, String)>, SupervisorError> {
        let ours = self.labels().await?.into_iter().filter_map(|label| {
            let unit = jobs::unit(&label)?;
            let is_meant = instance.is_none_or(|handle| *handle == unit.handle);
            is_meant.then_some((unit, label))
        });
        Ok(ours.collect())
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
        let inner = &self.0;
        let (sockets, vm) = (UnitId::sockets(&plan.handle), UnitId::vm(&plan.handle));
        let label = Inner::label(&vm)?;
        match inner.service(&vm, &label).await? {
            Some(service) if service.is_leaving() => drop(inner.let_go(&vm, &label).await?),
            Some(_) => return Ok(Outcome::Unchanged),
            None => {}
        }
        no_credentials(&vm, plan.credentials.as_deref())?;
        free(&sockets, &plan.listen)?;
        let files = inner.files(&vm, &label)?;
        files::remove(&files.record).map_err(|error| file_failed("open", &vm.name(), error))?;
        let job = inner.maker.vm(plan, &files);
        inner.load(&vm, &label, &job).await?;
        inner.first_run(&vm, &label).await?;
        Ok(Outcome::Changed)
    }

    async fn listen(&self, plan: &DoorPlan) -> Result<Outcome, SupervisorError> {
        let inner = &self.0;
        let label = Inner::label(&plan.door)?;
        match inner.service(&plan.door, &label).await? {
            Some(service) if service.is_leaving() => drop(inner.let_go(&plan.door, &label).await?),
            Some(_) => return Ok(Outcome::Unchanged),
            None => {}
        }
        free(&plan.socket, [&plan.listen])?;
        let files = inner.files(&plan.door, &label)?;
        let job = inner.maker.door(plan, &label, &files.log);
        inner.load(&plan.door, &label, &job).await?;
        Ok(Outcome::Changed)
    }

    async fn launch(&self, plan: &DaemonPlan) -> Result<Outcome, SupervisorError> {
        let inner = &self.0;
        let unit = UnitId::daemon(&plan.handle, &plan.daemon);
        let label = Inner::label(&unit)?;
        if let Some(known) = inner.known(&unit, &label).await? {
            let state = known.unit_state(unit.clone());
            let is_over = state.has_exited() || state.active == Active::Failed;
            if !is_over && !known.service.is_leaving() {
                return Ok(Outcome::Unchanged);
            }
            inner.let_go(&unit, &label).await?;
        }
        no_credentials(&unit, plan.credentials.as_deref())?;
        let files = JobFiles {
            record: plan.back_off.clone(),
            ..inner.files(&unit, &label)?
        };
        files::remove(&files.record).map_err(|error| file_failed("launch", &unit.name(), error))?;
        let job = inner.maker.daemon(plan, &files);
        inner.load(&unit, &label, &job).await?;
        inner.first_run(&unit, &label).await?;
        match inner.ready("start", &unit, &label, 1, Some(READY)).await {
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
        let inner = &self.0;
        let label = Inner::label(unit)?;
        let known = inner.existing(unit, &label).await?;
        if known.unit_state(unit.clone()).active == Active::Active && known.service.pid.is_some() {
            return Ok(Outcome::Unchanged);
        }
        let is_starting = known.hold().is_none()
            && known.unit_state(unit.clone()).active == Active::Activating
            && known.service.pid.is_some();
        let mut run = known.service.runs;
        if !is_starting {
            inner.order(unit, &label, Order::Run)?;
            if let Some(pid) = known.service.pid {
                // aegis-shim waits, or decides without knowing of the order.
                inner.end_process(unit, &label, pid).await?;
            }
            let before = inner.existing(unit, &label).await?.service;
            run = before.runs + u32::from(before.pid.is_none());
            inner.kickstart(unit, &label).await?;
        }
        inner.ready("start", unit, &label, run, None).await?;
        Ok(Outcome::Changed)
    }

    async fn stop(&self, unit: &UnitId) -> Result<Outcome, SupervisorError> {
        let inner = &self.0;
        match &unit.kind {
            UnitKind::Slice => {
                let jobs = inner.loaded(Some(&unit.handle)).await?;
                let going = jobs.iter().map(|(unit, label)| inner.let_go(unit, label));
                let outcomes = try_join_all(going).await?;
                for label in inner.folder.labels() {
                    if jobs::unit(&label).is_some_and(|left| left.handle == unit.handle) {
                        let forgotten = inner.folder.forget(&label);
                        forgotten.map_err(|error| file_failed("forget", &label, error))?;
                    }
                }
                Ok(changed(outcomes.contains(&Outcome::Changed)))
            }
            UnitKind::Vm | UnitKind::Door | UnitKind::PortDoor(_) => {
                inner.rest(unit, &Inner::label(unit)?).await
            }
            _ => inner.let_go(unit, &Inner::label(unit)?).await,
        }
    }

    async fn restart(&self, unit: &UnitId) -> Result<(), SupervisorError> {
        let inner = &self.0;
        let label = Inner::label(unit)?;
        let before = inner.existing(unit, &label).await?.service;
        inner.order(unit, &label, Order::Run)?;
        if let Some(pid) = before.pid {
            inner.end_process(unit, &label, pid).await?;
        }
        // launchd starts it by itself after some ends.
        inner.kickstart(unit, &label).await?;
        let ready = inner.ready("restart", unit, &label, before.runs + 1, None);
        ready.await
    }

    async fn signal(&self, unit: &UnitId, signal: i32) -> Result<(), SupervisorError> {
        let target = self.0.maker.target(&Inner::label(unit)?);
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
        self.0.existing(unit, &Inner::label(unit)?).await?;
        Ok(Usage::default())
    }

    async fn clear(&self, unit: &UnitId) -> Result<Outcome, SupervisorError> {
        let inner = &self.0;
        let Some(label) = jobs::label(unit) else {
            return Ok(Outcome::Unchanged);
        };
        let Some(known) = inner.known(unit, &label).await? else {
            return Ok(Outcome::Unchanged);
        };
        if known.unit_state(unit.clone()).active == Active::Failed {
            return inner.let_go(unit, &label).await;
        }
        if let Some(record) = inner.folder.read(&label).record
            && known.record.failures > 0
        {
            let cleared = files::change_record(&record, |record| record.failures = 0);
            cleared.map_err(|error| file_failed("clear", &unit.name(), error))?;
        }
        Ok(Outcome::Changed)
    }

    async fn list(&self, instance: Option<&Handle>) -> Result<Vec<UnitState>, SupervisorError> {
        let inner = &self.0;
        let jobs = inner.loaded(instance).await?;
        let mut states = Vec::new();
        for some in jobs.chunks(LOOKS) {
            let looks = some.iter().map(|(unit, label)| async move {
                let known = inner.known(unit, label).await?;
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
        let groups: std::collections::BTreeSet<UnitId> = (states.iter())
            .map(|state| UnitId::group(&state.unit.handle))
            .collect();
        let groups = groups.into_iter();
        states.extend(groups.map(|group| states::standing(group, "active")));
        states.sort_by(|a, b| a.unit.cmp(&b.unit));
        Ok(states)
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

/// Refuses a unit that could not have its secrets.
fn no_credentials(unit: &UnitId, credentials: Option<&Path>) -> Result<(), SupervisorError> {
    match credentials {
        Some(_) => Err(SupervisorError::NoCredentials { unit: unit.name() }),
        None => Ok(()),
    }
}

fn changed(is_changed: bool) -> Outcome {
    match is_changed {
        true => Outcome::Changed,
        false => Outcome::Unchanged,
    }
}

fn call_failed(operation: &'static str, unit: &str, error: LaunchctlError) -> SupervisorError {
    SupervisorError::Call {
        operation,
        unit: unit.to_owned(),
        source: error.into(),
    }
}

fn file_failed(operation: &'static str, unit: &str, error: JobFileError) -> SupervisorError {
    SupervisorError::Call {
        operation,
        unit: unit.to_owned(),
        source: error.into(),
    }
}
