//! Exposed ports: connections of the host carried to 127.0.0.1 in the guest.
//!
//! Connections that arrive while the VM starts wait, also for the command to
//! listen: the guest is ready before its programs are. Those of a VM that cannot
//! start are reset. While the VM ends none is accepted: they stay in the kernel's
//! queue for the next one.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use aegis_core::control::CommandState;
use aegis_core::fault::Fault;
use aegis_link::message::Symbol;
use aegis_link::{CallError, LinkStream};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::activation::{PortListener, Queues};
use crate::doorway::{Doorway, Gate, Visit};
use crate::owner::OwnerHandle;
use crate::status::StatusWatch;

/// Connections of all ports at a time; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 512;

/// Bytes a connection carries at a time and direction. The link has a window per
/// stream besides; much more gives no more speed.
const BUFFER: usize = 16 * 1024;

/// Pause after an accept that failed for want of descriptors or memory.
const RETRY: Duration = Duration::from_millis(100);

/// How long after the owner's start a program in the guest may take to listen. A
/// port that refuses later is refused to the client at once.
const WARM_UP: Duration = Duration::from_secs(30);

/// Between two dials of a port that nothing listens on yet.
const REDIAL: Duration = Duration::from_millis(100);

/// What the listeners of a VM share.
#[derive(Clone, Debug)]
pub struct PortServices {
    pub owner: OwnerHandle,
    pub doorway: Arc<Doorway>,
    pub slots: Arc<Semaphore>,
    /// Until when a refusal means that a program has not begun to listen.
    pub warm: Instant,
    pub status: StatusWatch,
    pub queues: Queues,
}

impl PortServices {
    pub fn new(
        owner: OwnerHandle,
        doorway: Arc<Doorway>,
        status: StatusWatch,
        queues: Queues,
    ) -> Self {
        Self {
            owner,
            doorway,
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            warm: Instant::now() + WARM_UP,
            status,
            queues,
        }
    }

    /// Connects to a program in the guest; one that does not listen yet is waited for
    /// until `warm`, unless the command has ended.
    pub(crate) async fn dial(&self, port: u16, warm: Instant) -> Result<LinkStream, CarryError> {
        loop {
            let link = self.owner.visit_guest().await;
            let link = link.map_err(CarryError::NoGuest)?;
            let is_over = matches!(self.status.borrow().command, CommandState::Ended(_));
            match link.dial(port).await {
                Err(error) if is_refusal(&error) && !is_over && Instant::now() < warm => {
                    tokio::time::sleep(REDIAL).await;
                }
                dialed => return dialed.map_err(CarryError::Dial),
            }
        }
    }
}

/// Why a connection was reset.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CarryError {
    #[error("the connection cannot be prepared")]
    Prepare(#[source] io::Error),
    #[error("there is no guest to serve it")]
    NoGuest(#[source] Fault),
    #[error("the guest does not take it")]
    Dial(#[source] CallError),
    #[error("one side broke it off")]
    Copy(#[source] io::Error),
}

/// Serves one port until it is dropped; its connections go on.
///
/// # Errors
/// When the listener cannot be watched.
pub async fn serve(port: PortListener, services: PortServices) -> io::Result<()> {
    let _watched = services.queues.watch(&port)?;
    let listener = TcpListener::from_std(port.listener)?;
    let mut gate = services.doorway.gate();
    let mut is_short = false;
    loop {
        let Ok(slot) = Arc::clone(&services.slots).acquire_owned().await else {
            // Nobody closes the semaphore.
            return Ok(());
        };
        if gate.wait_for(|gate| *gate == Gate::Open).await.is_err() {
            return Ok(());
        }
        let accept =
            |cx: &mut Context<'_>| services.doorway.poll_accept(|| listener.poll_accept(cx));
        match poll_fn(accept).await {
            Ok(Some(((client, _), visit))) => {
                is_short = false;
                let services = services.clone();
                tokio::spawn(async move {
                    serve_client(client, port.guest, &services, visit).await;
                    drop(slot);
                });
            }
            // The gate has just been closed.
            Ok(None) => {}
            Err(error) => {
                // Once, and not at each try: clients wait in the queue meanwhile.
                if !std::mem::replace(&mut is_short, true) {
                    let address = port.address;
                    warn!("cannot accept on {address}: {error}, trying again until it goes");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Carries one connection. Whatever goes wrong, the client is reset: it must not
/// take a broken connection for one that ended well.
async fn serve_client(mut client: TcpStream, port: u16, services: &PortServices, visit: Visit) {
    if let Err(why) = carry(&mut client, port, services).await {
        debug!(
            error = &why as &dyn std::error::Error,
            "a connection was reset"
        );
        reset(client);
    }
    drop(visit);
}

async fn carry(
    client: &mut TcpStream,
    port: u16,
    services: &PortServices,
) -> Result<(), CarryError> {
    client.set_nodelay(true).map_err(CarryError::Prepare)?;
    // A client on another machine that vanishes must not keep the VM awake.
    setsockopt(client, sockopt::KeepAlive, &true)
        .map_err(|errno| CarryError::Prepare(errno.into()))?;
    let mut stream = services.dial(port, services.warm).await?;
    copy_bidirectional_with_sizes(client, &mut stream, BUFFER, BUFFER)
        .await
        .map(drop)
        .map_err(CarryError::Copy)
}

/// Whether nothing listens on the port.
fn is_refusal(error: &CallError) -> bool {
    matches!(error, CallError::Fault(fault) if fault.symbol == Symbol::ConnectionRefused)
}

/// Closes with RST instead of FIN (socket(7), SO_LINGER).
fn reset(client: TcpStream) {
    if let Err(error) = client.set_zero_linger() {
        debug!("cannot reset a connection: {error}, ignoring");
    }
    drop(client);
}
