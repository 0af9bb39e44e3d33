//! Signals that are the guest's business.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

use crate::failure::Failure;

/// Forwarded to the process group in the guest.
const FORWARDED: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caught {
    /// For the guest.
    Signal(Signal),
    /// The terminal has another size.
    Resized,
    /// We were stopped and go on; the shell may have changed the terminal's mode.
    Continued,
}

/// Catches signals from its creation on; none of them ends this process any more.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Caught, Listener)>);

impl Signals {
    pub(crate) fn catch() -> Result<Self, Failure> {
        let own = [
            (Caught::Resized, SignalKind::window_change()),
            (
                Caught::Continued,
                SignalKind::from_raw(Signal::SIGCONT as i32),
            ),
        ];
        let listeners = FORWARDED
            .map(|signal| (Caught::Signal(signal), SignalKind::from_raw(signal as i32)))
            .into_iter()
            .chain(own)
            .map(|(caught, kind)| Ok((caught, signal(kind)?)))
            .collect::<io::Result<_>>();
        listeners.map(Self).map_err(|source| Failure::Io {
            what: "catch signals",
            source,
        })
    }

    /// The next one. Can be dropped and called again.
    pub(super) async fn next(&mut self) -> Caught {
        poll_fn(|context| {
            for (caught, listener) in &mut self.0 {
                if listener.poll_recv(context).is_ready() {
                    return Poll::Ready(*caught);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The next one that asks this process to end.
    pub(crate) async fn next_end(&mut self) -> Signal {
        loop {
            match self.next().await {
                Caught::Signal(signal) if asks_to_end(signal) => return signal,
                _ => {}
            }
        }
    }
}

/// Whether a signal means "end".
pub(super) fn asks_to_end(signal: Signal) -> bool {
    matches!(
        signal,
        Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT
    )
}
