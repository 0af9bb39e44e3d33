//! Instances at run time: one actor task owns each of them.
//!
//! Everybody else holds an [`Instance`], which sends requests to the actor's
//! bounded mailbox and looks at what it publishes. The actor does one operation
//! at a time; between operations it reconciles ([`crate::reconcile`]).
//!
//! ```text
//!  bus, engine ── Operation + Job ──►┐
//!  service manager ── Notice ───────►│ actor ──► Work: one operation ──► registry, files,
//!  VM's owner ── VmStatus (watch) ──►┘   │                               supervisor, VM
//!                                        └──► Board: the instance as clients see it
//! ```
//!
//! Pause, resume and exec are the VM owner's business and go straight to it.
//!
//! | module | what it owns |
//! |---|---|
//! | `actor` | the task: requests, changes, timers, reconciliation |
//! | `admission` | what becomes of a request while an operation is under way |
//! | `work` | the operations, step by step |
//! | `config` | the daemons' config files, and what of them is applied |
//! | `reach` | what a daemon may see of the host |
//! | `update` | changing the settings of one that exists |
//! | `difference` | what of a request is other than the instance is |
//! | `owner_calls` | what goes straight to the owner of its VM |
//! | `running` | the operation that an actor has under way |
//! | `sleep` | leases, hibernation, waking |
//! | `stale` | secrets that are other ones than its units were given |
//! | `start` | starting a VM and waiting for its guest |
//! | `disk` | what the actor finds on the disk and clears from it |
//! | `files` | the instance's files |
//! | `health` | when a restarted service is healthy again |
//! | `names` | plain names for paths that units cannot carry |
//! | `own_stops` | which stops were ours and not somebody's by hand |
//! | `outside` | what other adapters than the bus read of it |
//! | `plans` | its units, as the service manager is asked for them |
//! | `ports` | its exposed ports |
//! | `view` | its looks |
//! | [`error`] | what can go wrong |

mod actor;
mod admission;
pub(crate) mod config;
mod difference;
mod disk;
pub mod error;
pub(crate) mod files;
mod health;
mod names;
pub(crate) mod outside;
mod own_stops;
mod owner_calls;
pub(crate) mod plans;
pub(crate) mod ports;
mod reach;
mod running;
pub(crate) mod shares;
mod sleep;
mod stale;
mod start;
mod update;
mod view;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_bus::instance::UpdateRequest;
use aegis_bus::manager::SpecRequest;
use aegis_core::control::VmStatus;
use aegis_core::handle::Handle;
use aegis_core::port::PortMapping;
use aegis_core::volume::Volume;
use tokio::sync::{Notify, mpsc, watch};

use crate::board::{Board, JobId};
use crate::host::Host;
use crate::images::Images;
use crate::jobs::{Job, Jobs};
use crate::kits::watcher::HomeConfig;
use crate::kits::{Catalog, install};
use crate::messages::Messages;
use crate::registry::{Record, Registry};
use crate::secrets::Vault;
use crate::supervisor::state::{Change, Facts, UnitState};
use crate::supervisor::{Supervisor, SupervisorError, UnitId, Usage};

use admission::Kind;
pub use error::{InstanceError, supervisor_fault};

/// Requests that may wait for an actor before callers are told to come back.
const MAILBOX: usize = 16;

/// What all instances share.
#[derive(Debug)]
pub struct Shared {
    pub host: Host,
    pub supervisor: Arc<dyn Supervisor>,
    /// What the service manager said about itself at aegisd's start.
    pub facts: Facts,
    pub registry: Registry,
    pub vault: Vault,
    pub messages: Messages,
    pub board: Arc<Board>,
    pub jobs: Jobs,
    pub catalog: Arc<Catalog>,
    pub images: Arc<Images>,
    pub directory: Directory,
    /// Held for reading while an instance is made from a kit, and for writing while
    /// folders of kits come and go.
    pub kit_folders: tokio::sync::RwLock<()>,
    /// Held for reading while an instance is given volumes, and for writing while
    /// volumes go.
    pub volumes_stay: tokio::sync::RwLock<()>,
    /// Held from the choice of a port's number until others can see it is taken.
    pub numbers: tokio::sync::Mutex<()>,
}

