//! Doors: processes that bring the listening socket of one instance, and owners of VMs
//! that bring connections of its guest ([`aegis_core::door`]).
//!
//! Whose door it is, the kernel says: the unit that the peer's process belongs to
//! is the last part of its control group, or with launchd the job whose process it is.
//! In system mode no process of ours can choose that for itself; in user mode any program
//! of the user that is not confined can, and needs no door to do what the user can
//! (SECURITY.md).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::door::{Knock, MAX_KNOCK, REST, WELCOME};
use aegis_core::units::UnitKind;
use aegis_os::descriptors;
use aegis_os::sockets::listens;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{guest, http};
use crate::engine::Engine;
use crate::instance::Instance;
use crate::peer;
use crate::sockets;
use crate::supervisor::UnitId;

/// How long a door may take to say what it stands for.
const KNOCK_PATIENCE: Duration = Duration::from_secs(10);
/// A door that nobody has come through for so long goes to rest; its socket listens
/// on and the next connection brings another door.
const IDLE: Duration = Duration::from_secs(60);
/// Connections of one instance at a time; more wait in the socket's queue.
const CONNECTIONS: usize = 64;
/// Before accepting is tried again after it failed, e.g. for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a door is turned away.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("cannot tell who knocks")]
    Peer(#[source] io::Error),
    #[error("a process that is no door of an instance knocks: {0}")]
    NoDoor(String),
    #[error("the door of '{0}' stands for no instance")]
    NoInstance(String),
    #[error("the door of '{unit}' cannot be understood")]
    Knock {
        unit: String,
        #[source]
        source: io::Error,
    },
    #[error("the door of '{0}' brings another socket than its instance's")]
    Socket(String),
}

/// Lets doors in until aegisd ends.
pub async fn serve(listener: UnixListener, engine: Arc<Engine>) {
    let stand = |stream| stand(stream, engine.clone());
    // Each is of a socket or of a connection of an instance, which are counted there.
    sockets::serve(listener, "a door", Semaphore::MAX_PERMITS, stand).await;
}

async fn stand(mut stream: UnixStream, engine: Arc<Engine>) -> Result<(), Refusal> {
    let supervisor = &*engine.shared().supervisor;
    let unit = peer::unit(&stream, supervisor)
        .await
        .map_err(Refusal::Peer)?;
    let Some(unit) = UnitId::parse(&unit) else {
        return Err(Refusal::NoDoor(unit));
    };
    let instance = engine.get(unit.handle.as_str());
    let instance = instance.map_err(|_| Refusal::NoInstance(unit.name()))?;
    let knocked = timeout(KNOCK_PATIENCE, knock(&stream)).await;
    let knocked = knocked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let not_understood = |source| Refusal::Knock {
        unit: unit.name(),
        source,
    };
    let socket = match (&unit.kind, knocked.map_err(not_understood)?) {
        (UnitKind::Door, (Knock::Api, Some(socket))) => socket,
        (UnitKind::Vm, (Knock::Guest, None)) => {
            let welcomed = stream.write_all(&[WELCOME]).await;
            welcomed.map_err(not_understood)?;
            guest::serve(stream, engine.clone(), instance).await;
            return Ok(());
        }
        _ => return Err(Refusal::NoDoor(unit.name())),
    };
    let path = engine.shared().host.layout.api_socket(instance.handle());
    let listening = listens(&socket);
    let listener = StdListener::from(socket);
    let is_ours = listener
        .local_addr()
        .is_ok_and(|address| address.as_pathname() == Some(&path));
    if !listening || !is_ours {
        return Err(Refusal::Socket(unit.name()));
    }
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .map_err(not_understood)?;
    if serve_door(&listener, &mut stream, &engine, &instance).await {
        // The door looks for itself whether somebody came meanwhile.
        drop(listener);
        drop(stream.write_all(&[REST]).await);
    }
    Ok(())
}

/// Serves what comes through a door; returns whether it may rest.
async fn serve_door(
    listener: &UnixListener,
    door: &mut UnixStream,
    engine: &Arc<Engine>,
    instance: &Instance,
) -> bool {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // They end with the door: then the instance is disabled or deleted.
    let mut open = JoinSet::new();
    let mut byte = [0];
    loop {
        let was_idle = open.is_empty();
        let idle = async {
            match was_idle {
                true => tokio::time::sleep(IDLE).await,
                false => drop(open.join_next().await),
            }
        };
        let next = async {
            let permit = room.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await, permit))
        };
        tokio::select! {
            biased;
            // Doors say nothing more: this is the end of one.
            _ = door.read(&mut byte) => return false,
            next = next => match next {
                None => return false,
                Some((Ok((stream, _)), permit)) => {
                    let served = http::serve(stream, engine.clone(), instance.clone());
                    open.spawn(async move {
                        served.await;
                        drop(permit);
                    });
                }
                Some((Err(error), _)) => {
                    tracing::warn!("cannot accept a daemon's connection: {error}, ignoring");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            () = idle => if was_idle {
                return true;
            },
        }
    }
}

/// Reads what a door says, and the socket that it brings, if it does.
async fn knock(stream: &UnixStream) -> io::Result<(Knock, Option<OwnedFd>)> {
    let mut line = [0; MAX_KNOCK];
    let (length, mut passed) = stream
        .async_io(Interest::READABLE, || {
            // Room for one more than there may be, so that it is seen.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = descriptors::RECEIVE | RecvFlags::DONTWAIT;
            let mut parts = [IoSliceMut::new(&mut line)];
            let received = recvmsg(stream, &mut parts, &mut ancillary, flags)?;
            let mut passed = Vec::new();
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    for descriptor in rights {
                        passed.push(descriptors::keep(descriptor)?);
                    }
                }
            }
            Ok((received.bytes, passed))
        })
        .await?;
    let knock = serde_json::from_slice(&line[..length])?;
    let socket = passed.pop();
    match passed.is_empty() {
        true => Ok((knock, socket)),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it brings more than one socket",
        )),
    }
}
