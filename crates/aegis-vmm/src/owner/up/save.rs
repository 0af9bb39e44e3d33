//! Hibernation's first half: from a VM to a snapshot, and back where nothing comes
//! of it.
//!
//! ```text
//!  suspend ──► quiesce ──► pause ──► state ──► snapshot ──► the machine may end
//!     │           │          │         │          │
//!     └───────────┴──────────┴─────────┴──────────┴──► unsuspend: it runs on
//! ```
//!
//! The guest hands over what its programs wrote, then the link falls silent at the
//! border of a frame, then the CPUs stop: nothing is lost between the two sides. A
//! guest that does not do its part costs a deadline. The futures here hold nothing
//! that cannot be let go: whoever drops one calls [`Up::unsuspend`].

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aegis_core::control::CommandState;
use aegis_core::fault::{Fault, Symbol};
use aegis_fault_points::around_async;
use aegis_link::{CallError, Handle};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;
use tracing::warn;

use super::{ForSave, Up};
use crate::guest;
use crate::hypervisor::{Machine, MachineError, SaveRefusal};
use crate::snapshot::format::MAX_STATE;
use crate::snapshot::stamp::{Difference, Stamp};
use crate::snapshot::{Header, Memory, SnapshotError, StateSink, Ticket};
use crate::status::{now_ns, now_us};
use crate::terminal::{SavedTerminal, Terminal};

/// How long the guest may take to hand over and to write its disks; its own deadline
/// is below.
const SUSPEND_PATIENCE: Duration = Duration::from_secs(25);

/// How long what needs no program of the guest may take.
const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// How long the hypervisor may write nothing.
const STALL: Duration = Duration::from_secs(30);

/// Bytes in the pipe of a state, what the kernel gives to everybody (pipe(7)).
const PIPE_SIZE: usize = 1 << 20;

type SaveFuture = Pin<Box<dyn Future<Output = Result<Saved, SaveError>>>>;
type BackFuture = Pin<Box<dyn Future<Output = Result<(), BackError>>>>;

