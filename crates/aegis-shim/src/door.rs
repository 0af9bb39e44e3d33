//! Being the door of an instance: bringing its API socket to aegisd, again whenever
//! aegisd is another one, until nobody needs it.
//!
//! Connections never pass through here. They wait in the queue of the listening
//! socket, of which the service manager, this process and aegisd have a descriptor
//! each, so none is lost while there is no aegisd.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aegis_core::door::{Knock, REST};
use aegis_core::fault::Fault;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::sockets::Sockets;

/// That nobody is at the other end is an error, not a signal.
#[cfg(target_os = "linux")]
const NO_SIGNAL: MsgFlags = MsgFlags::MSG_NOSIGNAL;
/// macOS has no flag for it: Rust's runtime ignores the signal.
#[cfg(not(target_os = "linux"))]
const NO_SIGNAL: MsgFlags = MsgFlags::empty();

/// Before aegisd is called again, which the service manager starts for the first
/// call. Each call that ends at once doubles it.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// An aegisd that lived so long did not end at once.
pub(crate) const LIVED: Duration = Duration::from_secs(5);

/// Why there is no door.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    #[error("cannot read the list of inherited sockets")]
    Inherited(#[source] io::Error),
    #[error("a door is started by its socket unit, which passes it one socket; it passed {0}")]
    Sockets(usize),
    #[error("cannot break off the connections that wait")]
    BreakOff(#[source] io::Error),
}

/// Why whom a door calls was not reached this time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("cannot connect to {path}")]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot pass the socket on")]
    Pass(#[source] nix::errno::Errno),
    #[error("cannot wait for an answer")]
    Wait(#[source] io::Error),
    #[error("the port is refused: {0}")]
    Refused(Fault),
}

/// How a call of aegisd ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Nobody has used the socket for a while.
    Rest,
    /// aegisd is gone.
    Gone,
}

/// Is the door until it may rest.
///
/// # Errors
/// There is no socket to stand for.
pub(crate) fn stand(aegisd: &Path) -> Result<(), DoorError> {
    let socket = inherit()?;
    let mut last = String::new();
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        match call(&socket, aegisd) {
            // A connection that came at this moment is not left behind: the service
            // manager would only start another door for it.
            Ok(End::Rest) if !waits(&socket) => return Ok(()),
            Ok(_) => last.clear(),
            Err(error) => {
                // The same trouble once, not at each call.
                let words = crate::chain(&error);
                if words != last {
                    crate::say(&words);
                    last = words;
                }
            }
        }
        if began.elapsed() > LIVED {
            pause = PAUSE;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Brings the socket and waits for how it ends.
fn call(socket: &OwnedFd, aegisd: &Path) -> Result<End, CallError> {
    let mut stream = knock(socket, aegisd, &Knock::Api.to_line())?;
    let mut word = [0];
    loop {
        return match stream.read(&mut word) {
            Ok(1) if word == [REST] => Ok(End::Rest),
            Ok(_) => Ok(End::Gone),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(End::Gone),
            Err(error) => Err(CallError::Wait(error)),
        };
    }
}

/// Connects, and sends a line with a descriptor of the socket beside it.
pub(crate) fn knock(socket: &OwnedFd, at: &Path, line: &[u8]) -> Result<UnixStream, CallError> {
    let stream = UnixStream::connect(at).map_err(|source| CallError::Connect {
        path: at.to_owned(),
        source,
    })?;
    let passed = [socket.as_raw_fd()];
    // The line is far shorter than any socket's buffer, so it goes whole.
    sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(line)],
        &[ControlMessage::ScmRights(&passed)],
        NO_SIGNAL,
        None,
    )
    .map_err(CallError::Pass)?;
    Ok(stream)
}

/// Whether a connection waits. A poll that fails counts as one.
pub(crate) fn waits(socket: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
}

/// The one socket that this door stands for.
pub(crate) fn inherit() -> Result<OwnedFd, DoorError> {
    let passed = Sockets::take().map_err(DoorError::Inherited)?.into_inner();
    let [socket] =
        <[OwnedFd; 1]>::try_from(passed).map_err(|passed| DoorError::Sockets(passed.len()))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_socket_arrives_and_the_answer_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aegisd.sock");
        let aegisd = UnixListener::bind(&path).unwrap();
        let api = UnixListener::bind(folder.path().join("api.sock")).unwrap();
        let socket = OwnedFd::from(api);
        for (answer, end) in [(&[REST][..], End::Rest), (&[], End::Gone)] {
            std::thread::scope(|scope| {
                let called = scope.spawn(|| call(&socket, &path).unwrap());
                let (mut stream, _) = aegisd.accept().unwrap();
                let mut line = [0; 64];
                let length = stream.read(&mut line).unwrap();
                assert_eq!(&line[..length], Knock::Api.to_line());
                io::Write::write_all(&mut stream, answer).unwrap();
                drop(stream);
                assert_eq!(called.join().unwrap(), end);
            });
        }
        assert!(!waits(&socket));
        let _client = UnixStream::connect(folder.path().join("api.sock")).unwrap();
        assert!(waits(&socket));
        assert!(call(&socket, Path::new("/nonexistent")).is_err());
    }
}