impl Shared {
    /// Removes folders of kits that nothing needs any more. Goes on through failures,
    /// since what is left is found again.
    pub async fn sweep_kits(self: &Arc<Self>) {
        if !self.board.follow().borrow().quarantined.is_empty() {
            // Nobody knows what programs these need.
            return;
        }
        let _folders = self.kit_folders.write().await;
        let instances = self.directory.all();
        let used: Vec<PathBuf> = instances.iter().flat_map(Instance::programs).collect();
        let shared = self.clone();
        let swept = blocking(move || install::sweep(&shared.host, &used)).await;
        if let Err(error) = swept {
            tracing::warn!("{}, ignoring", error.fault());
        }
    }
}

/// The ways to all actors, by handle without regard to case.
#[derive(Debug, Default)]
pub struct Directory {
    instances: Mutex<BTreeMap<String, Instance>>,
    /// The config that may lie in homes.
    in_homes: watch::Sender<BTreeMap<Handle, HomeConfig>>,
}

impl Directory {
    /// The instance of a handle.
    pub fn find(&self, handle: &str) -> Option<Instance> {
        self.lock().get(&handle.to_ascii_lowercase()).cloned()
    }

    /// Every instance.
    pub fn all(&self) -> Vec<Instance> {
        self.lock().values().cloned().collect()
    }

    /// The config of daemons that may lie in homes, now and from now on.
    pub fn in_homes(&self) -> watch::Receiver<BTreeMap<Handle, HomeConfig>> {
        self.in_homes.subscribe()
    }

    fn add(&self, instance: Instance) {
        if let Some(config) = config::in_home(&instance.record.borrow()) {
            let handle = instance.handle.clone();
            self.in_homes
                .send_modify(|known| drop(known.insert(handle, config)));
        }
        self.lock().insert(instance.handle.folded(), instance);
    }

    fn remove(&self, handle: &Handle) {
        self.in_homes
            .send_if_modified(|known| known.remove(handle).is_some());
        self.lock().remove(&handle.folded());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instance>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an instance can be asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Make everything of a new instance, and start its VM if asked.
    Create {
        start: bool,
    },
    /// Enable it if it is disabled, start the VM, wait for the guest.
    Start,
    /// Stop the VM; its sockets and daemons stay. `grace_secs` may shorten the
    /// time the guest is given.
    Stop {
        grace_secs: Option<u32>,
    },
    /// Stop the VM if there is one, then as `Start`.
    Restart {
        grace_secs: Option<u32>,
    },
    /// Let the VM run on, from wherever it is; one that is disabled stays so.
    Wake,
    /// Write the machine to the disk and end its processes.
    Hibernate,
    /// Keep it awake for a time.
    KeepAwake {
        reason: String,
        time: Duration,
    },
    /// End a lease before its time, or all of them.
    LetSleep {
        reason: Option<String>,
    },
    /// Start anew who has older values of these secrets, or of any, than there are now.
    Refresh {
        secrets: Vec<String>,
    },
    /// Change settings, all or none.
    Update(Box<UpdateRequest>),
    Enable,
    Disable,
    /// Remove everything if nothing of it runs any more; with `asleep` also where
    /// it would be woken by its next use.
    Prune {
        asleep: bool,
    },
    /// Remove everything; with `purge` the daemons' config too.
    Delete {
        purge: bool,
    },
    /// Stop everything and let it rest until it is started or aegisd is.
    Rest,
}

impl Operation {
    fn kind(&self) -> Kind {
        match self {
            Self::Create { .. } => Kind::Create,
            Self::Start => Kind::Start,
            Self::Stop { .. } => Kind::Stop,
            Self::Restart { .. } => Kind::Restart,
            Self::Wake | Self::KeepAwake { .. } => Kind::Wake,
            Self::Hibernate => Kind::Hibernate,
            Self::LetSleep { .. } => Kind::LetSleep,
            Self::Refresh { .. } => Kind::Refresh,
            Self::Update(_) => Kind::Update,
            Self::Prune { .. } => Kind::Prune,
            Self::Enable => Kind::Enable,
            Self::Disable => Kind::Disable,
            Self::Delete { .. } => Kind::Delete,
            Self::Rest => Kind::Rest,
        }
    }
}

/// What an actor is told beside requests. Keeps the latest of everything, so it
/// never fills up and never blocks who tells.
#[derive(Debug, Default)]
struct Notice {
    news: Mutex<News>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct News {
    /// Something about the units is other than before.
    units: bool,
    /// These units were stopped, by us or by somebody, with the time.
    stopped: Vec<(UnitId, u64)>,
    /// A file in the daemons' config folder may be other than before.
    config: bool,
    /// Secrets may be other than before, or who has which version.
    secrets: bool,
}

impl Notice {
    fn tell(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.news.lock().unwrap_or_else(PoisonError::into_inner));
        self.arrived.notify_one();
    }

