//! An exec session as its client lives it: streams, signals, terminal, end.
//!
//! ```text
//!  our stdin ──► thread ──► stdin ┐
//!  our stdout ◄── thread ◄── stdout ├ descriptors from the VM's owner
//!  our stderr ◄── thread ◄── stderr ┘
//!  signals, window size ──► control ──► end of the command
//! ```
//!
//! Each stream has a thread that copies with one buffer and blocks where the
//! other side does: that is the whole backpressure. The control stream is the
//! event loop's. Nothing of it passes through aegisd.
//!
//! stdin is forwarded as ssh(1) does it: always, unless `--no-stdin` is given or
//! this process runs in the background of its terminal.

use std::io;
use std::os::fd::OwnedFd;

use aegis_core::control::{ExecEvent, ExecInput, TerminalSize};
use aegis_core::fault::{Fault, Symbol};
use nix::sys::signal::Signal;
use tokio::sync::oneshot;
use zbus::OwnedFd as BusFd;

use crate::exit_code;
use crate::failure::Failure;

mod control;
mod detach;
mod signals;
mod streams;
mod terminal;
mod transfer;

use control::Control;
pub(crate) use detach::{DetachKeys, USUAL as USUAL_DETACH_KEYS};
use signals::Caught;
pub(crate) use signals::Signals;
use streams::{Pump, PumpEnd};
pub(crate) use terminal::{Before, Quiet, Terminal};
pub(crate) use transfer::{Transferred, transfer};

/// After that many signals that ask us to end, we do, even if the command in the
/// guest does not (as docker-run(1)).
const PATIENCE: u32 = 3;

/// The descriptors of an exec session.
#[derive(Debug)]
pub(crate) struct Session {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    control: OwnedFd,
}

/// How our own side of a session is set up.
#[derive(Debug)]
pub(crate) struct Wiring {
    /// Whether our stdin is forwarded; else the command sees its end at once.
    pub(crate) forward_stdin: bool,
    /// The terminal, for a session that runs on one.
    pub(crate) terminal: Option<Terminal>,
    /// For a command that does not end with its session: the keys that leave it.
    pub(crate) detach: Option<DetachKeys>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    /// With the command; the exit code for it.
    Ended(u8),
    /// The command runs on.
    Detached,
}

impl Carried {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ended(code) => code,
            Self::Detached => exit_code::OK,
        }
    }
}

impl Wiring {
    /// The size of the terminal the command is to run on; `None` without one.
    pub(crate) fn size(&self) -> Option<TerminalSize> {
        // What a terminal that does not know its size is taken for.
        const USUAL: TerminalSize = TerminalSize { rows: 24, cols: 80 };
        let terminal = self.terminal.as_ref()?;
        Some(terminal.size().unwrap_or(USUAL))
    }
}

impl From<(BusFd, BusFd, BusFd, BusFd)> for Session {
    /// From the answer of `Exec`.
    fn from((stdin, stdout, stderr, control): (BusFd, BusFd, BusFd, BusFd)) -> Self {
        Self {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
            control: control.into(),
        }
    }
}

/// Carries a session to its end.
///
/// # Errors
/// What kept the command from running, or that its VM ended.
pub(crate) async fn carry(
    session: Session,
    wiring: Wiring,
    signals: &mut Signals,
) -> Result<Carried, Failure> {
    let mut control = Control::new(session.control)?;
    // Held to the end of this function, whichever way it ends.
    let raw = wiring.terminal.as_ref().map(Terminal::raw).transpose()?;
    // Keys have a meaning of their own only where somebody types them.
    let keys = wiring.detach.as_ref().filter(|_| raw.is_some());
    let mut detached = None;
    if wiring.forward_stdin && !terminal::in_background() {
        let watcher = keys.map(detach::Watcher::new);
        detached = Some(streams::forward_stdin(session.stdin, watcher)?);
    } else {
        drop(session.stdin);
    }
    let mut stdout = streams::forward("stdout", session.stdout, streams::own(io::stdout())?)?;
    let mut stderr = streams::forward("stderr", session.stderr, streams::own(io::stderr())?)?;
    let mut asked_to_end = 0;
    let end = loop {
        tokio::select! {
            biased;
            // Signals first: a stream that never pauses must not starve them.
            caught = signals.next() => match caught {
                Caught::Resized => if let Some(size) = wiring.size() {
                    control.send(&ExecInput::Resize(size)).await;
                },
                Caught::Continued => if let Some(raw) = &raw {
                    raw.apply_again()?;
                },
                // The terminal is gone; the command is not to go with it.
                Caught::Signal(Signal::SIGHUP) if wiring.detach.is_some() => {
                    return Ok(Carried::Detached);
                }
                Caught::Signal(signal) => {
                    asked_to_end += u32::from(signals::asks_to_end(signal));
                    if asked_to_end >= PATIENCE {
                        return Ok(Carried::Ended(exit_code::of_signal(signal as i32)));
                    }
                    control.send(&ExecInput::Signal(signal as i32)).await;
                }
            },
            () = left(&mut detached) => return Ok(Carried::Detached),
            end = stdout.ended(), if !stdout.is_over() => if end == PumpEnd::NobodyReads {
                if wiring.detach.is_some() {
                    return Ok(Carried::Detached);
                }
                // What a local command would get for writing to such a pipe.
                control.send(&ExecInput::Signal(Signal::SIGPIPE as i32)).await;
            },
            event = control.next() => match event? {
                Some(event) if event.is_final() => break event,
                Some(_) => {}
                None => break ExecEvent::Failed(Fault::new(
                    Symbol::VmEnded,
                    "the VM ended before the command did",
                )),
            },
        }
    };
    drain(&mut stdout, &mut stderr, signals, &mut asked_to_end).await?;
    conclude(end).map(Carried::Ended)
}

/// Resolves when the keys were typed.
async fn left(detached: &mut Option<oneshot::Receiver<()>>) {
    if let Some(keys) = detached
        && keys.await.is_ok()
    {
        return;
    }
    // stdin ended without them.
    *detached = None;
    std::future::pending::<()>().await;
}

/// Waits until the last byte the owner sent is written out.
async fn drain(
    stdout: &mut Pump,
    stderr: &mut Pump,
    signals: &mut Signals,
    asked_to_end: &mut u32,
) -> Result<(), Failure> {
    while !(stdout.is_over() && stderr.is_over()) {
        tokio::select! {
            biased;
            caught = signals.next() => if let Caught::Signal(signal) = caught {
                *asked_to_end += u32::from(signals::asks_to_end(signal));
                if *asked_to_end >= PATIENCE {
                    return Ok(());
                }
            },
            _ = stdout.ended(), if !stdout.is_over() => {}
            _ = stderr.ended(), if !stderr.is_over() => {}
        }
    }
    for pump in [stdout, stderr] {
        pump.take_error().map_or(Ok(()), |source| {
            Err(Failure::Io {
                what: "write the output of the command",
                source,
            })
        })?;
    }
    Ok(())
}

fn conclude(end: ExecEvent) -> Result<u8, Failure> {
    match end {
        ExecEvent::Signaled { signal } => Ok(exit_code::of_signal(signal)),
        ExecEvent::Exited { code } => Ok(exit_code::of_guest(code)),
        ExecEvent::Failed(fault) => Err(Failure::Exec(fault)),
        ExecEvent::Started {} => Err(Failure::Exec(Fault::new(
            Symbol::Internal,
            "the command has no end",
        ))),
    }
}
