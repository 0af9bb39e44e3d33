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

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
        source: io::Error,
    },
    /// The connection broke or carried nonsense.
    #[error("cannot talk to the owner of the VM")]
    Frames(#[from] FramesError),
    /// The owner ended before it answered.
    #[error("the VM ended before it answered")]
    Ended,
    /// A stream that came with an answer.
    #[error("cannot use the connection to the guest")]
    Stream(#[source] io::Error),
    /// An answer of another kind than the call's.
    #[error("the owner of the VM gave an answer that does not fit the call")]
    Misfit,
    /// The owner's own refusal.
    #[error(transparent)]
    Refused(Fault),
}

impl VmError {
    /// Whether the owner ended without having read what it was sent: the kernel says so
    /// of a unix socket that is closed with something in its queue, or closed already.
    fn was_unread(&self) -> bool {
        let Self::Frames(FramesError::Read(error) | FramesError::Write(error)) = self else {
            return false;
        };
        let unread = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        unread.contains(&error.kind())
    }

    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Refused(fault) => fault.clone(),
            Self::Connect { .. } => Fault::from_error(Symbol::WrongState, self)
                .with_hint("start the instance to open its sockets again"),
            Self::Ended => Fault::from_error(Symbol::VmEnded, self),
            Self::Frames(_) | Self::Misfit | Self::Stream(_) => {
                Fault::from_error(Symbol::Internal, self)
            }
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
    let asked = async {
        for _ in 0..UNREAD_TIMES {
            match ask(path, call.clone()).await {
                Err(error) if error.was_unread() => tokio::time::sleep(UNREAD_PAUSE).await,
                answer => return answer,
            }
        }
        ask(path, call).await
    };
    around_async("vm.call", refused, asked).await
}

/// How often a question is asked again that an owner ended over without having read it:
/// its VM fell asleep at that moment, and the next connection wakes it.
const UNREAD_TIMES: u32 = 20;
const UNREAD_PAUSE: Duration = Duration::from_millis(50);

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
