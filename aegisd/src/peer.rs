//! Who is at the other end of a local socket.

use std::io;

use tokio::net::UnixStream;

use crate::supervisor::Supervisor;

/// The name of the unit that the peer's process belongs to, as the kernel tells the
/// process and the service manager the unit; empty where it is in none.
///
/// # Errors
/// The process is gone, or hidden.
pub(crate) async fn unit(stream: &UnixStream, supervisor: &dyn Supervisor) -> io::Result<String> {
    let pid = stream.peer_cred()?.pid();
    let pid = pid.and_then(|pid| u32::try_from(pid).ok());
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    supervisor.place(pid).await.map_err(io::Error::other)
}
