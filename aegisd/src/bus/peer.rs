//! Clients without a bus: the same objects, D-Bus peer to peer, on a socket of aegisd's
//! own. macOS has no bus; on Linux it serves who has none, in a container or over ssh.
//!
//! ```text
//!  client ──connect──► whose? ──► handshake (EXTERNAL) ──► objects of its own ──► signals
//!                       │          10 s                      │                    until it
//!                       └ not ours: closed                   └ calls              leaves or
//!                                                                                 does not read
//! ```
//!
//! | of a bus | here |
//! |---|---|
//! | names, match rules | there are none: every signal goes to every client |
//! | who calls | the user of the peer, as the kernel tells it (unix(7), `SO_PEERCRED`; getpeereid(3)) |
//! | the caller has left the bus | the connection is closed |
//! | polkit | nobody but the user of aegisd comes in, and root's aegisd takes root alone |
//!
//! A client has a task, an object server and a count of what it was told: one that does
//! not read holds up nobody else, and is cut off.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use zbus::connection::Builder;
use zbus::{Connection, Guid};

use super::Service;
use super::access::Gate;
use super::objects::Publisher;
use crate::caller::{Caller, Sees};
use crate::engine::Engine;
use crate::sockets;

/// Clients at a time; more wait in the socket's queue. Each has all objects, about a
/// kilobyte for an instance.
const CLIENTS: usize = 128;
/// How long a client may take for the handshake, which is three lines from each side.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may leave its signals unread once its socket is full. People stop a
/// client in their terminal and go on with it; what it missed it has to read anew then.
const UNREAD: Duration = Duration::from_secs(60);

/// Why a client is turned away or cut off.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("cannot tell who it is")]
    Peer(#[source] io::Error),
    #[error("the user {0} runs it, not the user of aegisd")]
    User(u32),
    #[error("it said nothing for {secs} s", secs = HANDSHAKE.as_secs())]
    Silent,
    #[error("it did not greet as D-Bus clients do")]
    Handshake(#[source] zbus::Error),
    #[error("it left its signals unread for {secs} s", secs = UNREAD.as_secs())]
    Unread,
}

/// Serves clients until aegisd ends.
pub async fn serve(listener: UnixListener, engine: Arc<Engine>) {
    let attend = |stream| attend(stream, engine.clone());
    sockets::serve(listener, "a client without a bus", CLIENTS, attend).await;
}

/// Serves a client until it leaves.
async fn attend(stream: UnixStream, engine: Arc<Engine>) -> Result<(), Refusal> {
    let user = stream.peer_cred().map_err(Refusal::Peer)?.uid();
    if user != rustix::process::geteuid().as_raw() {
        return Err(Refusal::User(user));
    }
    let stream = stream.into_std().map_err(Refusal::Peer)?;
    let service = Service::new(engine, Gate::open());
    let mut publisher = Publisher::new(service.clone());
    // One for each connection, which also names its client.
    let guid = Guid::generate();
    let builder = Builder::unix_stream(stream).server(guid).p2p();
    let builder = publisher.begin(service.serve(builder));
    let connection = timeout(HANDSHAKE, builder.build()).await;
    let connection = connection
        .map_err(|_| Refusal::Silent)?
        .map_err(Refusal::Handshake)?;
    let told = tokio::select! {
        () = connection.closed() => Ok(()),
        told = tell(&connection, publisher) => told,
    };
    // It never fails but where it is closed already.
    drop(connection.close().await);
    told
}

/// Tells a client every change; ends with its connection.
async fn tell(connection: &Connection, mut publisher: Publisher) -> Result<(), Refusal> {
    loop {
        match timeout(UNREAD, publisher.tell(connection)).await {
            Ok(Ok(())) => {}
            // It has gone.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(Refusal::Unread),
        }
        if !publisher.changed().await {
            return Ok(());
        }
    }
}

/// The client at the other end of a connection.
///
/// # Errors
/// The kernel does not tell whose it is.
pub(super) async fn caller(connection: &Connection) -> zbus::Result<Caller> {
    let peer = connection.peer_creds().await?;
    Ok(Caller {
        bus_name: Some(format!("peer {}", connection.server_guid())),
        uid: peer.unix_user_id(),
        sees: Sees::All,
    })
}
