//! Hibernation's second half: from a snapshot to the VM that was saved.
//!
//! ```text
//!  stamps are the same ──► launched and loaded, every byte checked ──► the snapshot
//!                                          is spent ──► runs on ──► greeted
//! ```
//!
//! No CPU runs before all of the snapshot is checked and spent. What fails before that
//! for reasons of the host leaves it for the next try; what is wrong with the snapshot
//! itself makes it useless, and the VM boots.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis_core::fault::{Fault, Symbol};
use aegis_core::vm_spec::VmSpec;
use aegis_fault_points::around_async;
use aegis_link::message::{Event, Restored};
use aegis_link::{CallError, Handle, Incoming, LinkError, Received};
use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Held, Planned, Rest, StartError, resource};
use crate::hypervisor::{
    self, EndCause, Hypervisor, LaunchError, LoadError, Machine, MachineEnd, MachineError,
};
use crate::owner::up::{Parts, Up, blocking, stamp_of_disk, state_pipe};
use crate::snapshot::format::FormatError;
use crate::snapshot::stamp::{Difference, Stamp};
use crate::snapshot::{Header, Place, SnapshotError, Stored};
use crate::status::now_ns;
use crate::terminal::Terminal;

/// How long the hypervisor may take nothing of the state, or need after all of it.
const LOAD_STALL: Duration = Duration::from_secs(60);

/// Pieces of the state that are read ahead of the hypervisor at most: 64 MiB, most of
/// the state of a small guest.
const AHEAD: usize = 64;

/// How long a restored guest may take to answer: it was awake when it was saved.
pub(super) const WAKE_DEADLINE: Duration = Duration::from_secs(60);

/// Events that a guest may have kept for its next host: how its command fared.
const MAX_EARLY: usize = 16;

/// A clock that was set in a longer time is set again, so that it is right to 100 ms.
const CLOCK_PRECISION: Duration = Duration::from_millis(90);
const CLOCK_TRIES: usize = 5;

/// The end of a hypervisor that the kernel killed for want of memory, or a user.
const KILLED: EndCause = EndCause::Signaled(Signal::SIGKILL as i32);

/// Random bytes that a guest is given.
const ENTROPY: usize = 64;

