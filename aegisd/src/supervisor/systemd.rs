//! systemd: transient units over D-Bus, in a user's manager or the system's.
//!
//! Nothing is written to disk and the manager is never told to reload. systemd
//! 252 and newer; what only newer ones can is chosen by version.
//!
//! | module | what it owns |
//! |---|---|
//! | `connection` | the way to the manager's bus |
//! | `manager` | the calls |
//! | `jobs` | waiting for what a call began, and why it failed |
//! | `signals` | the manager's reports, and why a unit went |
//! | `units` | units as properties |
//! | `sandbox` | what confines them |
//! | `trial` | whether the sandbox can be had here |
//! | `version` | which features there are |
//! | `query` | properties as [`UnitState`] |

mod connection;
mod jobs;
mod manager;
mod place;
mod query;
mod sandbox;
mod signals;
mod trial;
mod units;
mod version;

use std::path::PathBuf;
use std::time::Duration;

use aegis_core::handle::Handle;
use aegis_core::layout::{Layout, Mode};
use aegis_core::units::{PATTERN, ROOT_SLICE, UnitKind, patterns as units_of};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use self::jobs::Ended;
use self::manager::{AuxiliaryUnit, Manager, Property, is_absent, is_error};
use self::sandbox::Places;
use self::signals::Signal;
use self::units::UnitMaker;
use super::bind::bind_error;
use super::plan::Confinement;
use super::state::{Active, ProcessEnd};
use super::{
    Capabilities, Change, DaemonPlan, DoorPlan, Facts, HelperPlan, InstancePlan, Limits, Outcome,
    Supervisor, SupervisorError, UnitId, UnitState, Usage,
};

/// The oldest version that is supported and tested.
pub const OLDEST_VERSION: u32 = 252;

/// The first version whose user managers put `LogExtraFields=` into the journal.
const USER_LOG_FIELDS_SINCE: u32 = 254;

/// The manager reports how it went itself if this exit code or a greater one is
/// seen (systemd.exec(5), "Process Exit Codes").
const FIRST_MANAGER_CODE: i32 = 200;

/// Mode of jobs: replace a job that contradicts. What people did by hand is found
/// out by reconciliation, not by a refusal here.
const REPLACE: &str = "replace";

/// A systemd manager.
#[derive(Debug)]
pub struct Systemd {
    connection: zbus::Connection,
    manager: Manager,
    /// Never read from; each waiter gets a receiver of its own out of it.
    signals: broadcast::Receiver<Signal>,
    maker: UnitMaker,
    uid: u32,
}

impl Systemd {
    /// Connects to the manager that serves the layout's mode for the user `uid`.
    ///
    /// # Errors
    /// [`SupervisorError::Unreachable`] without a manager,
    /// [`SupervisorError::ForeignBus`] and [`SupervisorError::TooOld`].
    pub async fn connect(layout: &Layout, uid: u32) -> Result<Self, SupervisorError> {
        let connection = connection::connect(layout.mode, uid).await?;
        let unreachable = |source: zbus::Error| SupervisorError::Unreachable {
            address: "org.freedesktop.systemd1".to_owned(),
            source: source.into(),
        };
        let manager = Manager::new(&connection).await.map_err(unreachable)?;
        let version = manager.version().await.map_err(unreachable)?;
        let version = version::major_version(&version);
        if version < OLDEST_VERSION {
            return Err(SupervisorError::TooOld {
                version,
                oldest: OLDEST_VERSION,
            });
        }
        // The rules first: between them and Subscribe() nothing is sent that matters.
        let signals = signals::read(&connection).await.map_err(unreachable)?;
        manager.subscribe().await.map_err(unreachable)?;
        let mut hidden = vec![
            layout.home.clone(),
            layout.config.clone(),
            layout.runtime.clone(),
        ];
        if layout.mode == Mode::User {
            hidden.extend(std::env::var_os("HOME").map(PathBuf::from));
        }
        let places = Places::new(layout.mode, uid, hidden);
        Ok(Self {
            connection,
            manager,
            signals,
            maker: UnitMaker { version, places },
            uid,
        })
    }

    fn mode(&self) -> Mode {
        self.maker.places.mode
    }

    fn check_confinement(
        &self,
        unit: &str,
        confinement: &Confinement,
    ) -> Result<(), SupervisorError> {
        match (confinement, sandbox::obstacle(self.mode())) {
            (Confinement::Reach(_), Some(obstacle)) => Err(SupervisorError::NoUserNamespaces {
                unit: unit.to_owned(),
                obstacle,
            }),
            _ => Ok(()),
        }
    }

    async fn state(&self, unit: &UnitId) -> Result<Option<UnitState>, SupervisorError> {
        let name = unit.name();
        let states = self.matching(&[&name], |found| found == unit).await?;
        Ok(states.into_iter().next())
    }