    fn take(&self) -> News {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An operation and the job of who asked for it.
#[derive(Debug)]
struct Request {
    operation: Operation,
    job: Job,
}

/// Everything that reaches an actor.
#[derive(Debug)]
struct Mail {
    requests: mpsc::Receiver<Request>,
    /// Requests taken out that wait for the operation under way.
    waiting: VecDeque<Request>,
    notice: Arc<Notice>,
}

/// The way to an instance's actor.
#[derive(Clone, Debug)]
pub struct Instance {
    handle: Handle,
    shared: Arc<Shared>,
    mailbox: mpsc::Sender<Request>,
    record: watch::Receiver<Record>,
    status: watch::Receiver<Option<VmStatus>>,
    notice: Arc<Notice>,
    /// Unique bus name of who keeps an ephemeral instance until its exec begins.
    owner: Arc<Mutex<Option<String>>>,
}

impl Instance {
    /// Takes care of an instance that was there before aegisd.
    pub fn take_over(shared: &Arc<Shared>, record: Record, units: Vec<UnitState>) {
        Self::spawn(shared.clone(), record, units, VecDeque::new(), Vec::new());
    }

    /// Begins to make an instance whose record was just written. `notes` are what its
    /// user should know.
    pub fn create(
        shared: &Arc<Shared>,
        record: Record,
        start: bool,
        notes: Vec<String>,
    ) -> (Self, JobId) {
        let operation = Operation::Create { start };
        let job = shared.jobs.begin(
            operation.kind().word(),
            Some(&record.handle),
            record.owner(),
        );
        let id = job.id();
        // In the actor's hands from the beginning: without it, it would take the
        // record for one that a crash left half-made.
        let first = VecDeque::from([Request { operation, job }]);
        let instance = Self::spawn(shared.clone(), record, Vec::new(), first, notes);
        (instance, id)
    }

    fn spawn(
        shared: Arc<Shared>,
        record: Record,
        units: Vec<UnitState>,
        first: VecDeque<Request>,
        notes: Vec<String>,
    ) -> Self {
        let (mailbox, requests) = mpsc::channel(MAILBOX);
        let handle = record.handle.clone();
        let notice = Arc::new(Notice::default());
        let mail = Mail {
            requests,
            waiting: first,
            notice: notice.clone(),
        };
        let actor = actor::Actor::new(shared.clone(), record, units, mail, notes);
        let instance = Self {
            handle,
            shared,
            mailbox,
            record: actor.record(),
            status: actor.status(),
            notice,
            owner: Arc::default(),
        };
        instance.shared.directory.add(instance.clone());
        tokio::spawn(Box::new(actor).run());
        instance
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether it lives for one command.
    pub fn is_ephemeral(&self) -> bool {
        self.record.borrow().spec.ephemeral
    }

    /// Whether it is meant to be there and usable.
    pub fn is_enabled(&self) -> bool {
        self.record.borrow().is_enabled()
    }

    /// Its exposed ports.
    pub fn ports(&self) -> Vec<PortMapping> {
        self.record.borrow().spec.ports.clone()
    }

    /// The kit it was made from.
    pub fn kit(&self) -> Option<String> {
        let record = self.record.borrow();
        record.spec.kit.as_ref().map(|kit| kit.name.clone())
    }

    /// The image it was made of, by its identity.
    pub fn image_id(&self) -> Option<String> {
        self.record
            .borrow()
            .spec
            .pinned
            .as_ref()
            .map(|image| image.id.clone())
    }

    /// The named volumes that it uses, and those that a VM still uses that began with
    /// them.
    pub fn named_volumes(&self) -> BTreeSet<String> {
        let record = self.record.borrow();
        let all = record.spec.volumes.iter().chain(record.unit_volumes());
        all.filter_map(Volume::name).map(str::to_owned).collect()
    }

    /// The programs of the host that it needs.
    pub fn programs(&self) -> Vec<PathBuf> {
        let spec = &self.record.borrow().spec;
        let daemons = spec.daemons.iter().map(|daemon| &daemon.program);
        daemons.chain(&spec.inject).cloned().collect()
    }

    /// Says who keeps it until its exec begins.
    pub fn set_owner(&self, owner: Option<String>) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = owner;
    }

    /// Takes note that somebody left; returns whether that was its owner.
    pub fn give_up(&self, left: &str) -> bool {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        owner.take_if(|owner| owner == left).is_some()
    }

    /// Asks for an operation; the job tells how it ends.
    ///
    /// # Errors
    /// [`InstanceError::Busy`], or it is gone.
    pub fn ask(&self, operation: Operation) -> Result<JobId, InstanceError> {
        let room = self.mailbox.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => InstanceError::Busy(self.handle.clone()),
            mpsc::error::TrySendError::Closed(()) => {
                InstanceError::Unknown(self.handle.to_string())
            }
        })?;
        let owner = self.record.borrow().owner();
        let job = self
            .shared
            .jobs
            .begin(operation.kind().word(), Some(&self.handle), owner);
        let id = job.id();
        room.send(Request { operation, job });
        Ok(id)
    }

