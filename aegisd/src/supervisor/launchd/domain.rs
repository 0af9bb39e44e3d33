//! One domain of launchd's and the jobs in it: the steps that calls are made of.
//!
//! ```text
//!  load ─► first run ─► ready ─► end of the process ─► ready again
//!    │                             └─► rest: its sockets listen on
//!    └─► let go: told to leave, waited for, its files removed
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_core::handle::Handle;
use aegis_core::launchd::{Order, Service, labels};
use aegis_core::layout::{Layout, Mode};
use aegis_core::units::UnitKind;
use plist::Dictionary;
use tokio::time::{Instant, sleep};

use super::files::{self, JobFileError, JobFolder};
use super::jobs::{self, JobFiles, JobMaker, UnitUser};
use super::launchctl::{Launchctl, LaunchctlError};
use super::readiness::Ears;
use super::states::{self, Known};
use crate::supervisor::error::JobEnd;
use crate::supervisor::state::Active;
use crate::supervisor::{Outcome, SupervisorError, UnitId};

/// Between two looks at a job that is waited for.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a job that was loaded may take to have its first run, before it is started by
/// hand: launchd was seen to forget that.
const FIRST_RUN: Duration = Duration::from_secs(10);
/// How much longer than its program may take a label may stay.
const LINGERS: Duration = Duration::from_secs(30);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// See the module.
#[derive(Debug)]
pub(super) struct Domain {
    pub(super) launchctl: Launchctl,
    pub(super) maker: JobMaker,
    pub(super) folder: JobFolder,
    pub(super) ears: Ears,
    pub(super) layout: Layout,
    /// When the first job of ours was loaded, in microseconds since 1970.
    pub(super) began: u64,
}

impl Domain {
    /// The label of a unit's job. Only groups have none, which no caller asks for.
    pub(super) fn label(unit: &UnitId) -> Result<String, SupervisorError> {
        jobs::label(unit).ok_or_else(|| SupervisorError::NotFound { unit: unit.name() })
    }