    /// The units whose names match and that are meant.
    async fn matching(
        &self,
        patterns: &[&str],
        is_meant: impl Fn(&UnitId) -> bool,
    ) -> Result<Vec<UnitState>, SupervisorError> {
        let rows = self.manager.list_units_by_patterns(&[], patterns).await;
        let rows = rows.map_err(|error| failed("list", &patterns.join(" "), error))?;
        let ours = rows.iter().filter_map(|row| {
            let unit = UnitId::parse(&row.0).filter(|unit| is_meant(unit))?;
            Some((unit, row))
        });
        let ours: Vec<_> = ours.collect();
        let mut states = Vec::new();
        for some in ours.chunks(READS) {
            let reads = some.iter().map(|(unit, row)| async move {
                match query::unit_state(&self.connection, unit.clone(), row).await {
                    Err(error) if is_absent(&error) => Ok(None),
                    read => read.map_err(|error| failed("read", &unit.name(), error)),
                }
            });
            states.extend(try_join_all(reads).await?.into_iter().flatten());
        }
        Ok(states)
    }

    async fn reset_failed(&self, name: &str) -> Result<Outcome, SupervisorError> {
        match self.manager.reset_failed_unit(name).await {
            Ok(()) => Ok(Outcome::Changed),
            Err(error) if is_absent(&error) => Ok(Outcome::Unchanged),
            Err(error) => Err(failed("forget the failure of", name, error)),
        }
    }

    /// Creates and starts a unit in its instance's slice, with units that belong to it.
    async fn create(
        &self,
        unit: &UnitId,
        properties: &[Property],
        auxiliary: Vec<(String, Vec<Property>)>,
    ) -> Result<(), SupervisorError> {
        let name = unit.name();
        let slice = UnitId::group(&unit.handle);
        let slices = [
            (ROOT_SLICE.to_owned(), UnitMaker::root_slice()),
            (slice.name(), UnitMaker::slice(&slice)),
        ];
        for tries_left in (0..CREATION_TRIES).rev() {
            let mut all = auxiliary.clone();
            all.extend(self.missing_slices(&slices).await?);
            let all: Vec<AuxiliaryUnit<'_>> = all
                .iter()
                .map(|(name, properties)| (name.as_str(), properties.as_slice()))
                .collect();
            let call = self
                .manager
                .start_transient_unit(&name, REPLACE, properties, &all);
            match self.finish("start", unit, call).await {
                Err(Ended::Call(error)) if slice_came_or_went(&error) && tries_left > 0 => {
                    tokio::time::sleep(CREATION_PAUSE).await;
                }
                ended => return self.explain("start", unit, ended).await,
            }
        }
        Ok(())
    }

    /// Those slices that are not there, or no more than a name: an empty slice loses
    /// its file before the manager forgets it, and a reload in between finds nothing
    /// to load.
    async fn missing_slices(
        &self,
        wanted: &[(String, Vec<Property>)],
    ) -> Result<Vec<(String, Vec<Property>)>, SupervisorError> {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let found = self.manager.list_units_by_patterns(&[], &names).await;
        let found = found.map_err(|error| failed("list", &names.join(" "), error))?;
        let is_loaded =
            |name: &str| (found.iter()).any(|row| row.0 == name && row.2 == query::LOADED);
        let missing = wanted.iter().filter(|(name, _)| !is_loaded(name));
        Ok(missing.cloned().collect())
    }
}

/// Units that are read at a time: what a bus lets one client wait for is limited.
const READS: usize = 16;

/// A slice may come or go between the look at it and the call that needs it; each
/// time takes somebody else's act at that moment.
const CREATION_TRIES: u32 = 5;
/// Between two of them, for the other's act to end.
const CREATION_PAUSE: Duration = Duration::from_millis(20);

fn slice_came_or_went(error: &zbus::Error) -> bool {
    is_error(error, "UnitExists") || is_absent(error)
}

#[async_trait]
impl Supervisor for Systemd {
    async fn facts(&self) -> Result<Facts, SupervisorError> {
        let started_at = self
            .manager
            .userspace_timestamp()
            .await
            .map_err(|error| failed("read", "the manager", error))?;
        let version = self.maker.version;
        let mode = self.mode();
        Ok(Facts {
            name: format!("systemd {version}"),
            version,
            mode,
            started_at,
            lingering: (mode == Mode::User)
                .then(|| connection::lingers(self.uid))
                .flatten(),
            capabilities: Capabilities {
                growing_delay: self.maker.grows_delays(),
                confinement: true,
                log_fields: mode == Mode::System || version >= USER_LOG_FIELDS_SINCE,
                journal: true,
                credentials: true,
                outlives_logout: true,
                between_starts: Duration::ZERO,
            },
        })
    }