/// A snapshot that is whole and durable, of a machine whose CPUs stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    pub bytes: u64,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error(transparent)]
    Refused(SaveRefusal),
    #[error("the guest could not {step}")]
    Guest {
        step: &'static str,
        #[source]
        source: CallError,
    },
    #[error("the guest did not {step} within {} s", after.as_secs())]
    Silent { step: &'static str, after: Duration },
    #[error("the command of the instance has started or ended meanwhile")]
    Command,
    #[error("the machine could not be saved")]
    Machine(#[source] MachineError),
    #[error("the hypervisor wrote nothing for {} s", STALL.as_secs())]
    Stalled,
    #[error("cannot {operation}")]
    Io {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{0}, though the guest stood still")]
    Disk(Difference),
    #[error("the snapshot could not be written")]
    Snapshot(#[source] SnapshotError),
}

impl From<SaveError> for Fault {
    fn from(error: SaveError) -> Self {
        match error {
            SaveError::Refused(refusal) => refusal.into(),
            SaveError::Machine(error) => error.into(),
            SaveError::Snapshot(ref source) => Fault {
                message: Fault::from_error(Symbol::Internal, &error).message,
                ..Fault::from(source)
            },
            SaveError::Guest {
                source: CallError::Fault(ref fault),
                ..
            } => Fault::from_error(guest::fault(fault).symbol, &error),
            SaveError::Guest { .. } => Fault::from_error(Symbol::VmEnded, &error),
            SaveError::Command => Fault::from_error(Symbol::Busy, &error),
            SaveError::Silent { .. } => Fault::from_error(Symbol::GuestTimeout, &error),
            SaveError::Stalled => Fault::from_error(Symbol::QemuFailed, &error),
            SaveError::Io { .. } | SaveError::Disk(_) => {
                Fault::from_error(Symbol::Internal, &error)
            }
        }
    }
}

/// Why a VM does not run on after a save.
#[derive(Debug, thiserror::Error)]
pub enum BackError {
    /// It stays: the machine has to end, and the VM begins again with it.
    #[error("the snapshot cannot be taken back")]
    Snapshot(#[source] SnapshotError),
    #[error("the machine cannot run on")]
    Machine(#[source] MachineError),
}

impl<M: Machine + 'static> Up<M> {
    /// Whether the VM can hibernate as things are.
    pub fn can_hibernate(&self) -> impl Future<Output = Result<(), SaveRefusal>> + use<M> {
        let machine = Arc::clone(&self.machine);
        async move { machine.can_save().await }
    }

    /// Saves the VM, which nobody uses. Needs [`Up::next`] to be polled meanwhile with
    /// CPUs that do not run, and whatever that returns means that the save should be
    /// dropped. Afterwards call [`Up::end_saved`], or [`Up::unsuspend`], as after a
    /// failure or a drop.
    pub fn hibernate(&self, cpus_run: bool, command: CommandState) -> SaveFuture {
        let save = Save {
            machine: Arc::clone(&self.machine),
            link: self.link.clone(),
            with: ForSave::clone(&self.for_save),
            ticket: self.for_save.place.ticket(),
        };
        save.with.news.store(false, Ordering::Release);
        let terminal = self.terminal.as_deref().map(Terminal::save);
        Box::pin(async move { save.run(cpus_run, command, terminal).await })
    }

    /// Takes a hibernation back, done or not: the snapshot goes, and the VM runs on as
    /// if nothing had been.
    pub fn unsuspend(&self) -> BackFuture {
        let (machine, link) = (Arc::clone(&self.machine), self.link.clone());
        let place = self.for_save.place.clone();
        Box::pin(async move {
            let removed = blocking(move || place.remove()).await;
            removed.map_err(BackError::Snapshot)?;
            machine.resume().await.map_err(BackError::Machine)?;
            link.unquiesce();
            let told = timeout(LINK_PATIENCE, link.unsuspend(now_ns())).await;
            if !matches!(told, Ok(Ok(()))) {
                // Its pulse tells whether it is there at all.
                warn!("the guest did not say that it goes on, ignoring");
            }
            Ok(())
        })
    }

    /// Ends a VM that was saved. In this order: a terminal whose machine ends would log
    /// the half of a line that is in the snapshot.
    pub async fn end_saved(mut self) {
        if let Some(terminal) = self.terminal.take() {
            terminal.abandon().await;
        }
        self.end_at_once().await;
        self.close().await;
    }
}

/// All that a save needs.
struct Save<M> {
    machine: Arc<M>,
    link: Handle,
    with: ForSave,
    ticket: Ticket,
}

impl<M: Machine + 'static> Save<M> {
    async fn run(
        self,
        cpus_run: bool,
        command: CommandState,
        terminal: Option<impl Future<Output = Option<SavedTerminal>>>,
    ) -> Result<Saved, SaveError> {
        self.machine.can_save().await.map_err(SaveError::Refused)?;
        let suspended = self.suspend(cpus_run);
        around_async("vm.suspend", io_error("suspend the guest"), suspended).await?;
        let quiesced = self.quiesce();
        around_async("vm.quiesce", io_error("quiesce the link"), quiesced).await?;
        let terminal = match terminal {
            None => None,
            Some(saved) => match timeout(LINK_PATIENCE, saved).await {
                Ok(Some(saved)) => Some(saved),
                Ok(None) | Err(_) => return Err(SaveError::Command),
            },
        };
        if self.with.news.load(Ordering::Acquire) {
            return Err(SaveError::Command);
        }
        let paused = async { self.machine.pause().await.map_err(SaveError::Machine) };
        around_async("vm.pause", io_error("pause the machine"), paused).await?;
        let saved = self.write(command, terminal);
        around_async("vm.save", io_error("save the machine"), saved).await
    }

    async fn suspend(&self, cpus_run: bool) -> Result<(), SaveError> {
        if !cpus_run {
            self.machine.resume().await.map_err(SaveError::Machine)?;
            // What it does until it is suspended happens now.
            within(LINK_PATIENCE, "take the time", self.link.set_time(now_ns())).await?;
        }
        // What was typed has to be there before it is told to settle.
        within(LINK_PATIENCE, "take its input", self.link.settled()).await?;
        within(SUSPEND_PATIENCE, "suspend itself", self.link.suspend()).await
    }

    /// Silence, and then the end of what came before it.
    async fn quiesce(&self) -> Result<(), SaveError> {
        within(LINK_PATIENCE, "fall silent", self.link.quiesce()).await?;
        within(LINK_PATIENCE, "be heard", self.link.settled()).await
    }

    async fn write(
        &self,
        command: CommandState,
        terminal: Option<SavedTerminal>,
    ) -> Result<Saved, SaveError> {
        let header = Header {
            vm: self.with.stamp.clone(),
            machine: self.machine.facts().stamp.clone(),
            disk: self.settled_disk().await?,
            epoch: self.link.epoch(),
            memory: Memory {
                command,
                saved_at: now_us(),
            },
            terminal,
        };
        let disk = header.disk.clone();
        let place = self.with.place.clone();
        let ticket = self.ticket;
        let unfinished = blocking(move || place.begin(ticket, &header)).await;
        let unfinished = unfinished.map_err(SaveError::Snapshot)?;
        let unfinished = save_into(&*self.machine, unfinished).await?;
        if let Some(difference) = disk.difference(&self.settled_disk().await?) {
            return Err(SaveError::Disk(difference));
        }
        let bytes = blocking(move || unfinished.publish()).await;
        let bytes = bytes.map_err(SaveError::Snapshot)?;
        Ok(Saved { bytes })
    }

    /// The disk with all that the guest wrote, on the host's disk too.
    async fn settled_disk(&self) -> Result<Stamp, SaveError> {
        let Some(disk) = self.with.spec.root_disk() else {
            return Ok(Stamp::default());
        };
        let path = disk.path.clone();
        let settled = move || {
            File::open(&path)?.sync_all()?;
            stamp_of_disk(&path)
        };
        blocking(settled)
            .await
            .map_err(io_error("write the disk of the instance"))
    }
}

/// What tells that nobody has written to a disk.
pub(in crate::owner) fn stamp_of_disk(path: &std::path::Path) -> io::Result<Stamp> {
    Stamp::default().with_file("the disk of the instance", path)
}

/// A pipe that a state goes through.
pub(in crate::owner) fn state_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    aegis_os::pipes::widen(&writer, PIPE_SIZE);
    Ok((reader.into(), writer.into()))
}

/// Has a machine that stands still write its state.
///
/// # Errors
/// It could not, or the state could not be kept.
pub(in crate::owner) async fn save_into<S: StateSink>(
    machine: &impl Machine,
    sink: S,
) -> Result<S, SaveError> {
    let (from, to) = state_pipe().map_err(io_error("make a pipe for the state"))?;
    let from = pipe::Receiver::from_owned_fd(from).map_err(io_error("use a pipe"))?;
    let saved = async { machine.save(to).await.map_err(SaveError::Machine) };
    // A writer that fails takes the pipe away, which would hide its reason.
    let ((), sink) = tokio::try_join!(biased; saved, copy(from, sink))?;
    Ok(sink)
}

/// Writes all that comes out of a pipe.
async fn copy<S: StateSink>(mut from: pipe::Receiver, mut sink: S) -> Result<S, SaveError> {
    let mut is_over = false;
    while !is_over {
        let mut piece = vec![0; MAX_STATE];
        let mut length = 0;
        while length < MAX_STATE {
            let read = timeout(STALL, from.read(&mut piece[length..])).await;
            match read.map_err(|_| SaveError::Stalled)? {
                Ok(0) => {
                    is_over = true;
                    break;
                }
                Ok(count) => length += count,
                Err(source) => return Err(io_error("read the state")(source)),
            }
        }
        piece.truncate(length);
        let written = move || {
            sink.state(&piece)?;
            Ok(sink)
        };
        sink = blocking(written).await.map_err(SaveError::Snapshot)?;
    }
    Ok(sink)
}

async fn within(
    after: Duration,
    step: &'static str,
    call: impl Future<Output = Result<(), CallError>>,
) -> Result<(), SaveError> {
    match timeout(after, call).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(SaveError::Guest { step, source }),
        Err(_) => Err(SaveError::Silent { step, after }),
    }
}

fn io_error(operation: &'static str) -> impl Fn(io::Error) -> SaveError {
    move |source| SaveError::Io { operation, source }
}

/// Does what blocks on the disk elsewhere. It goes on to its end when this is dropped.
pub(in crate::owner) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
