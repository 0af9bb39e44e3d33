//! The task that owns an instance.
//!
//! ```text
//!  loop: nothing under way? ─► next request that waits, else what reconciliation wants
//!        show
//!        wait for: the operation's end, a request, news of units, the VM's status, a timer
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::control::{CommandExit, VmStatus};
use aegis_core::daemon::Reload;
use aegis_core::fault::Fault;
use aegis_core::state::UnitPhase;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::admission::{Admission, Kind, admit};
use super::config::{self, Configs};
use super::disk::{read_exit, reads, remove_unfinished};
use super::health::healthy_in;
use super::own_stops::OwnStops;
use super::running::Running;
use super::stale::Notes;
use super::view::{Sources, phase, view};
use super::work::{Conclusion, Work};
use super::{InstanceError, MAILBOX, Mail, Request, Shared, now_us};
use crate::jobs::Job;
use crate::reconcile::{self, Action};
use crate::registry::Record;
use crate::supervisor::UnitId;
use crate::supervisor::state::UnitState;
use crate::vm;

/// How long a unit may be missing before it is made again: the news that
/// somebody stopped it may come after the news that it is gone.
const HOLD: Duration = Duration::from_secs(1);
/// Between two tries of a correction that fails, growing from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Before a broken connection to a VM's owner that still runs is made anew.
const RECONNECT: Duration = Duration::from_secs(1);
/// A timer that is as good as none.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// The operation under way.
struct Current {
    kind: Kind,
    /// `None` for the actor's own.
    job: Option<Job>,
    running: Running,
}

/// The live connection to the owner of a VM.
struct Watching {
    /// The owner it belongs to.
    pid: u32,
    task: JoinHandle<()>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A correction that failed and will be tried again.
struct Trouble {
    fault: Fault,
    delay: Duration,
    next: Instant,
}

pub(super) struct Actor {
    work: Work,
    status: Arc<watch::Sender<Option<VmStatus>>>,
    mail: Mail,
    units: Vec<UnitState>,
    /// Wanted units that are missing, as of the last look.
    missing: BTreeSet<UnitId>,
    /// Units that were stopped, with the time, not yet judged.
    stopped: Vec<(UnitId, u64)>,
    /// Nothing is made before this instant.
    hold: Option<Instant>,
    /// Everything was stopped on request and rests until the next one.
    resting: bool,
    last_exit: Option<CommandExit>,
    /// Its machine is on the disk, as of the last look without a VM.
    saved: bool,
    /// The daemons' config files, and what of them is applied.
    configs: Configs,
    /// How daemons are to be given a changed config.
    changed_configs: BTreeMap<String, Reload>,
    /// Those of them that are being given theirs.
    configuring: BTreeMap<String, Reload>,
    /// Which versions of secrets its units have.
    secrets: Notes,
    /// What each daemon may read.
    reads: BTreeMap<String, Vec<String>>,
    /// What its user should know about it.
    notes: Vec<String>,
    current: Option<Current>,
    /// The operation before it, overtaken and perhaps not yet at rest.
    given_up: Option<Running>,
    watching: Option<Watching>,
    trouble: Option<Trouble>,
}

impl Actor {
    pub(super) fn new(
        shared: Arc<Shared>,
        record: Record,
        units: Vec<UnitState>,
        mail: Mail,
        notes: Vec<String>,
    ) -> Self {
        let status = Arc::new(watch::Sender::new(None));
        let work = Work {
            shared,
            handle: record.handle.clone(),
            status: status.subscribe(),
            record: Arc::new(watch::Sender::new(record)),
            own_stops: OwnStops::default(),
        };
        let mut actor = Self {
            work,
            status,
            mail,
            units,
            missing: BTreeSet::new(),
            stopped: Vec::new(),
            hold: None,
            resting: false,
            last_exit: None,
            saved: false,
            configs: Configs::default(),
            changed_configs: BTreeMap::new(),
            configuring: BTreeMap::new(),
            secrets: Notes::default(),
            reads: BTreeMap::new(),
            notes,
            current: None,
            given_up: None,
            watching: None,
            trouble: None,
        };
        actor.missing = actor.missing_now();
        actor.show();
        actor
    }

    pub(super) fn record(&self) -> watch::Receiver<Record> {
        self.work.record.subscribe()
    }

    pub(super) fn status(&self) -> watch::Receiver<Option<VmStatus>> {
        self.status.subscribe()
    }

