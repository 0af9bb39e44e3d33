//! The control stream of an exec session: newline-delimited JSON, described in
//! `aegis_core::control`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use aegis_core::control::{ExecEvent, ExecInput, MAX_FRAME};
use aegis_core::fault::{Fault, Symbol, chain};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::failure::Failure;

/// Our end of the control stream.
#[derive(Debug)]
pub(super) struct Control {
    events: BufReader<OwnedReadHalf>,
    inputs: OwnedWriteHalf,
    /// What has been read of the next event; kept here, so that a dropped
    /// [`Self::next`] loses nothing.
    line: Vec<u8>,
}

impl Control {
    pub(super) fn new(socket: OwnedFd) -> Result<Self, Failure> {
        let socket = StdUnixStream::from(socket);
        let socket = socket
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(socket));
        let (events, inputs) = socket
            .map_err(|source| Failure::Io {
                what: "use the control stream of the session",
                source,
            })?
            .into_split();
        Ok(Self {
            events: BufReader::new(events),
            inputs,
            line: Vec::new(),
        })
    }

    /// The next event; `None` when the owner is gone. Can be dropped and called
    /// again.
    ///
    /// # Errors
    /// An event that is none.
    pub(super) async fn next(&mut self) -> Result<Option<ExecEvent>, Failure> {
        let room = MAX_FRAME - self.line.len();
        let room = u64::try_from(room).unwrap_or(u64::MAX);
        let read = (&mut self.events)
            .take(room)
            .read_until(b'\n', &mut self.line)
            .await;
        if self.line.last() != Some(&b'\n') {
            // Its end, or a reset: either way there is nobody on the other side.
            return match read {
                Ok(_) if self.line.len() == MAX_FRAME => Err(violation("an event without an end")),
                _ => Ok(None),
            };
        }
        let event = serde_json::from_slice(&self.line);
        self.line.clear();
        event.map(Some).map_err(|error| violation(&chain(&error)))
    }

    /// Sends an input. If the owner is gone, [`Self::next`] says so.
    pub(super) async fn send(&mut self, input: &ExecInput) {
        let Ok(mut line) = serde_json::to_vec(input) else {
            return;
        };
        line.push(b'\n');
        // Reported by the reading side.
        self.inputs.write_all(&line).await.ok();
    }
}

fn violation(reason: &str) -> Failure {
    Failure::Exec(Fault::new(
        Symbol::Internal,
        format!("the control stream of the session is not understood: {reason}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pair() -> (Control, StdUnixStream) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        (Control::new(ours.into()).unwrap(), theirs)
    }

    #[tokio::test]
    async fn events_are_read_in_pieces_and_the_end_is_seen() {
        let (mut control, mut owner) = pair();
        owner.write_all(b"{\"started\":{}}\n{\"exited\":").unwrap();
        assert_eq!(control.next().await.unwrap(), Some(ExecEvent::Started {}));
        // Dropped while half an event is there.
        tokio::select! {
            biased;
            event = control.next() => panic!("{event:?}"),
            () = tokio::task::yield_now() => {}
        }
        owner.write_all(b"{\"code\":3}}\n").unwrap();
        assert_eq!(
            control.next().await.unwrap(),
            Some(ExecEvent::Exited { code: 3 })
        );
        drop(owner);
        assert_eq!(control.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn garbage_is_a_fault() {
        let (mut control, mut owner) = pair();
        owner.write_all(b"hello\n").unwrap();
        assert!(matches!(
            control.next().await,
            Err(Failure::Exec(fault)) if fault.symbol == Symbol::Internal
        ));
    }
}
