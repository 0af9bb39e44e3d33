//! A command that runs in a machine while its test does other things.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::instance::DEADLINE;
use crate::machine::{User, exit_code};
use crate::seat::Seat;
use crate::wait::wait_for;

/// A running command. Dropping it kills it.
#[derive(Debug)]
pub struct Session<'a> {
    seat: Seat<'a>,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
    pid: u32,
}

impl<'a> Session<'a> {
    /// Starts `command`, a simple command of the shell (it is exec'ed).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(seat: Seat<'a>, command: &str) -> Result<Self> {
        let line = format!("echo $$ && exec {command}");
        let mut child = seat
            .machine()
            .command(seat.user(), &line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("no standard output")?;
        let mut stderr = child.stderr.take().context("no standard error")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if send
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .is_err()
                {
                    break;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            // What was read before an error is all there is to show.
            drop(stderr.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut session = Self {
            seat,
            child,
            stdin,
            lines,
            errors: Some(errors),
            pid: 0,
        };
        session.pid = session.line()?.parse().context("the shell's pid")?;
        Ok(session)
    }

    /// Its pid in the machine.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The next line of its standard output.
    ///
    /// # Errors
    /// None comes in time, or its output is at an end.
    pub fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("no line within {} s", DEADLINE.as_secs()),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("its output ended; {}", self.last_words())
            }
        }
    }

    /// The lines of its standard output that came so far and nobody read.
    pub fn lines_so_far(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Waits for a line.
    ///
    /// # Errors
    /// Other lines only, until the deadline.
    pub fn wait_for_line(&mut self, wanted: &str) -> Result<()> {
        let start = Instant::now();
        let mut seen = Vec::new();
        while start.elapsed() < DEADLINE {
            let line = self
                .line()
                .with_context(|| format!("waiting for {wanted:?} after {seen:?}"))?;
            if line == wanted {
                return Ok(());
            }
            seen.push(line);
        }
        bail!("no line {wanted:?} in {seen:?}")
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// It is closed.
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        stdin
            .write_all(data)
            .and_then(|()| stdin.flush())
            .context("writing to a command in the machine")
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Sends it a signal by name, e.g. `INT`.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, name: &str) -> Result<()> {
        self.seat
            .machine()
            .run(User::Root, &format!("kill -{name} {}", self.pid))?
            .success()?;
        Ok(())
    }

    /// Whether it has ended by now.
    ///
    /// # Errors
    /// Its state cannot be asked for.
    pub fn has_ended(&mut self) -> Result<bool> {
        let status = self
            .child
            .try_wait()
            .context("asking for a command's end")?;
        Ok(status.is_some())
    }

    /// Waits for its end; gives the exit code and the lines not yet read.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait(mut self) -> Result<Ended> {
        self.close_input();
        let code = wait_for(DEADLINE, "a command in the machine to end", || {
            let status = self.child.try_wait().context("waiting for a command")?;
            Ok(status.map(exit_code))
        })?;
        Ok(Ended {
            code,
            lines: self.lines.iter().collect(),
            errors: self.take_errors(),
        })
    }

    /// A number of /proc/PID/status in KiB, e.g. `VmRSS`.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self, field: &str) -> Result<u64> {
        memory_of(self.seat, self.pid, field)
    }

    fn last_words(&mut self) -> String {
        let within = Duration::from_secs(5);
        let status = wait_for(within, "the end", || Ok(self.child.try_wait()?));
        match status {
            Ok(status) => format!("{status}: {}", self.take_errors()),
            Err(_) => "it still runs".to_owned(),
        }
    }

    fn take_errors(&mut self) -> String {
        let errors = self.errors.take().and_then(|thread| thread.join().ok());
        errors.unwrap_or_default()
    }
}

/// What a command left when it ended.
#[derive(Debug)]
pub struct Ended {
    /// The code a shell would show.
    pub code: i32,
    /// The lines of its standard output that nobody had read.
    pub lines: Vec<String>,
    /// All of its standard error.
    pub errors: String,
}

/// A number of a process's /proc/PID/status in KiB, e.g. `VmRSS`.
///
/// # Errors
/// There is no such process in the machine.
pub fn memory_of(seat: Seat<'_>, pid: u32, field: &str) -> Result<u64> {
    let status = seat
        .machine()
        .run(User::Root, &format!("cat /proc/{pid}/status"))?
        .success()?;
    kilobytes(&status, field)
}

/// Finds a number of KiB in the text of a /proc/PID/status.
///
/// # Errors
/// There is no such field.
pub fn kilobytes(status: &str, field: &str) -> Result<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
        .with_context(|| format!("no {field} in {status}"))
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
