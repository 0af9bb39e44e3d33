//! A fake service manager: units are entries in a map, and a connection to a
//! control socket "starts" a fake owner, as socket activation would.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aegis_core::handle::Handle;
use aegis_core::layout::Mode;
use aegis_core::units::UnitKind;
use aegis_core::vm_spec::VmSpec;
use aegisd::supervisor::error::SupervisorError;
use aegisd::supervisor::plan::{DaemonPlan, DoorPlan, HelperPlan, InstancePlan, Listen};
use aegisd::supervisor::state::{Active, Change, Facts, RunResult, UnitState};
use aegisd::supervisor::{Capabilities, Limits, Outcome, Supervisor, UnitId, Usage};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use crate::fake_owner::{Boot, FakeOwner};

/// See the module. Clones are the same manager.
#[derive(Clone, Debug)]
pub(crate) struct FakeSupervisor {
    inner: Arc<Mutex<Inner>>,
    changes: broadcast::Sender<Change>,
    /// What a call holds while it is sent, as on a real bus.
    wire: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Inner {
    units: BTreeMap<UnitId, UnitState>,
    listeners: BTreeMap<Handle, JoinHandle<()>>,
    owners: BTreeMap<Handle, FakeOwner>,
    boot: Boot,
    /// An address that somebody else has.
    taken: Option<String>,
    next_pid: u32,
    /// The VM specs, read at each start.
    specs: BTreeMap<Handle, PathBuf>,
    refuses_limits: bool,
    stalls: bool,
}

impl FakeSupervisor {
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::default(),
            changes: broadcast::channel(1024).0,
            wire: Arc::default(),
        }
    }

    /// How VMs boot from now on.
    pub(crate) fn boots(&self, boot: Boot) {
        self.lock().boot = boot;
    }

    /// Somebody else has this address from now on.
    pub(crate) fn take_address(&self, address: &str) {
        self.lock().taken = Some(address.to_owned());
    }

    /// The names of all units.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().units.keys().map(UnitId::name).collect()
    }

    /// Refuses the next change of limits.
    pub(crate) fn refuse_limits(&self) {
        self.lock().refuses_limits = true;
    }

    /// A daemon fails for good. The next launch of it takes its unit away, and no more
    /// comes of that.
    pub(crate) fn fail_and_stall(&self, unit: &UnitId) {
        self.set(unit, Active::Failed);
        self.lock().stalls = true;
    }

    /// The limits of a unit.
    pub(crate) fn limits(&self, unit: &UnitId) -> Limits {
        self.lock().units[unit].limits.clone()
    }

    /// The last signal the command of an instance got.
    pub(crate) fn killed(&self, handle: &Handle) -> i32 {
        self.lock().owners[handle].killed()
    }

    /// The process of a unit.
    pub(crate) fn pid(&self, unit: &UnitId) -> Option<u32> {
        self.lock().units.get(unit)?.main_pid
    }

    /// A unit ends: by somebody's stop job, or by itself.
    pub(crate) fn lose(&self, unit: &UnitId, stopped: bool) {
        if self.drop_unit(unit) {
            if stopped {
                drop(self.changes.send(Change::Stopped(unit.clone())));
            }
            drop(self.changes.send(Change::Gone(unit.clone())));
        }
    }

    /// Sends a call over a bus that is slow to take it, while it tells of a change:
    /// whoever looks at once waits for this to be sent.
    async fn send_slowly(&self, unit: &UnitId) {
        let held = self.wire.lock().await;
        drop(self.changes.send(Change::Changed(unit.clone())));
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(held);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, unit: &UnitId, active: Active) {
        let mut inner = self.lock();
        inner.next_pid += 1;
        let service = matches!(unit.kind, UnitKind::Vm | UnitKind::Daemon(_));
        let runs = service && !matches!(active, Active::Inactive | Active::Failed);
        let before = inner.units.get(unit).and_then(|state| state.main_pid);
        let pid = inner.next_pid;
        let limits = inner.units.get(unit).map(|state| state.limits.clone());
        let limits = limits.unwrap_or_default();
        let state = UnitState {
            unit: unit.clone(),
            active,
            sub: String::new(),
            result: RunResult::Success,
            restarts: 0,
            next_restart: None,
            main_pid: runs.then_some(before.unwrap_or(pid)),
            run: before.unwrap_or(pid).to_string(),
            last_end: None,
            started: 1,
            since: 1,
            control_group: String::new(),
            status: String::new(),
            stopping: false,
            limits,
        };
        inner.units.insert(unit.clone(), state);
        drop(inner);
        drop(self.changes.send(Change::Changed(unit.clone())));
    }

    fn drop_unit(&self, unit: &UnitId) -> bool {
        let mut inner = self.lock();
        match unit.kind {
            UnitKind::Vm => end_vm(&mut inner, &unit.handle),
            UnitKind::Socket => {
                if let Some(listener) = inner.listeners.remove(&unit.handle) {
                    listener.abort();
                }
            }
            UnitKind::Slice
            | UnitKind::Daemon(_)
            | UnitKind::ApiSocket
            | UnitKind::Door
            | UnitKind::PortSocket(_)
            | UnitKind::PortDoor(_) => {}
        }
        inner.units.remove(unit).is_some()
    }

    /// What a connection or a start job does.
    fn activate(&self, handle: &Handle) -> FakeOwner {
        let vm = UnitId::vm(handle);
        let owner = {
            let mut inner = self.lock();
            if let Some(owner) = inner.owners.get(handle) {
                return owner.clone();
            }
            let spec = std::fs::read(&inner.specs[handle]).unwrap();
            let spec: VmSpec = serde_json::from_slice(&spec).unwrap();
            let owner = FakeOwner::boot(&inner.boot, &spec);
            inner.owners.insert(handle.clone(), owner.clone());
            owner
        };
        self.set(&vm, Active::Activating);
        let (manager, ready) = (self.clone(), owner.clone());
        tokio::spawn(async move {
            ready.settled().await;
            if manager.lock().owners.contains_key(&vm.handle) {
                manager.set(&vm, Active::Active);
            }
        });
        owner
    }

    fn listen(&self, handle: &Handle, path: PathBuf) {
        drop(std::fs::remove_file(&path));
        let listener = UnixListener::bind(path).unwrap();
        let (manager, accepted_for) = (self.clone(), handle.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(manager.activate(&accepted_for).serve(stream));
            }
        });
        self.lock().listeners.insert(handle.clone(), task);
    }
}

