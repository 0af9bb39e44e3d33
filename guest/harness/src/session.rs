//! Exec sessions: a program with its standard streams on the link.
//!
//! ```text
//!   exec ──► running ──── program ended ──► draining ──► over ──── wait ──► forgotten
//!               │                            (pump)        ▲
//!               └─ host reset a stream: SIGHUP to the group┘
//! ```
//!
//! The host asks once for the end; whoever comes first, the question or the
//! end, waits in the table for the other.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_link::message::{Exec, Fault, ProcessEnd, Reply, SessionId, Symbol, TtySize};
use aegis_link::{LinkStream, Responder};
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, pipe2};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, WriteHalf};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, watch};

use crate::fd::Nonblocking;
use crate::process::{self, Streams};
use crate::pump::{self, Drain, Ended};
use crate::reaper::Reaper;
use crate::tty;

/// Sessions a guest runs at a time.
const MAX_SESSIONS: usize = 512;

/// All sessions. Cheap to clone; all clones are the same table.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    reaper: Reaper,
    table: Arc<Mutex<HashMap<SessionId, Session>>>,
    one_is_over: Arc<Notify>,
}

#[derive(Debug)]
struct Session {
    /// Also its process group.
    pid: Pid,
    /// A duplicate of the terminal's master, to change its size.
    terminal: Option<OwnedFd>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// The host asked for the end.
    Awaited(Responder),
    Over(ProcessEnd),
}

/// What a started program leaves in our hands.
struct Ends {
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    stderr: Option<pipe::Receiver>,
}

