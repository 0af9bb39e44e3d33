//! Connections of aegisd to programs in the guest: messages are brought this way.
//!
//! A program that does not listen yet is waited for, and keeps the VM awake meanwhile:
//! somebody wants something of it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use aegis_core::control::Dial;
use aegis_core::fault::{Fault, Symbol};
use tokio::io::copy_bidirectional;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tracing::debug;

use crate::doorway::Visit;
use crate::guest;
use crate::ports::{CarryError, PortServices};

/// The longest that a program is waited for.
const MAX_PATIENCE: Duration = Duration::from_secs(600);

/// Connects, and returns the caller's end. The visit lasts as long as the connection.
///
/// # Errors
/// There is no guest, or nothing listens there.
pub async fn connect(
    request: Dial,
    visit: Visit,
    services: &PortServices,
) -> Result<OwnedFd, Fault> {
    let patience = Duration::from_millis(request.patience_ms).min(MAX_PATIENCE);
    // From the moment that the guest runs.
    services.owner.visit_guest().await?;
    let dialed = services.dial(request.guest, Instant::now() + patience);
    let mut stream = dialed.await.map_err(fault)?;
    let pair = StdUnixStream::pair().and_then(|(ours, theirs)| {
        ours.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, theirs))
    });
    let (mut ours, theirs) = pair.map_err(|error| Fault::from_error(Symbol::Internal, &error))?;
    tokio::spawn(async move {
        if let Err(error) = copy_bidirectional(&mut ours, &mut stream).await {
            debug!("a connection to the guest broke: {error}");
        }
        drop(visit);
    });
    Ok(theirs.into())
}

fn fault(error: CarryError) -> Fault {
    match error {
        CarryError::NoGuest(fault) => fault,
        CarryError::Dial(error) => guest::call_fault(&error),
        error @ (CarryError::Prepare(_) | CarryError::Copy(_)) => {
            Fault::from_error(Symbol::Internal, &error)
        }
    }
}
