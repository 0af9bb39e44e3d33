//! The client of a VM's owner, on the control socket.
//!
//! Connecting wakes a sleeping VM: the service manager starts the owner for any
//! connection. Whoever only wants to look asks the service manager first.
//!
//! | item | what it is for |
//! |---|---|
//! | [`call`] | pause, resume, exec: one connection for one call |
//! | [`watch`] | the owner's status as it changes, as long as the owner lives |
//!
//! The protocol is in [`aegis_core::control`].

mod frames;

use std::path::{Path, PathBuf};

use aegis_core::control::{Answer, Call, CallFrame, OwnerFrame, VmStatus};
use aegis_core::fault::{Fault, Symbol};
use aegis_fault_points::around_async;
use rustix::fd::OwnedFd;
use tokio::net::UnixStream;
use tokio::sync::watch::Sender;

use frames::{Frames, FramesError};

/// Why a call to a VM's owner failed.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// Nothing listens there.
    #[error("cannot connect to {path}")]
    Connect {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The connection broke or carried nonsense.
    #[error("cannot talk to the owner of the VM")]
    Frames(#[from] FramesError),
    /// The owner ended before it answered.
    #[error("the VM ended before it answered")]
    Ended,
    /// An answer of another kind than the call's.
    #[error("the owner of the VM gave an answer that does not fit the call")]
    Misfit,
    /// The owner's own refusal.
    #[error(transparent)]
    Refused(Fault),
}

impl VmError {
    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Refused(fault) => fault.clone(),
            Self::Connect { .. } => Fault::from_error(Symbol::WrongState, self)
                .with_hint("start the instance to open its sockets again"),
            Self::Ended => Fault::from_error(Symbol::VmEnded, self),
            Self::Frames(_) | Self::Misfit => Fault::from_error(Symbol::Internal, self),
        }
    }
}

/// Asks the owner for one thing and waits for the answer, for as long as a boot
/// takes if the VM must be woken for it. An exec's answer brings descriptors.
///
/// # Errors
/// The owner refused, or could not be talked to.
pub async fn call(path: &Path, call: Call) -> Result<(Answer, Vec<OwnedFd>), VmError> {
    let refused = |source| VmError::Connect {
        path: path.to_owned(),
        source,
    };
    around_async("vm.call", refused, ask(path, call)).await
}

async fn ask(path: &Path, call: Call) -> Result<(Answer, Vec<OwnedFd>), VmError> {
    let mut frames = connect(path).await?;
    frames.send(&CallFrame { id: 1, call }).await?;
    loop {
        let (frame, descriptors) = frames.receive().await?.ok_or(VmError::Ended)?;
        match frame {
            OwnerFrame::Answer { ok, fds, .. } if fds == descriptors.len() => {
                return Ok((ok, descriptors));
            }
            OwnerFrame::Answer { .. } => return Err(VmError::Misfit),
            OwnerFrame::Fault { fault, .. } => return Err(VmError::Refused(fault)),
            OwnerFrame::Event { .. } => {}
        }
    }
}

/// Puts every status of the VM into `status` until the owner ends.
///
/// # Errors
/// The connection could not be made, or did not end with the owner.
pub async fn watch(path: &Path, status: &Sender<Option<VmStatus>>) -> Result<(), VmError> {
    let mut frames = connect(path).await?;
    let call = Call::Watch;
    frames.send(&CallFrame { id: 1, call }).await?;
    while let Some((frame, _)) = frames.receive().await? {
        match frame {
            OwnerFrame::Event { event } => drop(status.send_replace(Some(*event))),
            OwnerFrame::Answer {
                ok: Answer::Status(first),
                ..
            } => drop(status.send_replace(Some(*first))),
            OwnerFrame::Answer { .. } => return Err(VmError::Misfit),
            OwnerFrame::Fault { fault, .. } => return Err(VmError::Refused(fault)),
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "call() has the fault points, and watch() is for a VM that runs"
)]
async fn connect(path: &Path) -> Result<Frames, VmError> {
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|source| VmError::Connect {
        path: path.to_owned(),
        source,
    })?;
    Ok(Frames::new(stream))
}
