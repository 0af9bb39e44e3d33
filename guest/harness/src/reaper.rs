//! Every wait status of every process of the guest ends here: those of programs
//! we started, which someone waits for, and those of orphans, which no one does.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_link::message::ProcessEnd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};

/// Collects the ends of processes. All clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Reaper {
    waiting: Arc<Mutex<HashMap<Pid, Waiting>>>,
    no_child_left: Arc<Notify>,
}

/// Someone waits for the end of a program.
#[derive(Debug)]
struct Waiting {
    ended: oneshot::Sender<ProcessEnd>,
    stop_signal: Option<i32>,
}

impl Reaper {
    /// Starts collecting, on the current runtime.
    pub(crate) fn start() -> io::Result<Reaper> {
        let mut signals = signal(SignalKind::child())?;
        let reaper = Reaper {
            waiting: Arc::default(),
            no_child_left: Arc::new(Notify::new()),
        };
        let collector = reaper.clone();
        tokio::spawn(async move {
            loop {
                collector.collect();
                if signals.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// The end of a process, which at a stop is asked for by a signal of its own if
    /// it has one. To be called right after starting it, before any await: statuses
    /// are collected on the same thread, so none is missed.
    pub(crate) fn end_of(
        &self,
        pid: Pid,
        stop_signal: Option<i32>,
    ) -> oneshot::Receiver<ProcessEnd> {
        let (ended, receiver) = oneshot::channel();
        self.lock().insert(pid, Waiting { ended, stop_signal });
        receiver
    }

    /// Processes that are asked to end by a signal of their own. Their numbers are
    /// theirs until the next await.
    pub(crate) fn stop_signals(&self) -> Vec<(Pid, i32)> {
        let waiting = self.lock();
        let own = waiting
            .iter()
            .map(|(pid, of)| Some((*pid, of.stop_signal?)));
        own.flatten().collect()
    }

    /// Resolves once no process but the kernel's and ours is left.
    pub(crate) async fn no_child_left(&self) {
        loop {
            let notified = self.no_child_left.notified();
            if self.collect() {
                return;
            }
            notified.await;
        }
    }

    /// Takes all statuses there are; true if there is no process to wait for.
    fn collect(&self) -> bool {
        loop {
            let (pid, end) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, ProcessEnd::Exited { code }),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (
                    pid,
                    ProcessEnd::Signaled {
                        signal: signal as i32,
                    },
                ),
                Ok(WaitStatus::StillAlive) => return false,
                // Without WUNTRACED nothing else is reported of children.
                Ok(_) | Err(nix::Error::EINTR) => continue,
                Err(_) => {
                    self.no_child_left.notify_waiters();
                    return true;
                }
            };
            if let Some(waiting) = self.lock().remove(&pid) {
                // Nobody may be interested any more.
                waiting.ended.send(end).ok();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