    /// Tells it of a change of one of its units.
    pub fn unit_changed(&self, change: &Change) {
        self.notice.tell(|news| {
            news.units = true;
            if let Change::Stopped(unit) = change {
                news.stopped.push((unit.clone(), now_us()));
            }
        });
    }

    /// Tells it to look at its units again.
    pub fn units_may_differ(&self) {
        self.notice.tell(|news| news.units = true);
    }

    /// Tells it that its daemons' config may be other than before.
    pub fn config_may_differ(&self) {
        self.notice.tell(|news| news.config = true);
    }

    /// What its units use of the host.
    ///
    /// # Errors
    /// The service manager does not answer.
    pub async fn usage(&self) -> Result<Vec<(UnitState, Usage)>, InstanceError> {
        let mut usage = Vec::new();
        for state in self.shared.supervisor.list(Some(&self.handle)).await? {
            if state.main_pid.is_none() {
                continue;
            }
            match self.shared.supervisor.usage(&state.unit).await {
                Ok(of_unit) => usage.push((state, of_unit)),
                // It ended meanwhile.
                Err(SupervisorError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(usage)
    }

    /// What of a request is other than it is here: name, have, asked.
    pub fn compare(&self, request: &SpecRequest) -> Vec<(String, String, String)> {
        difference::differences(&self.record.borrow().spec, request)
    }
}

/// Runs what blocks on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // The thread is never cancelled, so the work itself panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    since_1970(SystemTime::now())
}

pub(crate) fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
