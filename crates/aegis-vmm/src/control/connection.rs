//! One connection of the control socket: reads calls, answers them, tells
//! changes to whoever watches.
//!
//! Calls that wait for the guest do so beside the connection, so a client that
//! goes away gives up what it asked for. What an exec already began is no part of
//! its connection any more.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::control::{
    Answer, AttachRequest, Call, CallFrame, Dial, ExecRequest, MAX_FRAME, Outcome, OwnerFrame,
};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::secret::GIVEN_MARK;
use aegis_core::vm_spec::VmSpec;
use aegis_fault_points::around;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::frames::{FrameError, FrameStream};
use super::look;
use crate::activation::PortListener;
use crate::dial;
use crate::doorway::{Doorway, Visit};
use crate::exec::Sessions;
use crate::guest;
use crate::owner::OwnerHandle;
use crate::ports::{self, PortServices};
use crate::status::StatusWatch;

/// Calls of one connection that wait at a time; then no more are read.
const MAX_WAITING: usize = 16;

/// How long a client may leave a frame unread.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// What a connection needs of the VM.
#[derive(Clone, Debug)]
pub struct Services {
    pub owner: OwnerHandle,
    pub status: StatusWatch,
    pub doorway: Arc<Doorway>,
    pub sessions: Sessions,
    pub ports: PortServices,
    pub spec: Arc<VmSpec>,
}