    /// Where the log, the record and the words of a job go.
    pub(super) fn files(&self, unit: &UnitId, label: &str) -> Result<JobFiles, SupervisorError> {
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

    /// Hears what a job says from now on.
    pub(super) fn listen_to(&self, unit: &UnitId, label: &str) -> Result<(), SupervisorError> {
        let instance = self.layout.instance(&unit.handle);
        let listening = self.ears.listen(label, instance.dir());
        listening.map_err(|error| file_failed("listen to", &unit.name(), error))
    }

    /// What launchd says of a job; `None` if it is not loaded.
    pub(super) async fn service(
        &self,
        unit: &UnitId,
        label: &str,
    ) -> Result<Option<Service>, SupervisorError> {
        let text = self.launchctl.print(&self.maker.target(label)).await;
        let text = text.map_err(|error| call_failed("read", &unit.name(), error))?;
        Ok(text.map(|text| Service::parse(&text)))
    }

    /// All that is known of a job; `None` if it is not loaded.
    pub(super) async fn known(
        &self,
        unit: &UnitId,
        label: &str,
    ) -> Result<Option<Known>, SupervisorError> {
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
    pub(super) async fn existing(
        &self,
        unit: &UnitId,
        label: &str,
    ) -> Result<Known, SupervisorError> {
        let known = self.known(unit, label).await?;
        let known = known.filter(|known| !known.service.is_leaving());
        known.ok_or_else(|| SupervisorError::NotFound { unit: unit.name() })
    }

    /// Leaves an order for the next start in the record of a job that has one.
    pub(super) fn order(
        &self,
        unit: &UnitId,
        label: &str,
        order: Order,
    ) -> Result<(), SupervisorError> {
        let Some(record) = self.folder.read(label).record else {
            return Ok(());
        };
        let left = files::change_record(&record, |record| record.order = Some(order));
        left.map_err(|error| file_failed("order", &unit.name(), error))
    }

    /// Loads a job in place of one that leaves.
    pub(super) async fn load(
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
    pub(super) async fn first_run(
        &self,
        unit: &UnitId,
        label: &str,
    ) -> Result<(), SupervisorError> {
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

    pub(super) async fn kickstart(
        &self,
        unit: &UnitId,
        label: &str,
    ) -> Result<(), SupervisorError> {
        let started = self.launchctl.kickstart(&self.maker.target(label)).await;
        match started.map_err(|error| call_failed("start", &unit.name(), error))? {
            true => Ok(()),
            false => Err(SupervisorError::NotFound { unit: unit.name() }),
        }
    }

    /// Waits until the run of this number is ready.
    pub(super) async fn ready(
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
    pub(super) async fn end_process(
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
    pub(super) async fn let_go(
        &self,
        unit: &UnitId,
        label: &str,
    ) -> Result<Outcome, SupervisorError> {
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
    pub(super) async fn rest(
        &self,
        unit: &UnitId,
        label: &str,
    ) -> Result<Outcome, SupervisorError> {
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

    /// What launchd says of all jobs of the domain.
    pub(super) async fn jobs(&self) -> Result<String, SupervisorError> {
        let domain = &self.maker.domain;
        let text = self.launchctl.print(domain).await;
        let text = text.map_err(|error| call_failed("list", domain, error))?;
        Ok(text.unwrap_or_default())
    }

    pub(super) async fn labels(&self) -> Result<Vec<String>, SupervisorError> {
        Ok(labels(&self.jobs().await?).map(str::to_owned).collect())
    }

    /// Refuses a unit that could not have its secrets: aegisd's socket is closed to the
    /// user of the system's jobs.
    pub(super) fn can_ask(
        &self,
        unit: &UnitId,
        credentials: Option<&Path>,
    ) -> Result<(), SupervisorError> {
        match credentials.is_some() && self.maker.user.is_some() {
            true => Err(SupervisorError::NoCredentials { unit: unit.name() }),
            false => Ok(()),
        }
    }

    /// The loaded jobs of all instances or of one, and the units they run.
    pub(super) async fn loaded(
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

impl Domain {
    /// Finds the domain of the layout's mode and listens to the jobs that are there.
    /// `shim` is aegis-shim, `user` whom jobs of the system run as.
    ///
    /// # Errors
    /// [`SupervisorError::Unreachable`] where launchctl does not work or no domain is there.
    pub(super) async fn find(
        launchctl: Launchctl,
        layout: &Layout,
        shim: PathBuf,
        uid: u32,
        user: Option<UnitUser>,
    ) -> Result<Self, SupervisorError> {
        let (domain, text) = name(&launchctl, layout.mode, uid).await?;
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
        let found = Self {
            ears: Ears::in_folder(layout.runtime.join("notify")),
            layout: layout.clone(),
            launchctl,
            maker,
            folder,
            began,
        };
        for label in labels(&text) {
            if let Some(unit) = jobs::unit(label)
                && found.folder.read(label).notify.is_some()
            {
                found.listen_to(&unit, label)?;
            }
        }
        Ok(found)
    }
}

/// The domain of a mode, with what launchd says of it.
async fn name(
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

pub(super) fn changed(is_changed: bool) -> Outcome {
    match is_changed {
        true => Outcome::Changed,
        false => Outcome::Unchanged,
    }
}

pub(super) fn call_failed(
    operation: &'static str,
    unit: &str,
    error: LaunchctlError,
) -> SupervisorError {
    SupervisorError::Call {
        operation,
        unit: unit.to_owned(),
        source: error.into(),
    }
}

pub(super) fn file_failed(
    operation: &'static str,
    unit: &str,
    error: JobFileError,
) -> SupervisorError {
    SupervisorError::Call {
        operation,
        unit: unit.to_owned(),
        source: error.into(),
    }
}