    /// Lives until the instance is removed or everybody who could ask is gone.
    ///
    /// A thousand of these wait at a time. What they do now and then has memory while it
    /// is done, hence the boxes.
    pub(super) async fn run(mut self: Box<Self>) {
        Box::pin(self.prepare()).await;
        let mut status = self.status.subscribe();
        loop {
            self.go_on();
            self.show();
            let timer = self.next_timer();
            tokio::select! {
                biased;
                // Its end first: what comes next depends on it.
                conclusion = concluded(&mut self.current) => {
                    // Looked at before the job is seen to end: whoever waited for it
                    // reads the state it led to.
                    let job = self.current.take().and_then(|current| current.job);
                    if !conclusion.removed {
                        Box::pin(self.look_anew()).await;
                    }
                    if self.note_conclusion(job, conclusion) {
                        return;
                    }
                    Box::pin(self.keep_config()).await;
                }
                request = self.mail.requests.recv() => match request {
                    Some(request) => self.accept(request),
                    None => return,
                },
                () = self.mail.notice.arrived.notified() => Box::pin(self.hear_news()).await,
                // Shown at the top of the loop.
                Ok(()) = status.changed() => Box::pin(self.settle_secrets()).await,
                () = tokio::time::sleep_until(timer) => Box::pin(self.note_health()).await,
            }
        }
    }

    async fn prepare(&mut self) {
        remove_unfinished(&self.work).await;
        self.configs = config::remembered(&self.work).await;
        self.compare_config().await;
        self.reads = reads(&self.work).await;
        self.read_secrets().await;
        self.follow_vm().await;
    }

    async fn look_anew(&mut self) {
        self.look().await;
        self.compare_config().await;
        self.show();
    }

    /// Begins what is next, if nothing is under way.
    fn go_on(&mut self) {
        if self.current.is_some() {
            return;
        }
        if let Some(Request { operation, job }) = self.mail.waiting.pop_front() {
            let kind = operation.kind();
            self.resting = kind == Kind::Rest;
            let work = self.work.clone().perform(operation, job.reporter());
            self.begin(kind, Some(job), work);
            return;
        }
        let now = Instant::now();
        let retry = self.trouble.as_ref().map(|trouble| trouble.next);
        if [self.hold, retry]
            .into_iter()
            .flatten()
            .any(|until| until > now)
        {
            return;
        }
        self.hold = None;
        if !self.stopped.is_empty() {
            // It could not be written down, and nothing is made again before it is.
            self.mail.notice.tell(|news| news.units = true);
            return;
        }
        if !self.changed_configs.is_empty() {
            self.configuring = std::mem::take(&mut self.changed_configs);
            let work = self.work.clone().configure(self.configuring.clone());
            self.begin(Kind::Configure, None, work);
            return;
        }
        let mut actions = reconcile::plan(
            &self.work.record.borrow(),
            &self.units,
            self.work.shared.facts.started_at,
            now_us(),
        );
        if self.resting {
            actions.retain(|action| *action == Action::Delete);
        }
        if actions.is_empty() {
            self.trouble = None;
        } else {
            let work = self.work.clone().correct(actions);
            self.begin(Kind::Correct, None, work);
        }
    }

    fn begin(
        &mut self,
        kind: Kind,
        job: Option<Job>,
        work: impl Future<Output = Conclusion> + Send + 'static,
    ) {
        let running = Running::begin(self.given_up.take(), work);
        self.current = Some(Current { kind, job, running });
    }

    fn accept(&mut self, request: Request) {
        let asked = request.operation.kind();
        match admit(self.current.as_ref().map(|current| current.kind), asked) {
            Admission::Begin | Admission::Wait if self.mail.waiting.len() < MAILBOX => {
                self.mail.waiting.push_back(request);
            }
            Admission::Begin | Admission::Wait => {
                let busy = InstanceError::Busy(self.work.handle.clone());
                request.job.end(Err(busy.fault()));
            }
            Admission::Overtake => {
                self.changed_configs.append(&mut self.configuring);
                let given_up = self.current.take();
                let job = given_up.and_then(|current| {
                    self.given_up = Some(current.running);
                    current.job
                });
                if let Some(job) = job {
                    job.end(Err(InstanceError::Overtaken(asked.word()).fault()));
                }
                self.mail.waiting.push_front(request);
            }
        }
    }

