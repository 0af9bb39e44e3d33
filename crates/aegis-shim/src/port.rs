//! Being the door of a port: bringing its listening socket to the owner of the VM, which
//! that starts, for as long as there is one.
//!
//! ```text
//!  door                                        aegis-vmm
//!    │ Call::Listen, the socket beside it ─────►│  accepts what comes, and serves it
//!    │ ◄───────────────────────────── (end)     │  the VM has ended
//!    │ somebody waits already: again; nobody: the socket unit listens alone
//! ```
//!
//! No connection passes through here, and none is accepted here but to be broken off
//! where no VM can be had for long.

use std::io::{self, BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use aegis_core::control::{Call, CallFrame, OwnerFrame};
use aegis_core::fault::{Fault, Symbol};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::door::{self, CallError, DoorError, LIVED, LONGEST_PAUSE, PAUSE};

/// How long clients wait where nobody takes the socket: the control socket is closed
/// for a moment while the units of the VM are made anew, and else only by hand.
const PATIENCE: Duration = Duration::from_secs(10);

/// Is the door until nobody waits.
///
/// # Errors
/// There is no socket to stand for.
pub(crate) fn stand(owner: &Path, guest: u16) -> Result<(), DoorError> {
    let socket = door::inherit()?;
    let mut pause = PAUSE;
    let mut refused_since = None;
    while door::waits(&socket) {
        let began = Instant::now();
        match call(&socket, owner, guest) {
            Ok(()) => refused_since = None,
            Err(error) => {
                let since = *refused_since.get_or_insert(began);
                if since.elapsed() > PATIENCE {
                    crate::say(&crate::chain(&error));
                    // Whoever comes next brings another door.
                    return break_off(socket).map_err(DoorError::BreakOff);
                }
            }
        }
        if began.elapsed() > LIVED {
            pause = PAUSE;
        }
        if door::waits(&socket) {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    Ok(())
}

/// Brings the socket and waits for the end of the VM's owner.
fn call(socket: &OwnedFd, owner: &Path, guest: u16) -> Result<(), CallError> {
    let call = CallFrame {
        id: 1,
        call: Call::Listen { guest },
    };
    let stream = door::knock(socket, owner, &line(&call)?)?;
    for answer in BufReader::new(stream).lines() {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(CallError::Wait(error)),
        };
        match serde_json::from_str(&answer) {
            Ok(OwnerFrame::Fault { fault, .. }) => return Err(CallError::Refused(fault)),
            Ok(_) => {}
            Err(error) => return Err(refused(&error)),
        }
    }
    Ok(())
}

fn line(call: &CallFrame) -> Result<Vec<u8>, CallError> {
    let mut line = serde_json::to_vec(call).map_err(|error| refused(&error))?;
    line.push(b'\n');
    Ok(line)
}

fn refused(error: &serde_json::Error) -> CallError {
    CallError::Refused(Fault::from_error(Symbol::Internal, error))
}

/// Resets the connections that wait.
fn break_off(socket: OwnedFd) -> io::Result<()> {
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    while let Ok((client, _)) = listener.accept() {
        reset(&client)?;
    }
    Ok(())
}

/// Has the connection end with RST instead of FIN (socket(7), SO_LINGER).
fn reset(client: &TcpStream) -> io::Result<()> {
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    Ok(setsockopt(client, sockopt::Linger, &at_once)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn port() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.into(), client)
    }

    #[test]
    fn the_socket_is_brought_and_the_end_awaited() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let owner = UnixListener::bind(&path).unwrap();
        let (socket, _client) = port();
        for (answer, is_served) in [
            (r#"{"id":1,"ok":{"outcome":"changed"}}"#, true),
            ("", true),
            (
                r#"{"id":1,"fault":{"symbol":"Unsupported","message":"too old"}}"#,
                false,
            ),
        ] {
            std::thread::scope(|scope| {
                let called = scope.spawn(|| call(&socket, &path, 80));
                let (mut stream, _) = owner.accept().unwrap();
                let mut line = [0; 64];
                let length = stream.read(&mut line).unwrap();
                let asked = "{\"id\":1,\"call\":\"listen\",\"guest\":80}\n";
                assert_eq!(&line[..length], asked.as_bytes());
                stream.write_all(answer.as_bytes()).unwrap();
                drop(stream);
                assert_eq!(called.join().unwrap().is_ok(), is_served, "{answer}");
            });
        }
        assert!(call(&socket, Path::new("/nonexistent"), 80).is_err());
    }

    #[test]
    fn who_waits_in_vain_is_reset() {
        let (socket, mut client) = port();
        assert!(door::waits(&socket));
        break_off(socket).unwrap();
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
