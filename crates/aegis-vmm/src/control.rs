//! The control socket: who may connect, and how many at a time.
//!
//! ```text
//!  aegisd ──► listener ──► connection (a task each) ──mailbox──► owner
//!                              ├─ listen ► port (a task each)
//!                              └─ exec ──► session (a task each) ──link──► guest
//! ```
//!
//! Connections go on being accepted while the VM stops, so that whoever asks
//! hears about it.

pub mod connection;
pub mod frames;
mod look;

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::fault::chain;
use aegis_core::spec::MAX_PORTS;
use nix::unistd::geteuid;
use tokio::sync::Semaphore;
use tracing::warn;

use connection::Services;

/// Connections at a time: a door for each port, and as many for aegisd, which holds one
/// or two, and for people.
pub const MAX_CONNECTIONS: usize = 2 * MAX_PORTS;

/// Pause after an accept that failed for want of descriptors or memory.
const RETRY: Duration = Duration::from_millis(100);

/// Serves the control socket until it is dropped.
///
/// # Errors
/// When the listener cannot be watched.
pub async fn serve(listener: UnixListener, services: Services) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            // Nobody closes the semaphore.
            return Ok(());
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("cannot accept on the control socket: {error}, ignoring");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if may_control(peer.uid()) => {}
            Ok(peer) => {
                warn!("user {} may not control this VM, ignoring", peer.uid());
                continue;
            }
            Err(error) => {
                warn!("cannot tell who connects: {error}, ignoring");
                continue;
            }
        }
        let services = services.clone();
        tokio::spawn(async move {
            if let Err(error) = connection::serve(stream, services).await {
                warn!("a control connection ended: {}, ignoring", chain(&error));
            }
            drop(slot);
        });
    }
}

/// The socket's mode (0600) keeps others out already; this holds where somebody
/// passed a connected descriptor on.
fn may_control(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}