fn end_vm(inner: &mut Inner, handle: &Handle) {
    if let Some(owner) = inner.owners.remove(handle) {
        owner.end();
    }
}

#[async_trait]
impl Supervisor for FakeSupervisor {
    async fn facts(&self) -> Result<Facts, SupervisorError> {
        Ok(Facts {
            name: "a fake".to_owned(),
            version: 0,
            mode: Mode::User,
            started_at: 1,
            lingering: Some(true),
            capabilities: Capabilities {
                growing_delay: true,
                confinement: true,
                log_fields: true,
                journal: true,
                credentials: true,
                outlives_logout: true,
                between_starts: Duration::ZERO,
            },
        })
    }

    async fn confinement_obstacle(&self) -> Result<Option<String>, SupervisorError> {
        Ok(None)
    }

    async fn help(&self, _plan: HelperPlan) -> Result<(), SupervisorError> {
        // It ends at once, without a word.
        Ok(())
    }

    async fn open(&self, plan: &InstancePlan) -> Result<Outcome, SupervisorError> {
        let sockets = UnitId::sockets(&plan.handle);
        if self.lock().units.contains_key(&sockets) {
            return Ok(Outcome::Unchanged);
        }
        if let Some(Listen::Unix(path)) = plan.listen.first() {
            self.listen(&plan.handle, path.clone());
        }
        self.set(&UnitId::group(&plan.handle), Active::Active);
        self.set(&UnitId::vm(&plan.handle), Active::Inactive);
        if let Some(vm) = self.lock().units.get_mut(&UnitId::vm(&plan.handle)) {
            vm.limits = plan.limits.clone();
        }
        let spec = plan.program.arguments.last().map(PathBuf::from).unwrap();
        self.lock().specs.insert(plan.handle.clone(), spec);
        self.set(&sockets, Active::Active);
        Ok(Outcome::Changed)
    }

