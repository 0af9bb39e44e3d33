//! A VM that runs: its machine, its guest's link, and how both end.
//!
//! [`save`] makes a snapshot of it.

mod save;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aegis_core::fault::{Fault, Symbol};
use aegis_core::vm_spec::VmSpec;
use aegis_fault_points::around_async;
use aegis_link::message::{CommandEnd, Event, ProcessEnd, TtySize};
use aegis_link::{Handle, Incoming, LinkError, LinkStream, Received};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use super::bring_up::Rest;
use crate::command_log::CommandLog;
use crate::egress::NetworkState;
use crate::guest::{self, Pulse};
use crate::hypervisor::{Machine, MachineEnd};
use crate::snapshot::stamp::Stamp;
use crate::snapshot::{Memory, Place};
use crate::terminal::{Terminal, TerminalEvent, TerminalHandle};
pub use save::{BackError, SaveError, Saved};
pub(super) use save::{blocking, save_into, stamp_of_disk, state_pipe};

/// How long a machine may outlive its guest's link before it is ended.
const LINK_END_PATIENCE: Duration = Duration::from_secs(10);

/// What an orderly stop may take beyond the grace: the signals, the sync of the
/// disk, the power-off. The unit's TimeoutStopSec is the grace and 15 s.
const STOP_SLACK: Duration = Duration::from_secs(10);

/// How long the end of a machine that was killed is awaited.
const KILL_PATIENCE: Duration = Duration::from_secs(3);

const _: () = assert!(STOP_SLACK.as_secs() + KILL_PATIENCE.as_secs() < 15);

/// How long the rest of the command's output may take after the machine's end.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// How long the guest may take to say how its memory is.
const STATS_PATIENCE: Duration = Duration::from_secs(5);

type EndFuture = Pin<Box<dyn Future<Output = MachineEnd>>>;

/// A running or paused VM. Dropping it kills the guest.
pub struct Up<M> {
    pub machine: Arc<M>,
    pub link: Handle,
    /// How it came to run.
    pub beginning: Beginning,
    incoming: Incoming,
    /// Came before the guest greeted.
    early: VecDeque<Received>,
    for_save: Box<ForSave>,
    /// Set when the link is over: how the machine is brought to its end.
    doom: Option<EndFuture>,
    pulse: Pulse,
    log: CommandLog,
    log_copy: Option<JoinHandle<()>>,
    /// Where the command runs on one.
    terminal: Option<Box<Terminal>>,
    /// The end of the command, until it is known what the memory had to do with it.
    judging: Option<Pin<Box<dyn Future<Output = UpEvent> + Send>>>,
    /// Where the guest is to have a network.
    network: Option<watch::Receiver<NetworkState>>,
    /// The number of the network that the guest's connections are of.
    renewals: u32,
    /// Removed with the machine.
    _scratch: TempDir,
}

/// How a VM came to run.
#[derive(Debug)]
pub enum Beginning {
    Booted {
        /// Why it was not restored, where it had hibernated.
        refused: Option<Box<Fault>>,
    },
    /// It goes on where it was; what its owner wanted remembered.
    Restored(Box<Memory>),
}

/// What a save needs besides machine and guest.
#[derive(Clone, Debug)]
struct ForSave {
    spec: Arc<VmSpec>,
    stamp: Stamp,
    place: Place,
    /// The command has started or ended, as [`Up::next`] tells.
    news: Arc<AtomicBool>,
}

/// What a VM is made of.
pub(super) struct Parts<M> {
    pub(super) machine: M,
    pub(super) link: Handle,
    pub(super) incoming: Incoming,
    pub(super) spec: Arc<VmSpec>,
    pub(super) rest: Rest,
}

/// What happens in a running VM.
#[derive(Debug)]
pub enum UpEvent {
    MachineEnded(MachineEnd),
    /// The link is over; the machine's end follows.
    LinkOver(LinkError),
    CommandStarted {
        pid: u32,
    },
    CommandEnded {
        end: CommandEnd,
        /// The guest ran out of memory while it ran.
        oom: bool,
    },
    /// The guest fell silent or speaks again.
    Silent(bool),
    /// A program in the guest asks for something.
    Request(LinkStream),
    /// The guest has lost its network, or has it again.
    Network(Option<Fault>),
}

