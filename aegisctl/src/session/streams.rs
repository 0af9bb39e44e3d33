//! The byte streams of a session: one thread and one buffer each.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::sync::oneshot;

use super::detach::Watcher;
use crate::failure::Failure;

/// As much as a pipe holds (pipe(7)): a larger buffer would not be filled.
const BUFFER: usize = 64 * 1024;

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PumpEnd {
    /// Everything was copied.
    Complete,
    /// The other end of what is written to is closed.
    NobodyReads,
    /// Reading or writing failed.
    Failed,
}

/// A copy that a thread makes.
#[derive(Debug)]
pub(super) struct Pump {
    outcome: Option<oneshot::Receiver<io::Result<()>>>,
    error: Option<io::Error>,
}

impl Pump {
    /// Waits for the end of the copy. Can be dropped and called again until
    /// [`Self::is_over`].
    pub(super) async fn ended(&mut self) -> PumpEnd {
        let outcome = match &mut self.outcome {
            None => return PumpEnd::Complete,
            // The sender is only dropped unused if the thread panicked.
            Some(outcome) => outcome.await.unwrap_or(Err(ErrorKind::Other.into())),
        };
        self.outcome = None;
        match outcome {
            Ok(()) => PumpEnd::Complete,
            Err(error) if error.kind() == ErrorKind::BrokenPipe => PumpEnd::NobodyReads,
            Err(error) => {
                self.error = Some(error);
                PumpEnd::Failed
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.outcome.is_none()
    }

    /// Why it ended as [`PumpEnd::Failed`].
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }
}

/// A descriptor of our own for a standard stream.
pub(super) fn own(stream: impl AsFd) -> Result<OwnedFd, Failure> {
    let own = stream.as_fd().try_clone_to_owned();
    own.map_err(|source| Failure::Io {
        what: "use the standard streams",
        source,
    })
}

/// Copies from the session to one of our streams.
pub(super) fn forward(name: &str, from: OwnedFd, to: OwnedFd) -> Result<Pump, Failure> {
    block(&from)?;
    let (sender, outcome) = oneshot::channel();
    spawn(name, move || {
        let copied = copy(&mut File::from(from), &mut File::from(to));
        // The session may have been given up.
        sender.send(copied).ok();
    })?;
    Ok(Pump {
        outcome: Some(outcome),
        error: None,
    })
}

/// Copies our stdin to the session and ends it there when it ends here. Nobody
/// waits for it: a command may end without having read it all. Where keys are
/// watched for, the receiver hears of them.
pub(super) fn forward_stdin(
    to: OwnedFd,
    watcher: Option<Watcher>,
) -> Result<oneshot::Receiver<()>, Failure> {
    block(&to)?;
    let from = own(io::stdin())?;
    let (tell, typed) = oneshot::channel();
    spawn("stdin", move || {
        let mut to = File::from(to);
        let mut from = File::from(from);
        // A stdin that cannot be read is at its end; that nobody reads what is
        // written is the command's choice.
        match watcher {
            None => copy(&mut from, &mut to).ok(),
            Some(watcher) => match copy_until_keys(&mut from, &mut to, watcher) {
                // The session may have ended by itself.
                Ok(true) => tell.send(()).ok(),
                Ok(false) | Err(_) => None,
            },
        };
        // Where the descriptor is a socket that is also read from, closing it is not enough.
        shutdown(to.as_raw_fd(), Shutdown::Write).ok();
    })?;
    Ok(typed)
}

/// Threads copy with blocking calls; whoever made the descriptor may not have.
pub(super) fn block(descriptor: &OwnedFd) -> Result<(), Failure> {
    let cleared = fcntl(descriptor, FcntlArg::F_GETFL).and_then(|flags| {
        let flags = OFlag::from_bits_retain(flags) - OFlag::O_NONBLOCK;
        fcntl(descriptor, FcntlArg::F_SETFL(flags))
    });
    cleared.map(|_| ()).map_err(|errno| Failure::Io {
        what: "use the streams of the session",
        source: errno.into(),
    })
}

pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(|_| ()).map_err(|source| Failure::Io {
        what: "start a thread",
        source,
    })
}

/// Copies what is typed; whether the keys came before its end.
fn copy_until_keys(from: &mut File, to: &mut File, mut watcher: Watcher) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) => {
                wait_if_would_block(from, PollFlags::POLLIN, error)?;
                continue;
            }
        };
        let typed = watcher.filter(&buffer[..count]);
        write_all(to, &typed.bytes)?;
        if typed.detach {
            return Ok(true);
        }
    }
}

fn copy(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) => {
                wait_if_would_block(from, PollFlags::POLLIN, error)?;
                continue;
            }
        };
        write_all(to, &buffer[..count])?;
    }
}

fn write_all(to: &mut File, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) => wait_if_would_block(to, PollFlags::POLLOUT, error)?,
        }
    }
    Ok(())
}

/// Our standard streams are shared with other processes, which may have made
/// them non-blocking; that is not for us to change.
fn wait_if_would_block(file: &File, flags: PollFlags, error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock => {
            let mut wanted = [PollFd::new(file.as_fd(), flags)];
            match poll(&mut wanted, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::pipe;

    #[tokio::test]
    async fn everything_arrives_even_through_streams_that_do_not_block() {
        let (from, mut source) = pipe().unwrap();
        let (mut sink, to) = pipe().unwrap();
        let to = OwnedFd::from(to);
        fcntl(&to, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut pump = forward("test", from.into(), to).unwrap();
        let data: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let sent = data.clone();
        let writer = thread::spawn(move || source.write_all(&sent).unwrap());
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            sink.read_to_end(&mut received).unwrap();
            received
        });
        assert_eq!(pump.ended().await, PumpEnd::Complete);
        assert!(pump.is_over());
        writer.join().unwrap();
        assert!(reader.join().unwrap() == data);
    }

    #[tokio::test]
    async fn a_reader_that_left_is_no_failure() {
        let (from, mut source) = pipe().unwrap();
        let (sink, to) = pipe().unwrap();
        drop(sink);
        let mut pump = forward("test", from.into(), to.into()).unwrap();
        source.write_all(b"x").unwrap();
        assert_eq!(pump.ended().await, PumpEnd::NobodyReads);
        assert!(pump.take_error().is_none());
    }
}