    /// Ends the job and notes what failed; returns whether the instance is no more.
    fn note_conclusion(&mut self, job: Option<Job>, conclusion: Conclusion) -> bool {
        let Conclusion { result, removed } = conclusion;
        let result = result.map_err(|error| error.fault());
        if let Err(fault) = &result {
            let handle = &self.work.handle;
            tracing::error!(instance = %handle, symbol = %fault.symbol, "{handle}: {fault}");
        }
        if removed {
            let handle = self.work.handle.clone();
            // Its name is free before the job is seen to end.
            self.work
                .shared
                .board
                .change(|shown| drop(shown.instances.remove(&handle)));
            self.work.shared.directory.remove(&handle);
            self.work.shared.messages.forget(&handle);
            let shared = self.work.shared.clone();
            // It may have been the last that needed the programs of a kit.
            tokio::spawn(async move { shared.sweep_kits().await });
            for request in self.mail.waiting.drain(..) {
                let gone = InstanceError::Unknown(self.work.handle.to_string());
                request.job.end(Err(gone.fault()));
            }
        }
        let configured = std::mem::take(&mut self.configuring);
        if result.is_err() {
            self.changed_configs.extend(configured);
        }
        match (job, &result) {
            (Some(job), _) => job.end(result),
            (None, Err(fault)) => self.note_trouble(fault.clone()),
            (None, Ok(_)) => self.trouble = None,
        }
        removed
    }

    fn note_trouble(&mut self, fault: Fault) {
        let delay = self
            .trouble
            .as_ref()
            .map_or(FIRST_RETRY, |before| before.delay * 2);
        let delay = delay.min(LAST_RETRY);
        self.trouble = Some(Trouble {
            fault,
            delay,
            next: Instant::now() + delay,
        });
    }

    async fn hear_news(&mut self) {
        let news = self.mail.notice.take();
        self.stopped.extend(news.stopped);
        if news.units {
            self.look().await;
        }
        if news.config {
            self.compare_config().await;
        }
        if news.secrets {
            self.read_secrets().await;
        }
    }

    async fn read_secrets(&mut self) {
        let record = self.work.record.borrow().clone();
        self.secrets = Notes::read(&self.work.shared, &record).await;
        self.settle_secrets().await;
    }

    async fn settle_secrets(&mut self) {
        let (vm, seen) = (self.work.vm(), self.status.borrow().clone());
        let registry = &self.work.shared.registry;
        self.secrets.settle(registry, &vm, seen.as_ref()).await;
    }

    /// Asks the service manager how things are.
    async fn look(&mut self) {
        match self
            .work
            .shared
            .supervisor
            .list(Some(&self.work.handle))
            .await
        {
            Ok(units) => self.units = units,
            Err(error) => {
                let error = InstanceError::from(error).fault();
                let handle = &self.work.handle;
                tracing::warn!(instance = %handle, "{handle}: {error}, ignoring");
            }
        }
        let missing = self.missing_now();
        if missing.difference(&self.missing).next().is_some() {
            self.hold = Some(Instant::now() + HOLD);
        }
        self.missing = missing;
        self.apply_config().await;
        if self.current.is_none() {
            self.adopt_hands().await;
        }
        self.follow_vm().await;
    }

    fn missing_now(&self) -> BTreeSet<UnitId> {
        let wanted = reconcile::wanted(&self.work.record.borrow());
        let there = |unit: &UnitId| self.units.iter().any(|state| state.unit == *unit);
        wanted.into_iter().filter(|unit| !there(unit)).collect()
    }

    /// Takes what somebody stopped or started by hand for intent.
    async fn adopt_hands(&mut self) {
        let mut stopped = std::mem::take(&mut self.stopped);
        stopped.retain(|(unit, _)| !self.work.own_stops.answers_for(unit));
        self.work.own_stops.forget_running(&self.units);
        if self.resting {
            return;
        }
        let mut adopted = self.work.record.borrow().clone();
        if !reconcile::adopt(&mut adopted, &self.units, stopped.clone()) {
            return;
        }
        let by_hand = adopted.stopped_by_hand;
        let names: Vec<&str> = by_hand.keys().map(String::as_str).collect();
        let (handle, names) = (&self.work.handle, names.join(", "));
        tracing::info!(instance = %handle, "{handle}: stopped by hand: {names}");
        let written = self
            .work
            .intend(|record| record.stopped_by_hand = by_hand)
            .await;
        if let Err(error) = written {
            self.stopped = stopped;
            self.note_trouble(error.fault());
        }
    }

