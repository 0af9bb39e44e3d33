//! aegisd's own listening sockets. The service manager holds them and passes them
//! on (sd_listen_fds(3)), so that any use of them starts aegisd; where it passes
//! none they are made here and are there as long as aegisd is.

use std::error::Error;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aegis_core::layout::Layout;
use listenfd::ListenFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::effects;

/// Before accepting is tried again after it failed, e.g. for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error(
        "the descriptor {index} that the service manager passed is not a listening unix socket"
    )]
    Inherited {
        index: usize,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on {path}")]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Sockets {
    /// Units' credentials are asked for here.
    pub credentials: UnixListener,
    /// Doors bring their sockets here.
    pub doors: UnixListener,
    /// Clients without a bus come here. Nobody else holds it: a client that has no bus
    /// has no way to a service manager either that starts aegisd.
    pub peers: UnixListener,
}

impl Sockets {
    /// Takes what was passed and makes the rest. To be called once, in a runtime.
    ///
    /// # Errors
    /// What was passed is something else, or a socket cannot be made.
    pub fn take(layout: &Layout) -> Result<Self, SocketError> {
        let mut inherited = inherit()?;
        let own = |path: PathBuf, listener: io::Result<StdListener>| {
            let listener = listener.and_then(|listener| {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener)
            });
            listener.map_err(|source| SocketError::Listen { path, source })
        };
        let mut take = |path: PathBuf| {
            let found = inherited.iter().position(|listener| is_at(listener, &path));
            let listener = match found {
                Some(index) => Ok(inherited.swap_remove(index)),
                None => {
                    tracing::info!(
                        "the service manager passed no {}: it is there as long as aegisd is",
                        path.display()
                    );
                    listen(&path)
                }
            };
            own(path, listener)
        };
        let peers = layout.peer_socket();
        Ok(Self {
            credentials: take(layout.credentials_socket())?,
            doors: take(layout.door_socket())?,
            peers: own(peers.clone(), listen(&peers))?,
        })
    }
}

/// Has whoever connects attended to, `at_once` of them at a time, until aegisd ends; more
/// wait in the socket's queue. `who` names them in the log.
pub async fn serve<F, E>(
    listener: UnixListener,
    who: &'static str,
    at_once: usize,
    attend: impl Fn(UnixStream) -> F,
) where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Error + 'static,
{
    let room = Arc::new(Semaphore::new(at_once));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let attended = attend(stream);
                tokio::spawn(async move {
                    if let Err(refusal) = attended.await {
                        let words = aegis_core::fault::chain(&refusal);
                        tracing::warn!("{who} is turned away: {words}");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept {who}: {error}, ignoring");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn inherit() -> Result<Vec<StdListener>, SocketError> {
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let listener = passed.take_unix_listener(index);
        listeners.extend(listener.map_err(|source| SocketError::Inherited { index, source })?);
    }
    Ok(listeners)
}

/// Names of descriptors are the unit files' business; the address says what it is.
fn is_at(listener: &StdListener, path: &Path) -> bool {
    listener
        .local_addr()
        .is_ok_and(|address| address.as_pathname() == Some(path))
}

fn listen(path: &Path) -> io::Result<StdListener> {
    match effects::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(path)?;
    effects::protect(path, 0o600)?;
    Ok(listener)
}