    async fn confinement_obstacle(&self) -> Result<Option<String>, SupervisorError> {
        self.obstacle().await
    }

    async fn open(&self, plan: &InstancePlan) -> Result<Outcome, SupervisorError> {
        let (sockets, vm) = (UnitId::sockets(&plan.handle), UnitId::vm(&plan.handle));
        match self.state(&sockets).await? {
            Some(state) if is_up(&state) => return Ok(Outcome::Unchanged),
            Some(_) => drop(self.reset_failed(&sockets.name()).await?),
            None => {}
        }
        match self.state(&vm).await? {
            // A socket unit cannot start while its service runs.
            Some(state) if is_up(&state) => {
                return Err(SupervisorError::StillRuns {
                    unit: sockets.name(),
                    other: vm.name(),
                });
            }
            Some(_) => drop(self.reset_failed(&vm.name()).await?),
            None => {}
        }
        self.check_confinement(&vm.name(), &plan.confinement)?;
        let service = self.maker.vm(plan)?;
        let created = self
            .create(
                &sockets,
                &self.maker.sockets(plan),
                vec![(vm.name(), service)],
            )
            .await;
        match created {
            Ok(()) => Ok(Outcome::Changed),
            Err(error) => {
                self.reset_failed(&sockets.name()).await?;
                Err(bind_error(&sockets, &plan.listen).unwrap_or(error))
            }
        }
    }

    async fn listen(&self, plan: &DoorPlan) -> Result<Outcome, SupervisorError> {
        let DoorPlan { socket, door, .. } = plan;
        if self.state(socket).await?.is_some_and(|state| is_up(&state)) {
            return Ok(Outcome::Unchanged);
        }
        // A socket unit cannot start while its service runs; this one holds nothing
        // that a client would not ask for again.
        self.stop(door).await?;
        for unit in [socket, door] {
            self.reset_failed(&unit.name()).await?;
        }
        self.check_confinement(&door.name(), &plan.confinement)?;
        let service = self.maker.door(plan)?;
        let auxiliary = vec![(door.name(), service)];
        let properties = self.maker.door_socket(plan);
        let Err(error) = self.create(socket, &properties, auxiliary).await else {
            return Ok(Outcome::Changed);
        };
        self.reset_failed(&socket.name()).await?;
        Err(bind_error(socket, [&plan.listen]).unwrap_or(error))
    }

    async fn launch(&self, plan: &DaemonPlan) -> Result<Outcome, SupervisorError> {
        let unit = UnitId::daemon(&plan.handle, &plan.daemon);
        match self.state(&unit).await? {
            Some(state) if state.has_exited() || state.active == Active::Deactivating => {
                self.stop(&unit).await?;
                self.reset_failed(&unit.name()).await?;
            }
            Some(state) if is_up(&state) => return Ok(Outcome::Unchanged),
            Some(_) => drop(self.reset_failed(&unit.name()).await?),
            None => {}
        }
        self.check_confinement(&unit.name(), &plan.confinement)?;
        let properties = self.maker.daemon(plan)?;
        let Err(error) = self.create(&unit, &properties, Vec::new()).await else {
            return Ok(Outcome::Changed);
        };
        let started_since = self
            .state(&unit)
            .await?
            .is_some_and(|state| state.active == Active::Active);
        match &error {
            _ if started_since => Ok(Outcome::Changed),
            // The daemon's own failure is the manager's to repeat.
            SupervisorError::Job {
                last_end: Some(end),
                ..
            } if !is_managers(*end) => Ok(Outcome::Changed),
            SupervisorError::OutOfMemory { .. } => Ok(Outcome::Changed),
            _ => {
                self.stop(&unit).await?;
                self.reset_failed(&unit.name()).await?;
                Err(error)
            }
        }
    }

    async fn help(&self, plan: HelperPlan) -> Result<(), SupervisorError> {
        let name = format!("{}.service", plan.name);
        self.check_confinement(&name, &plan.confinement)?;
        let properties = self.maker.helper(&name, plan)?;
        let slice = [(ROOT_SLICE.to_owned(), UnitMaker::root_slice())];
        for tries_left in (0..CREATION_TRIES).rev() {
            let missing = self.missing_slices(&slice).await?;
            let missing: Vec<AuxiliaryUnit<'_>> = missing
                .iter()
                .map(|(name, properties)| (name.as_str(), properties.as_slice()))
                .collect();
            let call = self
                .manager
                .start_transient_unit(&name, REPLACE, &properties, &missing);
            match call.await {
                Err(error) if slice_came_or_went(&error) && tries_left > 0 => {
                    tokio::time::sleep(CREATION_PAUSE).await;
                }
                started => {
                    started.map_err(|error| failed("start", &name, error))?;
                    break;
                }
            }
        }
        Ok(())
    }

