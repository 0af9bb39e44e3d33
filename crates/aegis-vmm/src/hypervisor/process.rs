//! A child process in its jail: its start, its end and its last words.
//!
//! Each child has a keeper, a thread that starts it and waits for it. The child
//! is killed with that thread (see [`jail`]), so the thread lives as long as the
//! child, whatever threads an asynchronous runtime makes and ends.

mod clock;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use aegis_fault_points::around_async;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

use crate::jail::{self, Confinement, JailError, Program};

/// How much of a child's output is kept, in bytes: enough for an assertion and
/// the lines before it.
pub const LAST_WORDS: usize = 4096;

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub status: ExitStatus,
    /// The end of what it wrote to its output, at most [`LAST_WORDS`] bytes.
    pub last_words: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Exited(i32),
    Signaled(i32),
}

/// A running child. Dropping it kills the process.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    running: Running,
    exit: watch::Receiver<Option<Exit>>,
}

/// The PID for as long as it is surely this child's: until it is reaped.
#[derive(Clone, Debug, Default)]
struct Running(Arc<Mutex<Option<Pid>>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        // A PID is written whole; a holder that panicked left a valid one.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn kill(&self) {
        if let Some(pid) = *self.lock() {
            // A zombie takes the signal, and there is no other way to fail.
            kill(pid, Signal::SIGKILL).ok();
        }
    }
}

impl Child {
    /// Starts a program. `program` is given the pipe for its output.
    ///
    /// # Errors
    /// The step that failed; no process is left.
    pub async fn spawn(
        name: &'static str,
        program: impl FnOnce(OwnedFd) -> Program,
        confinement: Confinement,
    ) -> Result<Self, JailError> {
        let (reader, writer) = io::pipe().map_err(JailError::Prepare)?;
        let output = pipe::Receiver::from_file(File::from(OwnedFd::from(reader)))
            .map_err(JailError::Prepare)?;
        let program = program(writer.into());
        let running = Running::default();
        let (started_tx, started) = oneshot::channel();
        let (ended_tx, ended) = oneshot::channel();
        let keeper = Keeper {
            running: running.clone(),
            started: started_tx,
            ended: ended_tx,
        };
        let start = async {
            thread::Builder::new()
                .name(format!("keep {name}"))
                .spawn(move || keeper.keep(program, &confinement))
                .map_err(JailError::Prepare)?;
            // A keeper that ends without a word has panicked.
            let lost = |_| JailError::Prepare(io::Error::other("the keeper thread ended"));
            started.await.map_err(lost)?
        };
        let point = format!("vm.fork-{name}");
        let pid = around_async(&point, JailError::Prepare, start).await?;
        let (exit_tx, exit) = watch::channel(None);
        tokio::spawn(async move {
            let last_words = listen(output).await;
            let status = ended
                .await
                .unwrap_or(ExitStatus::Signaled(Signal::SIGKILL as i32));
            exit_tx.send_replace(Some(Exit { status, last_words }));
        });
        Ok(Self {
            pid: pid.as_raw().unsigned_abs(),
            running,
            exit,
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The processor time it has used, all its threads together; none once it has ended.
    pub fn cpu_time(&self) -> Duration {
        let running = self.running.lock();
        // The lock keeps the PID from being somebody else's.
        running.and_then(clock::time_of).unwrap_or_default()
    }

    /// Kills the process. Nothing happens to one that has ended.
    pub fn kill(&self) {
        self.running.kill();
    }

    /// Waits for the end. May be called by several at once and after the end.
    pub async fn wait(&self) -> Exit {
        let killed = Exit {
            status: ExitStatus::Signaled(Signal::SIGKILL as i32),
            last_words: String::new(),
        };
        match self.exit.clone().wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or(killed),
            // Only a runtime that shuts down drops the sender, and it kills the child.
            Err(_) => killed,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The work of the keeper thread.
struct Keeper {
    running: Running,
    started: oneshot::Sender<Result<Pid, JailError>>,
    ended: oneshot::Sender<ExitStatus>,
}

impl Keeper {
    fn keep(self, program: Program, confinement: &Confinement) {
        let result = jail::spawn(&program, confinement);
        // The child has its copies; ours would keep its pipes and sockets open.
        drop(program);
        let pid = match result {
            Ok(pid) => pid,
            Err(error) => {
                // Nobody waits for the start any more: nothing to tell.
                self.started.send(Err(error)).ok();
                return;
            }
        };
        *self.running.lock() = Some(pid);
        if self.started.send(Ok(pid)).is_err() {
            self.running.kill();
        }
        await_end(pid);
        let mut running = self.running.lock();
        *running = None;
        let status = match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => ExitStatus::Exited(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => ExitStatus::Signaled(signal as i32),
            // It is our child and has ended, so the kernel has no other answer.
            Ok(_) | Err(_) => ExitStatus::Signaled(Signal::SIGKILL as i32),
        };
        drop(running);
        // Nobody waits for the end any more: nothing to tell.
        self.ended.send(status).ok();
    }
}

/// Waits without reaping, so that the PID stays the child's until the lock is held.
fn await_end(pid: Pid) {
    use rustix::io::Errno;
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    let Some(pid) = Pid::from_raw(pid.as_raw()) else {
        // No process has the number 0.
        return;
    };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
}

/// Reads a child's output to its end and keeps the last of it.
async fn listen(mut output: pipe::Receiver) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = [0_u8; 1024];
    loop {
        match output.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                kept.extend_from_slice(&buffer[..count]);
                let excess = kept.len().saturating_sub(LAST_WORDS);
                kept.drain(..excess);
            }
        }
    }
    String::from_utf8_lossy(&kept).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    async fn shell(script: &str) -> Child {
        let program = |output| Program {
            path: PathBuf::from("/bin/sh").canonicalize().unwrap(),
            args: vec!["-c".to_owned(), script.to_owned()],
            input: None,
            descriptors: Vec::new(),
            output,
            capabilities: 0,
        };
        Child::spawn("test", program, Confinement::Open)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn the_end_comes_with_the_last_words() {
        let child = shell("echo one; echo two >&2; exit 3").await;
        let exit = child.wait().await;
        assert_eq!(exit.status, ExitStatus::Exited(3));
        assert_eq!(exit.last_words, "one\ntwo");
        assert_eq!(child.wait().await, exit);
    }

    #[tokio::test]
    async fn the_time_of_a_child_grows_while_it_works() {
        let child = shell("while :; do :; done").await;
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while child.cpu_time() < Duration::from_millis(50) {
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        child.kill();
        child.wait().await;
        assert_eq!(child.cpu_time(), Duration::ZERO);
    }

    #[tokio::test]
    async fn output_without_end_is_bounded() {
        let child = shell("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done").await;
        let exit = child.wait().await;
        assert!(exit.last_words.len() <= LAST_WORDS);
        assert!(
            exit.last_words.ends_with("line 1999"),
            "{}",
            exit.last_words
        );
    }

    #[tokio::test]
    async fn a_killed_child_says_so_and_may_be_killed_again() {
        let child = shell("exec sleep 1000").await;
        child.kill();
        assert_eq!(child.wait().await.status, ExitStatus::Signaled(9));
        child.kill();
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let program = |output| Program {
            path: "/nonexistent".into(),
            args: Vec::new(),
            input: None,
            descriptors: Vec::new(),
            output,
            capabilities: 0,
        };
        let error = Child::spawn("test", program, Confinement::Open)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "cannot execute the program for the jail");
    }
}
