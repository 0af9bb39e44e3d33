//! The API of the instance, where programs in the guest find it: connections to a port
//! of 127.0.0.1, each carried to the host on a stream of the link. Nothing of what they
//! say is read here.

use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use aegis_link::message::Event;
use aegis_link::{Handle, LinkStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::valve::Valve;

/// Connections at a time, as many as the host takes; more wait in the kernel's queue.
const CONNECTIONS: usize = 32;

/// Pause after an accept that failed for want of memory.
const RETRY: Duration = Duration::from_millis(100);

/// Listens, so that a program that is started next finds it.
///
/// # Errors
/// The port is taken.
pub(crate) fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Carries connections as long as the guest runs. While the guest is being saved they
/// wait: the kernel keeps them, and a restored guest finds them.
pub(crate) async fn serve(listener: TcpListener, link: Handle, valve: Valve) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&room).acquire_owned().await else {
            // Nobody closes the semaphore.
            return;
        };
        valve.opened().await;
        let accepted = tokio::select! {
            biased;
            () = valve.shutting() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((connection, _)) = accepted else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        // The host has heard of it before it is told that the guest is suspended.
        let held = valve.hold();
        let stream = announce(&link);
        drop(held);
        tokio::spawn(async move {
            carry(connection, stream).await;
            drop(slot);
        });
    }
}

fn announce(link: &Handle) -> Option<LinkStream> {
    let stream = link.open().ok()?;
    link.send_event(Event::Api {
        stream: stream.id(),
    });
    Some(stream)
}

/// Carries one connection. One that is broken off must not look as if it had ended well.
async fn carry(mut connection: TcpStream, stream: Option<LinkStream>) {
    connection.set_nodelay(true).ok();
    let copied = match stream {
        Some(mut stream) => tokio::io::copy_bidirectional(&mut connection, &mut stream).await,
        None => Err(io::ErrorKind::ConnectionReset.into()),
    };
    if copied.is_err() {
        connection.set_zero_linger().ok();
    }
}
