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
//! | `start` | starting a VM and waiting for its guest |
//! | `files` | the instance's files |
//! | `names` | plain names for paths that units cannot carry |
//! | `own_stops` | which stops were ours and not somebody's by hand |
//! | `plans` | its units, as the service manager is asked for them |
//! | `view` | its looks |
//! | [`error`] | what can go wrong |

mod actor;
mod admission;
mod config;
mod difference;
pub mod error;
pub(crate) mod files;
mod names;
mod own_stops;
pub(crate) mod plans;
mod reach;
mod start;
mod update;
mod view;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aegis_bus::instance::UpdateRequest;
use aegis_bus::job::JobState;
use aegis_bus::manager::SpecRequest;
use aegis_core::control::{
    self, Answer, AttachRequest, Call, CommandState, ExecRequest, Process, VmStatus,
};
use aegis_core::handle::Handle;
use aegis_core::layout::InstanceFiles;
use aegis_core::secret::{SecretEnv, SecretSource};
use aegis_core::spec;
use rustix::fd::OwnedFd;
use tokio::sync::{Notify, mpsc, watch};

use crate::board::{Board, JobId};
use crate::host::Host;
use crate::jobs::{Job, Jobs, Outcome};
use crate::kits::{Catalog, install};
use crate::registry::{Intent, Record, Registry};
use crate::secrets::Vault;
use crate::supervisor::state::{Change, Facts, UnitState};
use crate::supervisor::{Supervisor, SupervisorError, UnitId, Usage};
use crate::vm::{self, VmError};

use admission::Kind;
pub use error::InstanceError;

/// Requests that may wait for an actor before callers are told to come back.
const MAILBOX: usize = 16;

/// The last of the real-time signals (signal(7)).
const LAST_SIGNAL: i32 = 64;

/// What all instances share.
#[derive(Debug)]
pub struct Shared {
    pub host: Host,
    pub supervisor: Arc<dyn Supervisor>,
    /// What the service manager said about itself at aegisd's start.
    pub facts: Facts,
    pub registry: Registry,
    pub vault: Vault,
    pub board: Arc<Board>,
    pub jobs: Jobs,
    pub catalog: Arc<Catalog>,
    pub directory: Directory,
    /// Held for reading while an instance is made from a kit, and for writing while
    /// folders of kits come and go.
    pub kit_folders: tokio::sync::RwLock<()>,
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

    fn add(&self, instance: Instance) {
        self.lock().insert(instance.handle.folded(), instance);
    }