impl<M: Machine + 'static> Up<M> {
    /// Keeps the pulse still: the guest does not run.
    pub fn paused(&mut self) {
        self.pulse.restart();
    }

    /// The guest runs on, in a later time than it knows.
    pub fn resumed(&mut self) {
        self.pulse.restart();
        let link = self.link.clone();
        tokio::spawn(async move {
            // The guest may be silent; then its clock is not what it lacks.
            let set = link.set_time(crate::status::now_ns());
            if let Ok(Err(error)) = timeout(LINK_END_PATIENCE, set).await {
                warn!("the clock of the guest could not be set: {error}, ignoring");
            }
        });
    }

    /// The network has changed. Connections that another one carried would wait for ever.
    fn network_changed(&mut self, state: &NetworkState) {
        if std::mem::replace(&mut self.renewals, state.renewals) == state.renewals {
            return;
        }
        let link = self.link.clone();
        tokio::spawn(async move {
            // A guest that is paused hears of it when it runs on.
            if let Err(error) = link.reset_flows().await {
                warn!("the connections of the guest cannot be broken off: {error}, ignoring");
            }
        });
    }

    /// What happens next. Loses nothing when it is dropped.
    pub async fn next(&mut self, cpus_run: bool) -> UpEvent {
        loop {
            let link_is_up = self.doom.is_none();
            let machine_end = async {
                match &mut self.doom {
                    Some(doom) => doom.await,
                    None => self.machine.wait().await,
                }
            };
            let received = tokio::select! {
                // The machine's end says all; a guest that never stops talking must
                // not keep it from being seen.
                biased;
                end = machine_end => return UpEvent::MachineEnded(end),
                silent = self.pulse.changed(), if cpus_run && link_is_up => {
                    return UpEvent::Silent(silent);
                }
                event = judged(&mut self.judging) => return event,
                state = network_change(&mut self.network) => {
                    self.network_changed(&state);
                    return UpEvent::Network(state.fault);
                }
                event = of_terminal(&mut self.terminal) => match event {
                    TerminalEvent::Started { pid } => {
                        self.for_save.news.store(true, Ordering::Release);
                        return UpEvent::CommandStarted { pid };
                    }
                    TerminalEvent::Ended(end) => {
                        self.for_save.news.store(true, Ordering::Release);
                        self.judging = Some(Box::pin(judge(self.link.clone(), end)));
                        continue;
                    }
                },
                received = next_of(&mut self.early, &mut self.incoming), if link_is_up => received,
            };
            match received {
                Ok(received) => {
                    if let Some(event) = self.sort(received) {
                        return event;
                    }
                }
                Err(error) => {
                    self.doom = Some(doom(Arc::clone(&self.machine), &error));
                    return UpEvent::LinkOver(error);
                }
            }
        }
    }

    /// Whether the guest is being asked how its command ended.
    pub fn is_judging(&self) -> bool {
        self.judging.is_some()
    }

    /// What a stop is made of: the end of a guest that was asked to end.
    pub fn orderly_stop(&self, cpus_run: bool, grace: Duration) -> EndFuture {
        let (machine, link) = (Arc::clone(&self.machine), self.link.clone());
        Box::pin(async move {
            let orderly = async {
                if !cpus_run && let Err(error) = machine.resume().await {
                    warn!("a paused VM cannot run on to be stopped: {error}");
                    return None;
                }
                let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
                let unasked = |error| format!("{error}");
                let asked = async { link.stop(grace_ms).await.map_err(|error| error.to_string()) };
                if let Err(error) = around_async("vm.stop", unasked, asked).await {
                    warn!("the guest cannot be asked to stop: {error}");
                    return None;
                }
                Some(machine.wait().await)
            };
            match timeout(grace + STOP_SLACK, orderly).await {
                Ok(Some(end)) => end,
                Ok(None) | Err(_) => {
                    warn!("the guest does not stop by itself and is ended");
                    kill(&*machine).await
                }
            }
        })
    }

    /// The end of a guest that has nothing to save.
    pub fn end_at_once(&self) -> EndFuture {
        let machine = Arc::clone(&self.machine);
        Box::pin(async move { kill(&*machine).await })
    }

    /// Starts the command on a terminal, unless it goes on on one.
    pub fn start_terminal(&mut self, spec: &VmSpec, size: Option<TtySize>) {
        if self.terminal.is_some() || matches!(self.beginning, Beginning::Restored(_)) {
            return;
        }
        if let Some(program) = guest::command(spec) {
            let (link, log) = (self.link.clone(), self.log.queue());
            let terminal = Terminal::start(link, program, size, log);
            self.terminal = Some(Box::new(terminal));
        }
    }

    /// The way onto the command's terminal.
    ///
    /// # Errors
    /// The command runs without one.
    pub fn terminal(&self) -> Result<TerminalHandle, Fault> {
        let terminal = self.terminal.as_deref().map(Terminal::handle);
        terminal.ok_or_else(|| {
            Fault::new(
                Symbol::WrongState,
                "the command of the instance runs without a terminal",
            )
        })
    }

    /// Writes the rest of the command's output.
    pub async fn close(mut self) {
        if let Some(terminal) = self.terminal.take() {
            terminal.close(LOG_PATIENCE).await;
        }
        if let Some(mut copy) = self.log_copy.take()
            && timeout(LOG_PATIENCE, &mut copy).await.is_err()
        {
            copy.abort();
            // An aborted task has let go of the log once it is joined.
            let _aborted = copy.await;
        }
        let log = self.log;
        let closed = async {
            let closed = tokio::task::spawn_blocking(move || log.close()).await;
            closed.map_err(std::io::Error::other)
        };
        if around_async("vm.close-log", |error| error, closed)
            .await
            .is_err()
        {
            warn!("the log of the command could not be closed, ignoring");
        }
    }

    fn sort(&mut self, received: Received) -> Option<UpEvent> {
        let Received::Event { event, stream } = received else {
            // Guests have no calls in this generation; dropping one refuses it.
            return None;
        };
        match event {
            Event::CommandStarted { pid } => {
                self.for_save.news.store(true, Ordering::Release);
                Some(UpEvent::CommandStarted { pid })
            }
            Event::CommandEnded { end } => {
                self.for_save.news.store(true, Ordering::Release);
                self.judging = Some(Box::pin(judge(self.link.clone(), end)));
                None
            }
            Event::Log { .. } => {
                self.take_log(stream);
                None
            }
            Event::Api { .. } => {
                // A machine must not be saved over it.
                self.for_save.news.store(true, Ordering::Release);
                stream.map(UpEvent::Request)
            }
            Event::Hello(_) | Event::Unknown => None,
        }
    }

    /// There is one log per boot; dropping another one resets it.
    fn take_log(&mut self, stream: Option<LinkStream>) {
        if let (None, Some(stream)) = (&self.log_copy, stream) {
            self.log_copy = Some(tokio::spawn(self.log.copy(stream)));
        }
    }
}

