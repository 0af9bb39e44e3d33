//! Connections of programs in the guest to the API of their instance.
//!
//! ```text
//!  program ──127.0.0.1:7777──► harness ──stream of the link──► here ──► aegisd
//! ```
//!
//! Nothing of what they say is read here: aegisd serves them, and the kernel tells it
//! whose VM it is ([`aegis_core::door`]). While there is no aegisd a connection waits
//! in its socket's queue.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::door::{Knock, WELCOME};
use aegis_link::LinkStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use crate::doorway::Visit;

/// Requests at a time; more are broken off, since a guest could open any number.
const MAX_REQUESTS: usize = 32;

/// How long aegisd may take to let a connection in; it may have to be started.
const PATIENCE: Duration = Duration::from_secs(60);

/// Room for the requests of a VM.
#[derive(Clone, Debug)]
pub struct Requests {
    slots: Arc<Semaphore>,
}

impl Requests {
    pub fn new() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_REQUESTS)),
        }
    }

    /// Carries a connection to aegisd's socket in a task of its own. The visit lasts as
    /// long as it does. Dropping the stream breaks it off, which the program sees.
    pub fn carry(&self, mut stream: LinkStream, aegisd: &Path, visit: Visit) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return;
        };
        let aegisd = aegisd.to_owned();
        tokio::spawn(async move {
            let carried = async {
                let knocked = timeout(PATIENCE, knock(&aegisd)).await;
                let mut connection = knocked.map_err(io::Error::from)??;
                copy_bidirectional(&mut stream, &mut connection).await
            };
            if let Err(error) = carried.await {
                debug!("a request of the guest was broken off: {error}");
            }
            drop((visit, slot));
        });
    }
}

impl Default for Requests {
    fn default() -> Self {
        Self::new()
    }
}

async fn knock(aegisd: &Path) -> io::Result<UnixStream> {
    let mut connection = UnixStream::connect(aegisd).await?;
    connection.write_all(&Knock::Guest.to_line()).await?;
    match connection.read_u8().await? {
        WELCOME => Ok(connection),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