    /// Keeps one connection to the owner of a VM that runs, and none otherwise:
    /// a connection would wake it.
    async fn follow_vm(&mut self) {
        let vm = self.work.vm();
        let unit = self.units.iter().find(|state| state.unit == vm);
        let phase = phase(unit);
        let pid = unit
            .and_then(|unit| unit.main_pid)
            .filter(|_| !matches!(phase, UnitPhase::Inactive | UnitPhase::Failed));
        let Some(pid) = pid else {
            if self.watching.take().is_some() || self.last_exit.is_none() {
                self.last_exit = read_exit(&self.work).await;
            }
            self.saved = self.work.is_saved().await;
            self.status
                .send_if_modified(|status| status.take().is_some());
            return;
        };
        let same = self
            .watching
            .as_ref()
            .is_some_and(|w| w.pid == pid && !w.task.is_finished());
        if same || phase == UnitPhase::Deactivating {
            return;
        }
        let path = self
            .work
            .shared
            .host
            .layout
            .control_socket(&self.work.handle);
        let (status, notice) = (self.status.clone(), self.mail.notice.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = vm::watch(&path, &status).await {
                tracing::debug!("{error}, ignoring");
            }
            tokio::time::sleep(RECONNECT).await;
            notice.tell(|news| news.units = true);
        });
        self.watching = Some(Watching { pid, task });
    }

    /// Looks at the config files.
    async fn compare_config(&mut self) {
        if self.work.record.borrow().spec.daemons.is_empty() {
            return;
        }
        let looks = config::look(&self.work, &self.configs).await;
        self.configs.observe(looks);
        self.apply_config().await;
    }

    /// Decides what daemons are to do about their config.
    async fn apply_config(&mut self) {
        let reloads = config::reloads(&self.work);
        let (handle, units) = (&self.work.handle, &self.units);
        let wanted = self.configs.decide(handle, &reloads, units, now_us());
        self.changed_configs.extend(wanted);
        self.keep_config().await;
    }

    /// Keeps what is applied, unless a daemon has yet to be given its own.
    async fn keep_config(&mut self) {
        let settled = self.changed_configs.is_empty() && self.configuring.is_empty();
        if !settled || !self.configs.is_unkept() {
            return;
        }
        if let Err(error) = config::keep(&self.work, &mut self.configs).await {
            let handle = &self.work.handle;
            tracing::warn!(instance = %handle, "{handle}: {}, ignoring", error.fault());
        }
    }

    /// Lets services that have run long enough begin their delays anew.
    async fn note_health(&mut self) {
        let healed = self.healthy_in().filter(|(_, in_)| in_.is_zero());
        let healed: Vec<UnitId> = healed.map(|(unit, _)| unit.clone()).collect();
        for unit in &healed {
            if let Err(error) = self.work.shared.supervisor.clear(unit).await {
                let fault = InstanceError::from(error).fault();
                let handle = &self.work.handle;
                tracing::warn!(instance = %handle, "{handle}: {fault}, ignoring");
            }
        }
        if !healed.is_empty() {
            self.look().await;
        }
    }

    /// When services that were restarted will be healthy again.
    fn healthy_in(&self) -> impl Iterator<Item = (&UnitId, Duration)> {
        let (record, now) = (self.work.record.borrow(), now_us());
        let services = self.units.iter();
        services.filter_map(move |unit| Some((&unit.unit, healthy_in(unit, &record.spec, now)?)))
    }

    fn next_timer(&self) -> Instant {
        let now = Instant::now();
        let healthy = self.healthy_in().map(|(_, in_)| in_);
        // At least a moment, should a manager not forget restarts when told to.
        let healthy = healthy.min().map(|in_| now + in_.max(FIRST_RETRY));
        let retry = self.trouble.as_ref().map(|trouble| trouble.next);
        let earliest = [self.hold, retry, healthy].into_iter().flatten().min();
        match (&self.current, earliest) {
            (None, Some(earliest)) => earliest,
            _ => now + FAR,
        }
    }

    fn show(&self) {
        let status = self.status.borrow().clone();
        let shared = &self.work.shared;
        let record = self.work.record.borrow();
        let kit = record.spec.kit.as_ref();
        let config_folder = shared.host.layout.daemon_config(&self.work.handle);
        let view = view(Sources {
            record: &record,
            units: &self.units,
            vm: status.as_ref(),
            configs: &self.configs,
            config_folder: &config_folder,
            kit_installed: kit.is_none_or(|kit| shared.catalog.has(&kit.name)),
            notes: &self.notes,
            reads: &self.reads,
            secrets: &self.secrets,
            last_exit: self.last_exit.as_ref(),
            saved: self.saved,
            trouble: self.trouble.as_ref().map(|trouble| &trouble.fault),
            now: now_us(),
        });
        shared.board.show_instance(&self.work.handle, view);
    }
}

/// The end of the operation under way; never, if there is none.
async fn concluded(current: &mut Option<Current>) -> Conclusion {
    match current {
        Some(current) => current.running.conclusion().await,
        None => std::future::pending().await,
    }
}