impl<M: Machine> Up<M> {
    pub(super) fn new(parts: Parts<M>, beginning: Beginning) -> Self {
        let Parts {
            machine,
            link,
            incoming,
            spec,
            rest,
        } = parts;
        let mut network = machine.network_state();
        if let Some(network) = &mut network {
            // It may be known already.
            network.mark_changed();
        }
        Self {
            network,
            renewals: 0,
            machine: Arc::new(machine),
            pulse: Pulse::new(link.clone()),
            link,
            beginning,
            incoming,
            early: VecDeque::new(),
            for_save: Box::new(ForSave {
                place: Place::of(&spec.dir, spec.credential.snapshot_key.clone()),
                spec,
                stamp: rest.stamp,
                news: Arc::default(),
            }),
            doom: None,
            log: rest.log,
            log_copy: None,
            terminal: None,
            judging: None,
            _scratch: rest.scratch,
        }
    }

    /// One that goes on. `early` is what its guest said before it greeted.
    pub(super) fn restored(
        parts: Parts<M>,
        memory: Memory,
        early: VecDeque<Received>,
        terminal: Option<Terminal>,
    ) -> Self {
        Self {
            early,
            terminal: terminal.map(Box::new),
            ..Self::new(parts, Beginning::Restored(Box::new(memory)))
        }
    }
}

impl<M> std::fmt::Debug for Up<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Up")
            .field("pulse", &self.pulse)
            .finish_non_exhaustive()
    }
}

/// What the guest said first and was not heard yet. Loses nothing when it is dropped.
async fn next_of(
    early: &mut VecDeque<Received>,
    incoming: &mut Incoming,
) -> Result<Received, LinkError> {
    match early.pop_front() {
        Some(received) => Ok(received),
        None => incoming.next().await,
    }
}

/// What happens on the terminal; nothing where there is none.
async fn of_terminal(terminal: &mut Option<Box<Terminal>>) -> TerminalEvent {
    match terminal {
        Some(terminal) => terminal.next().await,
        None => std::future::pending().await,
    }
}

/// The next change of the network; none where there is no network.
async fn network_change(network: &mut Option<watch::Receiver<NetworkState>>) -> NetworkState {
    if let Some(receiver) = network
        && receiver.changed().await.is_ok()
    {
        return receiver.borrow_and_update().clone();
    }
    std::future::pending().await
}

/// The end of the command, once it was judged.
async fn judged(judging: &mut Option<Pin<Box<dyn Future<Output = UpEvent> + Send>>>) -> UpEvent {
    match judging {
        Some(future) => {
            let event = future.await;
            *judging = None;
            event
        }
        None => std::future::pending().await,
    }
}

/// Asks the guest whether want of memory had to do with a failure.
async fn judge(link: Handle, end: CommandEnd) -> UpEvent {
    let may_be_oom = !matches!(
        end,
        CommandEnd::Ended(ProcessEnd::Exited { code: 0 }) | CommandEnd::Failed(_)
    );
    let oom = may_be_oom
        && match timeout(STATS_PATIENCE, link.stats()).await {
            Ok(Ok(stats)) => stats.oom_kills > 0,
            // A guest that does not answer does not know.
            Ok(Err(_)) | Err(_) => false,
        };
    UpEvent::CommandEnded { end, oom }
}

/// The machine of a guest whose link is over: it ends by itself after an orderly
/// end of the link, and at once where the guest broke the rules.
fn doom<M: Machine + 'static>(machine: Arc<M>, link: &LinkError) -> EndFuture {
    let patience = if guest::is_violation(link) {
        Duration::ZERO
    } else {
        LINK_END_PATIENCE
    };
    Box::pin(async move {
        match timeout(patience, machine.wait()).await {
            Ok(end) => end,
            Err(_) => kill(&*machine).await,
        }
    })
}

async fn kill<M: Machine>(machine: &M) -> MachineEnd {
    timeout(KILL_PATIENCE, machine.quit())
        .await
        .unwrap_or_else(|_| MachineEnd {
            cause: crate::hypervisor::EndCause::Quit,
            last_words: "it did not end when it was killed".to_owned(),
        })
}
