//! The owner's mailbox: what others may ask, each with the way back.

use aegis_core::control::{Keep, Outcome};
use aegis_core::fault::{Fault, Symbol};
use aegis_link::Handle;
use aegis_link::message::TtySize;
use tokio::sync::{mpsc, oneshot};

use crate::terminal::TerminalHandle;

/// Questions that may wait. Whoever finds it full waits to ask.
const CAPACITY: usize = 64;

/// Where an answer goes. One whose asker is gone is dropped.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Fault>>;

/// What is asked of the owner.
#[derive(Debug)]
pub(super) enum Ask {
    Pause(Reply<Outcome>),
    Resume(Reply<Outcome>),
    Hibernate(Reply<Outcome>),
    Keep {
        keep: Keep,
        reply: Reply<Outcome>,
    },
    /// The link to a guest that runs; resumes a paused VM, waits for one that starts.
    Use {
        by: By,
        reply: Reply<Handle>,
    },
    /// The terminal of the command, likewise.
    Attach {
        size: Option<TtySize>,
        reply: Reply<TerminalHandle>,
    },
}

/// Who uses the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Somebody who asked for it.
    Hand,
    /// A connection on a port.
    Connection,
}

/// Asks the owner. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OwnerHandle {
    mailbox: mpsc::Sender<Ask>,
}

impl OwnerHandle {
    pub(super) fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (mailbox, asks) = mpsc::channel(CAPACITY);
        (Self { mailbox }, asks)
    }

    /// Stops the virtual CPUs.
    ///
    /// # Errors
    /// When the VM is in no state for it or QEMU refuses.
    pub async fn pause(&self) -> Result<Outcome, Fault> {
        self.ask(Ask::Pause).await
    }

    /// Lets the virtual CPUs run on; waits for a VM that starts.
    ///
    /// # Errors
    /// When the VM is in no state for it or QEMU refuses.
    pub async fn resume(&self) -> Result<Outcome, Fault> {
        self.ask(Ask::Resume).await
    }

    /// Writes the machine to the disk and ends.
    ///
    /// # Errors
    /// When somebody needs the VM, or it cannot be hibernated.
    pub async fn hibernate(&self) -> Result<Outcome, Fault> {
        self.ask(Ask::Hibernate).await
    }

    /// Says when the VM falls asleep from now on.
    ///
    /// # Errors
    /// When the VM has ended, or cannot be woken for a lease.
    pub async fn keep(&self, keep: Keep) -> Result<Outcome, Fault> {
        self.ask(|reply| Ask::Keep { keep, reply }).await
    }

    /// The link to the guest, once it runs. The caller's visit keeps the VM up.
    ///
    /// # Errors
    /// Why there is no guest.
    pub async fn use_guest(&self) -> Result<Handle, Fault> {
        let by = By::Hand;
        self.ask(|reply| Ask::Use { by, reply }).await
    }

    /// The link to the guest for a connection, which starts no VM that rests.
    ///
    /// # Errors
    /// Why there is no guest.
    pub async fn visit_guest(&self) -> Result<Handle, Fault> {
        let by = By::Connection;
        self.ask(|reply| Ask::Use { by, reply }).await
    }

    /// The terminal of the command, once the guest runs. The caller's visit keeps
    /// the VM up.
    ///
    /// # Errors
    /// Why there is no guest, or no terminal.
    pub async fn use_terminal(&self, size: Option<TtySize>) -> Result<TerminalHandle, Fault> {
        self.ask(|reply| Ask::Attach { size, reply }).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Fault> {
        let over = || Fault::new(Symbol::VmEnded, "the VM ended");
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(ask(reply)).await.map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }
}

/// An asker that is gone needs no answer.
pub(super) fn tell<T>(reply: Reply<T>, answer: Result<T, Fault>) {
    drop(reply.send(answer));
}