/// Why a snapshot is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("the snapshot is damaged")]
    Snapshot(#[from] SnapshotError),
    #[error("{0}")]
    Differs(Difference),
    #[error("the state of the machine cannot be loaded")]
    Load(#[source] LaunchError),
    #[error("the hypervisor does not take the state")]
    Feed(#[source] io::Error),
    #[error("the hypervisor took nothing of the state for {} s", LOAD_STALL.as_secs())]
    Stalled,
    #[error("the restored machine does not run")]
    Machine(#[source] MachineError),
    #[error("the restored machine ended: {0}")]
    Ended(MachineEnd),
    #[error("the link to the restored guest failed")]
    Link(#[source] LinkError),
    #[error("the restored guest does not find back")]
    Guest(#[source] CallError),
    #[error("the restored guest did not answer within {} s", WAKE_DEADLINE.as_secs())]
    Silent,
    #[error("a restored guest kept more events than it has")]
    Talkative,
    /// Of a template, which is used more than once.
    #[error("its random numbers would be those of others: {0}")]
    Twin(String),
}

impl From<&Unusable> for Fault {
    fn from(reason: &Unusable) -> Self {
        let fault = Fault::from_error(Symbol::SnapshotUnusable, reason);
        Fault {
            message: format!("the VM was booted instead of restored: {}", fault.message),
            ..fault
        }
    }
}

/// Why a VM was not restored.
pub(super) enum NotWoken {
    /// Nor can it be booted now; the snapshot is kept.
    Start(StartError),
    /// There is no whole snapshot.
    Nothing,
    Unusable(Unusable),
}

impl From<StartError> for NotWoken {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<Unusable> for NotWoken {
    fn from(reason: Unusable) -> Self {
        Self::Unusable(reason)
    }
}

/// Restores a VM from its snapshot.
pub(super) async fn wake<H: Hypervisor>(
    planned: Planned,
    hypervisor: &H,
    place: &Place,
) -> Result<Up<H::Machine>, NotWoken> {
    let opening = place.clone();
    let opened = blocking(move || opening.open()).await;
    let opened = opened.map_err(|error| match error {
        // The snapshot is as good as ever once there is a key again.
        SnapshotError::Format {
            source: FormatError::NoKey,
            ..
        } => NotWoken::Start(StartError::NoSnapshotKey),
        error => Unusable::Snapshot(error).into(),
    })?;
    let (stored, header) = opened.ok_or(NotWoken::Nothing)?;
    let held = around_async("vm.hold", resource("machine"), planned.hold()).await?;
    compare(&header, &held)?;
    let loaded = held.load(hypervisor, &header.machine, stored);
    let loaded = around_async("vm.load", not_had("machine"), loaded).await?;
    let spent = place.clone();
    let spent = async {
        blocking(move || spent.spend())
            .await
            .map_err(StartError::Snapshot)
    };
    let spent = around_async("vm.use-snapshot", resource("snapshot"), spent).await?;
    // Nobody waits for its room.
    tokio::task::spawn_blocking(move || drop(spent));
    let woken = loaded.run_on(header);
    around_async("vm.run-on", not_had("link"), woken).await
}

fn not_had(what: &'static str) -> impl Fn(io::Error) -> NotWoken {
    move |source| resource(what)(source).into()
}

/// Whether the instance and its disk are what they were.
fn compare(header: &Header, held: &Held) -> Result<(), NotWoken> {
    let disk = match held.spec.root_disk() {
        None => Stamp::default(),
        Some(disk) => stamp_of_disk(&disk.path).map_err(resource("disk"))?,
    };
    let difference = header.vm.difference(&held.rest.stamp);
    match difference.or_else(|| header.disk.difference(&disk)) {
        Some(difference) => Err(Unusable::Differs(difference).into()),
        None => Ok(()),
    }
}

/// A paused machine in the state that was saved; all of the snapshot was whole.
pub(super) struct Loaded<M> {
    pub(super) machine: M,
    pub(super) spec: Arc<VmSpec>,
    pub(super) channel: UnixStream,
    pub(super) rest: Rest,
}

impl Held {
    /// Starts a machine in a state that was saved.
    pub(super) async fn load<H: Hypervisor>(
        mut self,
        hypervisor: &H,
        stamp: &Stamp,
        stored: Stored,
    ) -> Result<Loaded<H::Machine>, NotWoken> {
        let channel = UnixStream::from_std(self.link).map_err(resource("link"))?;
        let (state, to) = state_pipe().map_err(resource("pipe"))?;
        let to = pipe::Sender::from_owned_fd(to).map_err(resource("pipe"))?;
        self.plan.incoming = Some(hypervisor::Incoming {
            stamp: stamp.clone(),
            state,
        });
        let launched = async {
            hypervisor
                .launch(self.plan)
                .await
                .map_err(|error| match error {
                    // Somebody's doing, not the state's.
                    LaunchError::Load(LoadError::Ended(ref end)) if end.cause == KILLED => {
                        NotWoken::Start(StartError::Launch(error))
                    }
                    LaunchError::Load(_) => Unusable::Load(error).into(),
                    _ => NotWoken::Start(StartError::Launch(error)),
                })
        };
        let machine = fed(launched, feed(stored, to)).await?;
        Ok(Loaded {
            machine,
            spec: self.spec,
            channel,
            rest: self.rest,
        })
    }
}

/// Waits for a launch and for what feeds it. A hypervisor that does not take what it
/// is fed knows the reason.
async fn fed<M>(
    launched: impl Future<Output = Result<M, NotWoken>>,
    feed: impl Future<Output = Result<(), Unusable>>,
) -> Result<M, NotWoken> {
    tokio::pin!(launched, feed);
    let fed = tokio::select! {
        biased;
        launched = &mut launched => {
            let machine = launched?;
            return match feed.await {
                Ok(()) => Ok(machine),
                Err(reason) => Err(reason.into()),
            };
        }
        fed = &mut feed => fed,
    };
    if let Err(reason) = &fed
        && !matches!(reason, Unusable::Feed(_))
    {
        return Err(fed.err().unwrap_or(Unusable::Stalled).into());
    }
    let machine = timeout(LOAD_STALL, launched).await;
    let machine = machine.map_err(|_| Unusable::Stalled)??;
    fed?;
    Ok(machine)
}

/// Hands the state to the hypervisor, each piece once it was checked. They are read
/// ahead of it, while it starts.
async fn feed(stored: Stored, mut to: pipe::Sender) -> Result<(), Unusable> {
    let (checked, mut pieces) = mpsc::channel(AHEAD);
    let reading = blocking(move || read(stored, &checked));
    // Until the end: a hypervisor that sees this closed would complain of it first.
    let to = &mut to;
    let writing = async move {
        while let Some(piece) = pieces.recv().await {
            match timeout(LOAD_STALL, to.write_all(&piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Unusable::Feed(error)),
                Err(_) => return Err(Unusable::Stalled),
            }
        }
        Ok(())
    };
    let (read, written) = tokio::join!(reading, writing);
    read.map_err(Unusable::Snapshot)?;
    written
}

/// Reads a snapshot to its end, or until nobody wants its pieces.
fn read(mut stored: Stored, checked: &mpsc::Sender<Vec<u8>>) -> Result<(), SnapshotError> {
    while let Some(piece) = stored.state()? {
        if checked.blocking_send(piece).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

impl<M: Machine> Loaded<M> {
    /// Lets the guest run and tells it what it has missed.
    async fn run_on(self, header: Header) -> Result<Up<M>, NotWoken> {
        let Self {
            machine,
            spec,
            channel,
            rest,
        } = self;
        let (link, mut incoming) = aegis_link::start_restored(channel, header.epoch);
        machine.resume().await.map_err(Unusable::Machine)?;
        // What it is told waits for it already when it looks.
        let greeted = async {
            let begun = async {
                let lack = begin_again(&link).await.map_err(Unusable::Guest)?;
                if let Some(lack) = lack {
                    // It runs all the same, with what it has.
                    warn!("the restored guest complains: {lack}, ignoring");
                }
                Ok(())
            };
            let (early, ()) = tokio::try_join!(greeting(&mut incoming), begun)?;
            Ok(early)
        };
        let early = tokio::select! {
            greeted = timeout(WAKE_DEADLINE, greeted) => greeted.unwrap_or(Err(Unusable::Silent)),
            end = machine.wait() => Err(Unusable::Ended(end)),
        };
        let early = match early {
            Ok(early) => early,
            Err(reason) => {
                // It has run, and its disk is about to be somebody else's.
                machine.quit().await;
                return Err(reason.into());
            }
        };
        let terminal = header
            .terminal
            .map(|saved| Terminal::adopt(link.clone(), saved, rest.log.queue()));
        let parts = Parts {
            machine,
            link,
            incoming,
            spec,
            rest,
        };
        Ok(Up::restored(parts, header.memory, early, terminal))
    }
}

/// Waits for the greeting; what the guest said before it, which was for the host that
/// saved it.
pub(super) async fn greeting(incoming: &mut Incoming) -> Result<VecDeque<Received>, Unusable> {
    let mut early = VecDeque::new();
    loop {
        let received = incoming.next().await.map_err(Unusable::Link)?;
        match received {
            Received::Event {
                event: Event::Hello(hello),
                ..
            } => {
                info!("the guest is awake: harness {}", hello.harness);
                return Ok(early);
            }
            other if early.len() < MAX_EARLY => early.push_back(other),
            _ => return Err(Unusable::Talkative),
        }
    }
}

/// Gives the guest randomness and the time; what it lacks of that.
pub(super) async fn begin_again(link: &Handle) -> Result<Option<String>, CallError> {
    let (entropy, lack) = match random() {
        Ok(bytes) => (bytes, None),
        Err(error) => {
            let lack = format!("there is no randomness for the guest: {error}");
            (Vec::new(), Some(lack))
        }
    };
    let mut began = Instant::now();
    let restored = link.restored(Restored {
        time_ns: now_ns(),
        entropy,
    });
    let complaint = match restored.await {
        Err(CallError::Fault(fault)) => Some(fault.to_string()),
        other => {
            other?;
            None
        }
    };
    let lack = lack.or(complaint);
    for _ in 0..CLOCK_TRIES {
        if began.elapsed() <= CLOCK_PRECISION {
            break;
        }
        began = Instant::now();
        match link.set_time(now_ns()).await {
            Err(CallError::Fault(fault)) => {
                warn!("the clock of the guest cannot be set: {fault}, ignoring");
                break;
            }
            other => other?,
        }
    }
    Ok(lack)
}

/// Bytes of the kernel's generator.
fn random() -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; ENTROPY];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
