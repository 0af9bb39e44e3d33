//! A session whose streams are the work of a thread, not the user's.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aegis_core::control::{ExecEvent, ExecInput};
use aegis_core::fault::{Fault, Symbol};
use nix::sys::signal::Signal;
use tokio::sync::oneshot;

use super::control::Control;
use super::signals::{Caught, asks_to_end};
use super::{Session, Signals, streams};
use crate::failure::Failure;

/// Most of what the other side may say about a failure, in bytes.
const MAX_WORDS: u64 = 8192;

/// How both sides of a transfer ended.
#[derive(Debug)]
pub(crate) struct Transferred<T> {
    /// What the thread made of it.
    pub(crate) ours: T,
    /// The end of the command in the guest.
    pub(crate) theirs: ExecEvent,
    /// What it wrote to stderr.
    pub(crate) words: String,
}

/// Gives the streams of a session (stdin, stdout) to `work` in a thread and waits for
/// both ends. A signal that asks to end raises the flag and ends the command.
///
/// # Errors
/// The session cannot be carried.
pub(crate) async fn transfer<T: Send + 'static>(
    session: Session,
    signals: &mut Signals,
    work: impl FnOnce(File, File, &AtomicBool) -> T + Send + 'static,
) -> Result<Transferred<T>, Failure> {
    let mut control = Control::new(session.control)?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let (stdin, stdout) = (session.stdin, session.stdout);
    streams::block(&stdin)?;
    streams::block(&stdout)?;
    let mut ours = spawn("transfer", move || work(stdin.into(), stdout.into(), &flag))?;
    let mut words = spawn_words(session.stderr)?;
    let (mut done, mut end, mut said) = (None, None, None);
    while done.is_none() || end.is_none() || said.is_none() {
        tokio::select! {
            biased;
            caught = signals.next() => if let Caught::Signal(signal) = caught
                && asks_to_end(signal)
            {
                stop.store(true, Ordering::Relaxed);
                control.send(&ExecInput::Signal(Signal::SIGTERM as i32)).await;
            },
            outcome = &mut ours, if done.is_none() => done = Some(outcome.map_err(panicked)?),
            text = &mut words, if said.is_none() => said = Some(text.map_err(panicked)?),
            event = control.next(), if end.is_none() => match event? {
                Some(event) if event.is_final() => end = Some(event),
                Some(_) => {}
                None => end = Some(ExecEvent::Failed(Fault::new(
                    Symbol::VmEnded,
                    "the VM ended before the copy did",
                ))),
            },
        }
    }
    match (done, end, said) {
        (Some(ours), Some(theirs), Some(words)) => Ok(Transferred {
            ours,
            theirs,
            words,
        }),
        // The loop ends with all three.
        _ => Err(panicked(())),
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, Failure> {
    let (sender, outcome) = oneshot::channel();
    streams::spawn(name, move || {
        // The transfer may have been given up.
        sender.send(work()).ok();
    })?;
    Ok(outcome)
}

fn spawn_words(from: OwnedFd) -> Result<oneshot::Receiver<String>, Failure> {
    streams::block(&from)?;
    spawn("stderr", move || {
        let mut file = File::from(from);
        let mut words = Vec::new();
        // What was read before an error is all there is to show; the rest is thrown away.
        (&mut file).take(MAX_WORDS).read_to_end(&mut words).ok();
        std::io::copy(&mut file, &mut std::io::sink()).ok();
        String::from_utf8_lossy(&words).trim().to_owned()
    })
}

fn panicked<E>(_: E) -> Failure {
    Failure::Exec(Fault::new(Symbol::Internal, "a thread of the copy failed"))
}