    fn remove(&self, handle: &Handle) {
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
        let job = shared
            .jobs
            .begin(operation.kind().word(), Some(&record.handle));
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
        tokio::spawn(actor.run());
        instance
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// It as it is wanted.
    pub fn record(&self) -> Record {
        self.record.borrow().clone()
    }

    /// The VM as its owner last told; `None` while there is none.
    pub fn seen(&self) -> Option<VmStatus> {
        self.status.borrow().clone()
    }

    /// Whether it lives for one command.
    pub fn is_ephemeral(&self) -> bool {
        self.record.borrow().spec.ephemeral
    }

    /// The kit it was made from.
    pub fn kit(&self) -> Option<String> {
        let record = self.record.borrow();
        record.spec.kit.as_ref().map(|kit| kit.name.clone())
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
        let job = self
            .shared
            .jobs
            .begin(operation.kind().word(), Some(&self.handle));
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

    /// Stops the virtual CPUs.
    ///
    /// # Errors
    /// There is no VM, or its owner refuses.
    pub async fn pause(&self) -> Result<Outcome, InstanceError> {
        self.ask_owner(Call::Pause).await
    }

    /// Lets the virtual CPUs run on.
    ///
    /// # Errors
    /// There is no VM, or its owner refuses.
    pub async fn resume(&self) -> Result<Outcome, InstanceError> {
        self.ask_owner(Call::Resume).await
    }

    /// Sends a signal to the process group of its command, if that runs.
    ///
    /// # Errors
    /// There is no VM or no command, or the owner refuses.
    pub async fn kill(&self, signal: i32) -> Result<(), InstanceError> {
        if !(1..=LAST_SIGNAL).contains(&signal) {
            return Err(InstanceError::Signal(signal));
        }
        let command = self.status().map(|status| status.command)?;
        if !matches!(command, CommandState::Running { .. }) {
            return Err(InstanceError::NoCommand(self.handle.clone()));
        }
        self.ask_owner(Call::Kill { signal }).await.map(drop)
    }

    /// The processes in the guest.
    ///
    /// # Errors
    /// There is no VM, or its owner refuses.
    pub async fn processes(&self) -> Result<Vec<Process>, InstanceError> {
        self.status()?;
        match vm::call(&self.control_socket(), Call::Processes).await? {
            (Answer::Processes(processes), _) => Ok(processes),
            _ => Err(VmError::Misfit.into()),
        }
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

    /// What the VM's owner says; asking it would wake a VM that sleeps.
    fn status(&self) -> Result<VmStatus, InstanceError> {
        let status = self.status.borrow().clone();
        status.ok_or_else(|| InstanceError::NoVm(self.handle.clone()))
    }

    async fn ask_owner(&self, call: Call) -> Result<Outcome, InstanceError> {
        self.status()?;
        change(&self.control_socket(), call).await
    }

    /// The values for the variables of one command.
    ///
    /// # Errors
    /// One is missing or cannot be decrypted.
    pub async fn secrets(
        &self,
        sources: &BTreeMap<String, SecretSource>,
        passed: &SecretEnv,
    ) -> Result<SecretEnv, InstanceError> {
        Ok(self.shared.vault.env_for(sources, passed).await?)
    }

    /// Runs a command in the guest, waking the VM if need be. Returns stdin,
    /// stdout, stderr and control; nothing of the session passes aegisd.
    ///
    /// # Errors
    /// It is disabled, or the VM does not start.
    pub async fn exec(
        &self,
        mut request: ExecRequest,
        secrets: SecretEnv,
    ) -> Result<Vec<OwnedFd>, InstanceError> {
        if request.argv.is_empty() {
            return Err(InstanceError::EmptyExec);
        }
        let revealed = secrets.iter().map(|(name, value)| (name, value.reveal()));
        let revealed = revealed.map(|(name, value)| (name.clone(), value.to_owned()));
        request.env.extend(revealed);
        let (workdir, user) = (request.workdir.as_deref(), request.user.as_deref());
        spec::validate_program(&request.argv, &request.env, workdir, user)?;
        self.check_usable()?;
        // A VM that would start without its secrets is not woken for nothing.
        if self.status.borrow().is_none() {
            self.shared.vault.env_of(&self.record()).await?;
        }
        let (answer, descriptors) = vm::call(&self.control_socket(), Call::Exec(request)).await?;
        match answer {
            Answer::Exec if descriptors.len() == EXEC_DESCRIPTORS => {
                // From here on the VM's owner sees the client come and go.
                self.set_owner(None);
                Ok(descriptors)
            }
            _ => Err(VmError::Misfit.into()),
        }
    }

    /// Joins the terminal of the command, of a VM that runs or is being started.
    /// Returns descriptors as [`Instance::exec`] does.
    ///
    /// # Errors
    /// There is no VM and none is being started, or the command has no terminal.
    pub async fn attach(&self, request: AttachRequest) -> Result<Vec<OwnedFd>, InstanceError> {
        self.check_usable()?;
        self.check_terminal()?;
        self.wait_for_owner().await?;
        let call = Call::Attach(request);
        match vm::call(&self.control_socket(), call).await? {
            (Answer::Attach, descriptors) if descriptors.len() == EXEC_DESCRIPTORS => {
                Ok(descriptors)
            }
            _ => Err(VmError::Misfit.into()),
        }
    }

    fn check_usable(&self) -> Result<(), InstanceError> {
        match self.record.borrow().intent {
            Intent::Enabled | Intent::Creating => Ok(()),
            Intent::Disabled => Err(InstanceError::Disabled(self.handle.clone())),
            Intent::Deleting | Intent::Purging => Err(InstanceError::Deleting(self.handle.clone())),
        }
    }

    fn check_terminal(&self) -> Result<(), InstanceError> {
        let record = self.record.borrow();
        match &record.spec {
            spec if spec.command.is_empty() => {
                Err(InstanceError::NothingToAttach(self.handle.clone()))
            }
            spec if !spec.terminal => Err(InstanceError::NoTerminal(self.handle.clone())),
            _ => Ok(()),
        }
    }

    /// Waits until a VM that is being made or started has an owner to talk to:
    /// connecting earlier would start another, or find no socket.
    async fn wait_for_owner(&self) -> Result<(), InstanceError> {
        let mut status = self.status.clone();
        let mut shown = self.shared.board.follow();
        let starts = |job: &crate::board::JobShown| {
            let kinds = [Kind::Create.word(), Kind::Start.word()];
            job.outcome.state == JobState::Running
                && job.instance.as_ref() == Some(&self.handle)
                && kinds.contains(&job.kind)
        };
        loop {
            if status.borrow_and_update().is_some() {
                return Ok(());
            }
            if !shown
                .borrow_and_update()
                .jobs
                .values()
                .any(|job| starts(job))
            {
                break;
            }
            tokio::select! {
                _ = status.changed() => {}
                _ = shown.changed() => {}
            }
        }
        // After a start of aegisd the owner may not have answered yet.
        let units = self.shared.supervisor.list(Some(&self.handle)).await?;
        match crate::reconcile::vm_runs(&self.record.borrow(), &units) {
            true => Ok(()),
            false => Err(InstanceError::NoVm(self.handle.clone())),
        }
    }

    /// What of a request is other than it is here: name, have, asked.
    pub fn compare(&self, request: &SpecRequest) -> Vec<(String, String, String)> {
        difference::differences(&self.record.borrow().spec, request)
    }

    /// Opens the command's log for reading, the oldest file first.
    ///
    /// # Errors
    /// A file is there and cannot be opened.
    pub async fn open_logs(&self) -> Result<Vec<OwnedFd>, InstanceError> {
        self.open_rotated("command.log").await
    }

    /// Opens the record of the guest's console likewise.
    ///
    /// # Errors
    /// A file is there and cannot be opened.
    pub async fn open_console(&self) -> Result<Vec<OwnedFd>, InstanceError> {
        self.open_rotated("console.log").await
    }

    async fn open_rotated(&self, name: &'static str) -> Result<Vec<OwnedFd>, InstanceError> {
        let files = self.shared.host.layout.instance(&self.handle);
        blocking(move || open_rotated(&files, name)).await
    }

    fn control_socket(&self) -> PathBuf {
        self.shared.host.layout.control_socket(&self.handle)
    }
}

/// Stdin, stdout, stderr and control of an exec session.
const EXEC_DESCRIPTORS: usize = 4;

/// Asks a VM's owner for a change.
async fn change(control_socket: &Path, call: Call) -> Result<Outcome, InstanceError> {
    match vm::call(control_socket, call).await? {
        (Answer::Outcome(control::Outcome::Changed), _) => Ok(Outcome::Changed),
        (Answer::Outcome(control::Outcome::Unchanged), _) => Ok(Outcome::Unchanged),
        _ => Err(VmError::Misfit.into()),
    }
}

fn open_rotated(files: &InstanceFiles, name: &str) -> Result<Vec<OwnedFd>, InstanceError> {
    let mut opened = Vec::new();
    for name in [format!("log/{name}.1"), format!("log/{name}")] {
        match files::open_inside(files.dir(), Path::new(&name)) {
            Ok(file) => opened.push(file.into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(InstanceError::File {
                    operation: "open",
                    path: files.dir().join(name),
                    source,
                });
            }
        }
    }
    Ok(opened)
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

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