    async fn start(&self, unit: &UnitId) -> Result<Outcome, SupervisorError> {
        if self
            .state(unit)
            .await?
            .is_some_and(|state| state.active == Active::Active)
        {
            return Ok(Outcome::Unchanged);
        }
        let name = unit.name();
        let ended = self
            .finish("start", unit, self.manager.start_unit(&name, REPLACE))
            .await;
        self.explain("start", unit, ended).await?;
        Ok(Outcome::Changed)
    }

    async fn stop(&self, unit: &UnitId) -> Result<Outcome, SupervisorError> {
        let name = unit.name();
        let mut outcome = Outcome::Unchanged;
        if self
            .state(unit)
            .await?
            .is_some_and(|state| state.active != Active::Inactive)
        {
            let ended = self
                .finish("stop", unit, self.manager.stop_unit(&name, REPLACE))
                .await;
            match self.explain("stop", unit, ended).await {
                Ok(()) => outcome = Outcome::Changed,
                Err(SupervisorError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if unit.kind == UnitKind::Slice {
            for left in self.list(Some(&unit.handle)).await? {
                if left.active == Active::Failed {
                    self.reset_failed(&left.unit.name()).await?;
                    outcome = Outcome::Changed;
                }
            }
        }
        Ok(outcome)
    }

    async fn restart(&self, unit: &UnitId) -> Result<(), SupervisorError> {
        let name = unit.name();
        let ended = self
            .finish("restart", unit, self.manager.restart_unit(&name, REPLACE))
            .await;
        self.explain("restart", unit, ended).await
    }

    async fn signal(&self, unit: &UnitId, signal: i32) -> Result<(), SupervisorError> {
        let name = unit.name();
        match self.manager.kill_unit(&name, "main", signal).await {
            Ok(()) => Ok(()),
            Err(error) if is_absent(&error) || is_error(&error, "NoSuchProcess") => {
                Err(SupervisorError::NotFound { unit: name })
            }
            Err(error) => Err(failed("signal", &name, error)),
        }
    }

    async fn limit(&self, unit: &UnitId, limits: &Limits) -> Result<(), SupervisorError> {
        let (name, properties) = (unit.name(), units::limits(limits));
        let set = self.manager.set_unit_properties(&name, true, &properties);
        set.await.map_err(|error| failed("limit", &name, error))
    }

    async fn usage(&self, unit: &UnitId) -> Result<Usage, SupervisorError> {
        let name = unit.name();
        let read = async {
            let object = self.manager.get_unit(&name).await?;
            query::usage(&self.connection, &object).await
        };
        match read.await {
            Err(error) if is_absent(&error) => Err(SupervisorError::NotFound { unit: name }),
            read => read.map_err(|error| failed("read", &name, error)),
        }
    }

    async fn clear(&self, unit: &UnitId) -> Result<Outcome, SupervisorError> {
        self.reset_failed(&unit.name()).await
    }

    async fn list(&self, instance: Option<&Handle>) -> Result<Vec<UnitState>, SupervisorError> {
        // With many instances the units of all are far more than those of one.
        let patterns = match instance {
            Some(handle) => units_of(handle).to_vec(),
            None => vec![PATTERN.to_owned()],
        };
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let is_meant = |unit: &UnitId| instance.is_none_or(|handle| *handle == unit.handle);
        let mut states = self.matching(&patterns, is_meant).await?;
        states.sort_by(|a, b| a.unit.cmp(&b.unit));
        Ok(states)
    }

    async fn place(&self, pid: u32) -> Result<String, SupervisorError> {
        place::of_process(pid).map_err(|source| SupervisorError::Process { pid, source })
    }

    async fn changes(&self) -> Result<BoxStream<'static, Change>, SupervisorError> {
        let signals = self.signals.resubscribe();
        let changes = stream::unfold(signals, |mut signals| async {
            loop {
                match signals.recv().await {
                    Ok(Signal::Unit(change)) => return Some((change, signals)),
                    Ok(Signal::Job(ended)) => {
                        if let Some(unit) = ended.stopped {
                            return Some((Change::Stopped(unit), signals));
                        }
                    }
                    Ok(Signal::Reloaded) => {}
                    Ok(Signal::Replaced) | Err(RecvError::Lagged(_)) => {
                        return Some((Change::Missed, signals));
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Ok(changes.boxed())
    }
}

fn failed(operation: &'static str, unit: &str, error: zbus::Error) -> SupervisorError {
    SupervisorError::Call {
        operation,
        unit: unit.to_owned(),
        source: error.into(),
    }
}

/// Neither ended nor failed.
fn is_up(state: &UnitState) -> bool {
    !matches!(state.active, Active::Inactive | Active::Failed)
}

fn is_managers(end: ProcessEnd) -> bool {
    matches!(end, ProcessEnd::Code(code) if code >= FIRST_MANAGER_CODE)
}