impl Sessions {
    pub(crate) fn new(reaper: Reaper) -> Sessions {
        Sessions {
            reaper,
            table: Arc::default(),
            one_is_over: Arc::default(),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Starts the program of an exec call, whose streams the link handed over.
    pub(crate) fn exec(&self, exec: &Exec, streams: Vec<LinkStream>) -> Result<Reply, Fault> {
        let mut streams = streams.into_iter();
        let (Some(stdio), stderr) = (streams.next(), streams.next()) else {
            return Err(Fault::new(Symbol::BadRequest, "an exec needs a stream"));
        };
        if stderr.is_some() == exec.tty.is_some() {
            let message = "an exec needs a stream for stderr, or a terminal";
            return Err(Fault::new(Symbol::BadRequest, message));
        }
        {
            let table = self.lock();
            if table.len() >= MAX_SESSIONS {
                let message = format!("{MAX_SESSIONS} exec sessions are open");
                return Err(Fault::new(Symbol::Busy, message));
            }
            if table.contains_key(&exec.session) {
                return Err(Fault::new(Symbol::BadRequest, "the session exists already"));
            }
        }
        let prepared = process::prepare(&exec.program, exec.tty.is_some())?;
        let failed = |error: io::Error| {
            Fault::new(
                Symbol::SpawnFailed,
                format!("the guest has no pipe or terminal: {error}"),
            )
        };
        let (inside, ends, terminal) = match exec.tty {
            Some(size) => terminal(size, &prepared.identity).map_err(failed)?,
            None => pipes().map_err(failed)?,
        };
        let pid = process::start(prepared, inside)?;
        let end = self.reaper.end_of(pid, exec.program.stop_signal);
        self.lock().insert(
            exec.session,
            Session {
                pid,
                terminal,
                phase: Phase::Running,
            },
        );

        let (tell, ended) = watch::channel(false);
        let (sessions, session) = (self.clone(), exec.session);
        tokio::spawn(async move {
            let output = tokio::spawn(carry(pid, stdio, stderr, ends, ended));
            // The reaper drops a sender only with the runtime.
            let end = end.await.unwrap_or(ProcessEnd::Signaled {
                signal: libc::SIGKILL,
            });
            tell.send_replace(true);
            // A panic there would be ours; the end is told all the same.
            output.await.ok();
            sessions.over(session, end);
        });
        Ok(Reply::Started {
            pid: pid.as_raw().cast_unsigned(),
        })
    }

    /// Answers with the end of a session, now or when it comes.
    pub(crate) fn wait(&self, session: SessionId, responder: Responder) {
        let mut table = self.lock();
        let answer = match table.get_mut(&session) {
            Some(found) => match found.phase {
                Phase::Running => {
                    found.phase = Phase::Awaited(responder);
                    return;
                }
                Phase::Awaited(_) => Err(Fault::new(
                    Symbol::BadRequest,
                    "the session is waited for already",
                )),
                Phase::Over(end) => {
                    table.remove(&session);
                    Ok(Reply::Ended { end })
                }
            },
            None => Err(no_such(session)),
        };
        drop(table);
        responder.reply(answer);
    }

    /// Sends a signal to the process group of a session.
    pub(crate) fn signal(&self, session: SessionId, signal: i32) -> Result<Reply, Fault> {
        let signal = Signal::try_from(signal)
            .map_err(|_| Fault::new(Symbol::BadRequest, format!("there is no signal {signal}")))?;
        let table = self.lock();
        let found = table.get(&session).filter(|found| found.is_running());
        let pid = found.ok_or_else(|| no_such(session))?.pid;
        // A group that has just ended is no failure: the end is on its way.
        killpg(pid, signal).ok();
        Ok(Reply::Done)
    }

    /// Changes the size of a session's terminal.
    pub(crate) fn resize(&self, session: SessionId, size: TtySize) -> Result<Reply, Fault> {
        let table = self.lock();
        let terminal = table
            .get(&session)
            .and_then(|found| found.terminal.as_ref());
        let terminal = terminal.ok_or_else(|| no_such(session))?;
        tty::resize(terminal.as_fd(), size).map_err(|error| {
            Fault::new(
                Symbol::Internal,
                format!("cannot resize the terminal: {error}"),
            )
        })?;
        Ok(Reply::Done)
    }

    /// Forgets what only a host that is gone could ask for.
    pub(crate) fn forget_ended(&self) {
        let mut table = self.lock();
        for session in table.values_mut() {
            if matches!(session.phase, Phase::Awaited(_)) {
                session.phase = Phase::Running;
            }
        }
        table.retain(|_, session| session.is_running());
    }

    /// Resolves once the output of every program is with the link.
    pub(crate) async fn all_over(&self) {
        loop {
            let notified = self.one_is_over.notified();
            if !self.lock().values().any(Session::is_running) {
                return;
            }
            notified.await;
        }
    }

    fn over(&self, session: SessionId, end: ProcessEnd) {
        self.finish(session, end);
        self.one_is_over.notify_waiters();
    }

    fn finish(&self, session: SessionId, end: ProcessEnd) {
        let mut table = self.lock();
        let Some(found) = table.get_mut(&session) else {
            return;
        };
        found.terminal = None;
        if let Phase::Awaited(responder) = std::mem::replace(&mut found.phase, Phase::Over(end)) {
            table.remove(&session);
            drop(table);
            responder.reply(Ok(Reply::Ended { end }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn is_running(&self) -> bool {
        !matches!(self.phase, Phase::Over(_))
    }
}

fn no_such(session: SessionId) -> Fault {
    Fault::new(
        Symbol::NoSuchSession,
        format!("there is no session {session} that could do this"),
    )
}

type Opened = (Streams, Ends, Option<OwnedFd>);

fn pipes() -> io::Result<Opened> {
    let (stdin, stdin_writer) = pipe2(OFlag::O_CLOEXEC)?;
    let (stdout_reader, stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr_reader, stderr) = pipe2(OFlag::O_CLOEXEC)?;
    let ends = Ends {
        stdin: Box::new(pipe::Sender::from_owned_fd(stdin_writer)?),
        stdout: Box::new(pipe::Receiver::from_owned_fd(stdout_reader)?),
        stderr: Some(pipe::Receiver::from_owned_fd(stderr_reader)?),
    };
    Ok((
        Streams::Apart {
            stdin,
            stdout,
            stderr,
        },
        ends,
        None,
    ))
}

fn terminal(size: TtySize, owner: &crate::users::Identity) -> io::Result<Opened> {
    let (master, slave) = tty::open(size, owner)?;
    let control = master.try_clone()?;
    let (stdout, stdin) = tokio::io::split(Nonblocking::terminal(master)?);
    let ends = Ends {
        stdin: Box::new(stdin),
        stdout: Box::new(stdout),
        stderr: None,
    };
    Ok((Streams::Terminal(slave), ends, Some(control)))
}

/// Moves bytes between the link and a program until its output is over.
async fn carry(pid: Pid, stdio: LinkStream, stderr: Option<LinkStream>, ends: Ends, ended: Ended) {
    let vanished = stdio.reset_watch();
    let (from_host, to_host) = tokio::io::split(stdio);
    let mut from_host = BufReader::with_capacity(pump::CHUNK, from_host);
    let mut stdin = ends.stdin;
    let input = tokio::spawn(async move {
        // The program may have closed its stdin, or the host its stream; either
        // way the other end learns of it by the drop or by the reset watch.
        tokio::io::copy_buf(&mut from_host, &mut stdin).await.ok();
        from_host
    });
    let mut still_runs = ended.clone();
    let hang_up = tokio::spawn(async move {
        tokio::select! {
            () = vanished.reset() => {
                // Gone already is as good.
                killpg(pid, Signal::SIGHUP).ok();
            }
            _ = still_runs.wait_for(|ended| *ended) => {}
        }
    });
    let errors = match (ends.stderr, stderr) {
        (Some(from), Some(to)) => {
            let (_, to) = tokio::io::split(to);
            Some(tokio::spawn(output(from, to, ended.clone())))
        }
        _ => None,
    };
    output(ends.stdout, to_host, ended).await;
    if let Some(errors) = errors {
        errors.await.ok();
    }
    hang_up.await.ok();
    input.abort();
    input.await.ok();
}

/// Carries one output; afterwards its end is on the stream. A host that reset
/// the stream is not told; the program then gets SIGPIPE.
async fn output(from: impl AsyncRead + Unpin, mut to: WriteHalf<LinkStream>, ended: Ended) {
    let mut drain = Drain::new(from, ended);
    // An output that cannot be read any more is over as well.
    while let Ok(Some(bytes)) = drain.next().await {
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
    to.shutdown().await.ok();
}
