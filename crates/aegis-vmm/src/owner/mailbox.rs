//! The owner's mailbox: what others may ask, each with the way back.

use aegis_core::control::Outcome;
use aegis_core::fault::{Fault, Symbol};
use aegis_link::Handle;
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait. Whoever finds it full waits to ask.
const CAPACITY: usize = 64;

/// Where an answer goes. One whose asker is gone is dropped.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Fault>>;

/// What is asked of the owner.
#[derive(Debug)]
pub(super) enum Ask {
    Pause(Reply<Outcome>),
    Resume(Reply<Outcome>),
    /// The link to a guest that runs; resumes a paused VM, waits for one that starts.
    Use(Reply<Handle>),
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

    /// The link to the guest, once it runs. The caller's visit keeps the VM up.
    ///
    /// # Errors
    /// Why there is no guest.
    pub async fn use_guest(&self) -> Result<Handle, Fault> {
        self.ask(Ask::Use).await
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