    async fn listen(&self, plan: &DoorPlan) -> Result<Outcome, SupervisorError> {
        if self.lock().units.contains_key(&plan.socket) {
            return Ok(Outcome::Unchanged);
        }
        if let Listen::Tcp(address) = &plan.listen {
            let address = address.to_string();
            if self.lock().taken.as_ref() == Some(&address) {
                return Err(SupervisorError::Bind {
                    unit: plan.socket.name(),
                    address,
                    source: std::io::ErrorKind::AddrInUse.into(),
                });
            }
        }
        self.set(&plan.door, Active::Inactive);
        self.set(&plan.socket, Active::Active);
        Ok(Outcome::Changed)
    }

    async fn launch(&self, plan: &DaemonPlan) -> Result<Outcome, SupervisorError> {
        let unit = UnitId::daemon(&plan.handle, &plan.daemon);
        if std::mem::take(&mut self.lock().stalls) {
            self.lock().units.remove(&unit);
            return std::future::pending().await;
        }
        if self.lock().units.contains_key(&unit) {
            return Ok(Outcome::Unchanged);
        }
        self.set(&unit, Active::Active);
        Ok(Outcome::Changed)
    }

    async fn start(&self, unit: &UnitId) -> Result<Outcome, SupervisorError> {
        if self.pid(unit).is_some() {
            return Ok(Outcome::Unchanged);
        }
        self.activate(&unit.handle).settled().await;
        Ok(Outcome::Changed)
    }

    async fn stop(&self, unit: &UnitId) -> Result<Outcome, SupervisorError> {
        self.send_slowly(unit).await;
        if unit.kind == UnitKind::Vm {
            if self.pid(unit).is_none() {
                return Ok(Outcome::Unchanged);
            }
            end_vm(&mut self.lock(), &unit.handle);
            self.set(unit, Active::Inactive);
            return Ok(Outcome::Changed);
        }
        let members: Vec<UnitId> = self.lock().units.keys().cloned().collect();
        let whole = unit.kind == UnitKind::Slice;
        let members = members
            .into_iter()
            .filter(|member| *member == *unit || whole && member.handle == unit.handle);
        let mut outcome = Outcome::Unchanged;
        for member in members {
            self.lose(&member, true);
            outcome = Outcome::Changed;
        }
        Ok(outcome)
    }

    async fn restart(&self, unit: &UnitId) -> Result<(), SupervisorError> {
        self.drop_unit(unit);
        self.set(unit, Active::Active);
        Ok(())
    }

    async fn signal(&self, _: &UnitId, _: i32) -> Result<(), SupervisorError> {
        Ok(())
    }

    async fn limit(&self, unit: &UnitId, limits: &Limits) -> Result<(), SupervisorError> {
        let mut inner = self.lock();
        if std::mem::take(&mut inner.refuses_limits) {
            return Err(SupervisorError::Call {
                operation: "limit",
                unit: unit.name(),
                source: "refused".into(),
            });
        }
        let state = inner.units.get_mut(unit);
        let state = state.ok_or_else(|| SupervisorError::NotFound { unit: unit.name() })?;
        state.limits = limits.clone();
        Ok(())
    }

    async fn usage(&self, _: &UnitId) -> Result<Usage, SupervisorError> {
        Ok(Usage {
            memory: Some(1 << 20),
            cpu_ns: None,
            tasks: Some(3),
        })
    }

    async fn clear(&self, _: &UnitId) -> Result<Outcome, SupervisorError> {
        Ok(Outcome::Unchanged)
    }

    async fn list(&self, instance: Option<&Handle>) -> Result<Vec<UnitState>, SupervisorError> {
        drop(self.wire.lock().await);
        let inner = self.lock();
        let wanted = inner
            .units
            .values()
            .filter(|state| instance.is_none_or(|handle| state.unit.handle == *handle));
        Ok(wanted.cloned().collect())
    }

    async fn place(&self, _pid: u32) -> Result<String, SupervisorError> {
        Ok(String::new())
    }

    async fn changes(&self) -> Result<BoxStream<'static, Change>, SupervisorError> {
        let changes = self.changes.subscribe();
        let changes = stream::unfold(changes, |mut changes| async {
            Some((changes.recv().await.ok()?, changes))
        });
        Ok(changes.boxed())
    }
}