/// Why a connection was closed by us.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("the connection failed")]
    Frame(#[source] FrameError),
    #[error("a frame is no call")]
    Garbage(#[source] serde_json::Error),
    #[error("an answer cannot be written as JSON")]
    Answer(#[source] serde_json::Error),
    #[error("the client leaves its answers unread")]
    Unread,
}

/// An answer with its descriptors.
type Reply = (OwnerFrame, Vec<OwnedFd>);

/// Serves one connection until its end.
///
/// # Errors
/// What the client did wrong; the connection is closed.
pub async fn serve(stream: UnixStream, services: Services) -> Result<(), ConnectionError> {
    let mut frames = FrameStream::new(stream);
    let mut waiting: JoinSet<Reply> = JoinSet::new();
    let mut watched: Option<StatusWatch> = None;
    // They end with the connection; what came through them does not.
    let mut served = JoinSet::new();
    loop {
        let (reply, fds) = tokio::select! {
            // Answers first, then news, then new work: what is done leaves.
            biased;
            Some(done) = waiting.join_next() => match done {
                Ok(reply) => reply,
                // A panic in a call is ours alone; its client must not wait for ever.
                Err(_panicked) => return Ok(()),
            },
            event = next_event(&mut watched) => (event, Vec::new()),
            frame = frames.read(), if waiting.len() < MAX_WAITING => {
                let Some(frame) = frame.map_err(ConnectionError::Frame)? else { return Ok(()) };
                match read_call(&frame)? {
                    Err(fault) => (fault, Vec::new()),
                    Ok(CallFrame { id, call }) => match call {
                        Call::Status => (status_answer(id, &services.status), Vec::new()),
                        Call::Watch => {
                            let mut status = services.status.clone();
                            status.mark_unchanged();
                            let answer = status_answer(id, &status);
                            watched = Some(status);
                            (answer, Vec::new())
                        }
                        Call::Listen { guest } => {
                            let reply = match brought(frames.take_passed(), guest) {
                                Ok(port) => {
                                    served.spawn(serve_port(port, services.ports.clone()));
                                    let ok = Answer::Outcome(Outcome::Changed);
                                    OwnerFrame::Answer { id, ok, fds: 0 }
                                }
                                Err(fault) => OwnerFrame::Fault { id, fault },
                            };
                            (reply, Vec::new())
                        }
                        Call::Pause
                        | Call::Resume
                        | Call::Hibernate
                        | Call::Keep(_)
                        | Call::Kill { .. }
                        | Call::Processes
                        | Call::Exec(_)
                        | Call::Attach(_)
                        | Call::Dial(_) => {
                            // From this moment on: a VM must not fall asleep over it.
                            let visit = visit(&call, &services);
                            waiting.spawn(answer(id, call, visit, services.clone()));
                            continue;
                        }
                    },
                }
            }
        };
        write(&frames, &reply, &fds).await?;
    }
}

/// A frame that is no JSON object with an id is garbage; one with an unknown call
/// is the call of a newer client.
fn read_call(frame: &[u8]) -> Result<Result<CallFrame, OwnerFrame>, ConnectionError> {
    #[derive(Deserialize)]
    struct Envelope {
        id: u64,
        call: String,
    }
    let refused = match serde_json::from_slice::<CallFrame>(frame) {
        Ok(call) => return Ok(Ok(call)),
        Err(error) => error,
    };
    let envelope: Envelope = serde_json::from_slice(frame).map_err(ConnectionError::Garbage)?;
    let known = [
        "status",
        "watch",
        "pause",
        "resume",
        "hibernate",
        "keep",
        "kill",
        "processes",
        "exec",
        "attach",
        "listen",
        "dial",
    ];
    let fault = if known.contains(&envelope.call.as_str()) {
        Fault::from_error(Symbol::InvalidArgument, &refused)
    } else {
        let call: String = envelope.call.chars().take(64).collect();
        Fault::new(
            Symbol::Unsupported,
            format!("the owner of this VM does not know the call {call:?}"),
        )
        .with_hint("restart the instance: its VM was started by an older version")
    };
    Ok(Err(OwnerFrame::Fault {
        id: envelope.id,
        fault,
    }))
}

async fn next_event(watched: &mut Option<StatusWatch>) -> OwnerFrame {
    if let Some(status) = watched
        && status.changed().await.is_ok()
    {
        return OwnerFrame::Event {
            event: Box::new(status.borrow_and_update().clone()),
        };
    }
    // Nobody watches, or the owner has ended and this connection is about to.
    std::future::pending().await
}

fn status_answer(id: u64, status: &StatusWatch) -> OwnerFrame {
    OwnerFrame::Answer {
        id,
        ok: Answer::Status(Box::new(status.borrow().clone())),
        fds: 0,
    }
}

/// What a call is to the idle clock. Those that change the VM's state are none.
fn visit(call: &Call, services: &Services) -> Option<Visit> {
    let doorway = &services.doorway;
    match call {
        // One without a command is refused, and must not count as the one exec of an
        // ephemeral VM.
        Call::Exec(request) if names_nothing(request) => None,
        Call::Exec(_) => Some(doorway.enter_exec()),
        Call::Attach(_) => Some(doorway.enter_terminal()),
        Call::Kill { .. } | Call::Processes => Some(doorway.enter_look()),
        Call::Dial(_) => Some(doorway.enter_message()),
        _ => None,
    }
}

fn names_nothing(request: &ExecRequest) -> bool {
    request.argv.first().is_none_or(String::is_empty)
}

async fn answer(id: u64, call: Call, visit: Option<Visit>, services: Services) -> Reply {
    let outcome = match call {
        Call::Pause => services
            .owner
            .pause()
            .await
            .map(|done| (Answer::Outcome(done), Vec::new())),
        Call::Resume => services
            .owner
            .resume()
            .await
            .map(|done| (Answer::Outcome(done), Vec::new())),
        Call::Hibernate => services
            .owner
            .hibernate()
            .await
            .map(|done| (Answer::Outcome(done), Vec::new())),
        Call::Keep(keep) => services
            .owner
            .keep(keep)
            .await
            .map(|done| (Answer::Outcome(done), Vec::new())),
        Call::Kill { signal } => look::kill(signal, &services)
            .await
            .map(|done| (Answer::Outcome(done), Vec::new())),
        Call::Processes => look::processes(&services)
            .await
            .map(|found| (Answer::Processes(found), Vec::new())),
        Call::Exec(request) => exec(request, visit, &services)
            .await
            .map(|fds| (Answer::Exec, fds)),
        Call::Attach(request) => attach(request, visit, &services)
            .await
            .map(|fds| (Answer::Attach, fds)),
        Call::Dial(request) => reach(request, visit, &services)
            .await
            .map(|stream| (Answer::Dialed, vec![stream])),
        // Answered by the connection itself.
        Call::Status | Call::Watch | Call::Listen { .. } => Ok((
            Answer::Status(Box::new(services.status.borrow().clone())),
            Vec::new(),
        )),
    };
    match outcome {
        Ok((ok, fds)) => (
            OwnerFrame::Answer {
                id,
                ok,
                fds: fds.len(),
            },
            fds,
        ),
        Err(fault) => (OwnerFrame::Fault { id, fault }, Vec::new()),
    }
}

/// The port whose socket came with a call.
fn brought(passed: Option<OwnedFd>, guest: u16) -> Result<PortListener, Fault> {
    let refused = |message| Fault::new(Symbol::InvalidArgument, message);
    let socket = passed.ok_or_else(|| refused("the socket of the port did not come with it"))?;
    PortListener::brought(socket, guest)
        .map_err(|error| Fault::from_error(Symbol::InvalidArgument, &error))
}

async fn serve_port(port: PortListener, services: PortServices) {
    let address = port.address;
    info!("{address} leads to port {} of the guest", port.guest);
    if let Err(error) = ports::serve(port, services).await {
        warn!("cannot serve {address}: {error}, ignoring");
    }
}

/// Makes a mark, for good, unless it is there.
async fn note(mark: PathBuf) -> io::Result<()> {
    let noted = move || {
        if mark.exists() {
            return Ok(());
        }
        around(
            "vm.note-secrets",
            |error| error,
            || File::create(&mark)?.sync_all(),
        )?;
        let folder = mark.parent().map(File::open).transpose()?;
        folder.map_or(Ok(()), |folder| folder.sync_all())
    };
    tokio::task::spawn_blocking(noted)
        .await
        .map_err(io::Error::other)?
}

async fn exec(
    request: ExecRequest,
    visit: Option<Visit>,
    services: &Services,
) -> Result<Vec<OwnedFd>, Fault> {
    let Some(visit) = visit else {
        return Err(Fault::new(
            Symbol::InvalidArgument,
            "the command to run is empty",
        ));
    };
    let slot = services.sessions.slot()?;
    if request.has_secrets {
        // Before they are in the guest, whose machine must not be on the disk in clear.
        let mark = services.spec.dir.join(GIVEN_MARK);
        note(mark).await.map_err(|error| {
            let message = format!("it cannot be noted that the guest is given secrets: {error}");
            Fault::new(Symbol::Internal, message)
        })?;
    }
    let link = services.owner.use_guest().await?;
    let (program, tty) = guest::program(&services.spec, request);
    let client = slot
        .begin(link, program, tty, visit)
        .map_err(|error| Fault::from_error(Symbol::Internal, &error))?;
    Ok(client)
}

async fn attach(
    request: AttachRequest,
    visit: Option<Visit>,
    services: &Services,
) -> Result<Vec<OwnedFd>, Fault> {
    let size = request.size.map(guest::tty_size);
    let visit = visit.unwrap_or_else(|| services.doorway.enter_terminal());
    let terminal = services.owner.use_terminal(size).await?;
    terminal.join(size, visit)
}

async fn reach(request: Dial, visit: Option<Visit>, services: &Services) -> Result<OwnedFd, Fault> {
    let visit = visit.unwrap_or_else(|| services.doorway.enter_message());
    dial::connect(request, visit, &services.ports).await
}

async fn write(
    frames: &FrameStream,
    reply: &OwnerFrame,
    fds: &[OwnedFd],
) -> Result<(), ConnectionError> {
    let mut json = serde_json::to_vec(reply).map_err(ConnectionError::Answer)?;
    json.push(b'\n');
    debug_assert!(json.len() <= MAX_FRAME, "answers are short");
    match tokio::time::timeout(WRITE_PATIENCE, frames.write(&json, fds)).await {
        Ok(written) => written.map_err(ConnectionError::Frame),
        Err(_elapsed) => Err(ConnectionError::Unread),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_call_is_answered_and_garbage_is_not() {
        assert!(read_call(br#"{"id":1,"call":"pause"}"#).unwrap().is_ok());
        let OwnerFrame::Fault { id, fault } = read_call(br#"{"id":7,"call":"teleport"}"#)
            .unwrap()
            .unwrap_err()
        else {
            panic!("no fault")
        };
        assert_eq!((id, fault.symbol), (7, Symbol::Unsupported));
        let OwnerFrame::Fault { fault, .. } = read_call(br#"{"id":7,"call":"exec","argv":3}"#)
            .unwrap()
            .unwrap_err()
        else {
            panic!("no fault")
        };
        assert_eq!(fault.symbol, Symbol::InvalidArgument);
        assert!(read_call(b"hello").is_err());
        assert!(read_call(b"").is_err());
    }
}
