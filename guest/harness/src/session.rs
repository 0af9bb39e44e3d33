//! Exec sessions: a program with its standard streams on the link.
//!
//! ```text
//!   exec ──► running ──── program ended ──► draining ──► over ──── wait ──► forgotten
//!               │                            (pump)        ▲
//!               └─ host reset a stream: SIGHUP to the group┘
//! ```
//!
//! The host asks once for the end; whoever comes first, the question or the
//! end, waits in the table for the other. A session on a terminal outlives a host
//! that saved the guest: the next one adopts it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aegis_link::message::{Exec, Fault, ProcessEnd, Reply, SessionId, Symbol, TtySize};
use aegis_link::{LinkStream, Responder, Vanished};
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, pipe2};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, watch};

use crate::fd::Nonblocking;
use crate::process::{self, Streams};
use crate::pump::{self, Drain, Ended};
use crate::reaper::Reaper;
use crate::tty;
use crate::valve::Valve;

/// Sessions a guest runs at a time.
const MAX_SESSIONS: usize = 512;

/// How long the output of a program that has ended waits for a new host.
const ADOPTION_PATIENCE: Duration = Duration::from_secs(60);

/// All sessions. Cheap to clone; all clones are the same table.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    reaper: Reaper,
    valve: Valve,
    table: Arc<Mutex<HashMap<SessionId, Session>>>,
    one_is_over: Arc<Notify>,
}

#[derive(Debug)]
struct Session {
    /// Also its process group.
    pid: Pid,
    /// A duplicate of the terminal's master, to change its size.
    terminal: Option<OwnedFd>,
    /// Where the stream of a new host goes; none without a terminal.
    adopt: Option<mpsc::Sender<LinkStream>>,
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
enum Ends {
    Pipes {
        stdin: pipe::Sender,
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
    },
    Terminal {
        keys: WriteHalf<Nonblocking>,
        screen: ReadHalf<Nonblocking>,
    },
}

impl Sessions {
    pub(crate) fn new(reaper: Reaper, valve: Valve) -> Sessions {
        Sessions {
            reaper,
            valve,
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
        let (adopt, adopted) = mpsc::channel(1);
        let adopt = terminal.is_some().then_some(adopt);
        self.lock().insert(
            exec.session,
            Session {
                pid,
                terminal,
                adopt,
                phase: Phase::Running,
            },
        );

        let (tell, ended) = watch::channel(false);
        let (sessions, session) = (self.clone(), exec.session);
        let valve = self.valve.clone();
        tokio::spawn(async move {
            let output = match ends {
                Ends::Pipes {
                    stdin,
                    stdout,
                    stderr: errors,
                } => {
                    let stdout = Drain::new(stdout, ended.clone(), valve.clone());
                    let errors = stderr.map(|to| (Drain::new(errors, ended.clone(), valve), to));
                    tokio::spawn(carry(pid, stdio, stdin, stdout, errors, ended))
                }
                Ends::Terminal { keys, screen } => {
                    let screen = Drain::new(screen, ended.clone(), valve.clone());
                    let terminal = Terminal {
                        pid,
                        keys,
                        screen,
                        ended,
                        adopted,
                        valve,
                    };
                    tokio::spawn(terminal.carry(stdio))
                }
            };
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

    /// Gives a session on a terminal, whose host is gone, the stream of a new one.
    pub(crate) fn adopt(
        &self,
        session: SessionId,
        streams: Vec<LinkStream>,
    ) -> Result<Reply, Fault> {
        let table = self.lock();
        let found = table.get(&session).filter(|found| found.is_running());
        let adopt = found.and_then(|found| found.adopt.as_ref());
        let adopt = adopt.ok_or_else(|| no_such(session))?;
        let stream = streams.into_iter().next();
        // It is full or closed where there is nothing to carry.
        match stream.map(|stream| adopt.try_send(stream)) {
            Some(Ok(())) => Ok(Reply::Done),
            Some(Err(_)) | None => Err(no_such(session)),
        }
    }

    /// Forgets what only a host that is gone could ask for. The end of a session on a
    /// terminal is for whoever comes after it.
    pub(crate) fn forget_ended(&self) {
        let mut table = self.lock();
        for session in table.values_mut() {
            if matches!(session.phase, Phase::Awaited(_)) {
                session.phase = Phase::Running;
            }
        }
        table.retain(|_, session| session.is_running() || session.adopt.is_some());
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
    let ends = Ends::Pipes {
        stdin: pipe::Sender::from_owned_fd(stdin_writer)?,
        stdout: pipe::Receiver::from_owned_fd(stdout_reader)?,
        stderr: pipe::Receiver::from_owned_fd(stderr_reader)?,
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
    let (screen, keys) = tokio::io::split(Nonblocking::terminal(master)?);
    let ends = Ends::Terminal { keys, screen };
    Ok((Streams::Terminal(slave), ends, Some(control)))
}

/// Moves bytes between the link and a program until its output is over.
async fn carry(
    pid: Pid,
    stdio: LinkStream,
    mut stdin: pipe::Sender,
    stdout: Drain<pipe::Receiver>,
    stderr: Option<(Drain<pipe::Receiver>, LinkStream)>,
    ended: Ended,
) {
    let vanished = stdio.reset_watch();
    let (from_host, to_host) = tokio::io::split(stdio);
    let mut from_host = BufReader::with_capacity(pump::CHUNK, from_host);
    let input = tokio::spawn(async move {
        // The program may have closed its stdin, or the host its stream; either
        // way the other end learns of it by the drop or by the reset watch.
        tokio::io::copy_buf(&mut from_host, &mut stdin).await.ok();
        from_host
    });
    let mut still_runs = ended;
    let hang_up = tokio::spawn(async move {
        tokio::select! {
            _ = vanished.reset() => {
                // Gone already is as good.
                killpg(pid, Signal::SIGHUP).ok();
            }
            _ = still_runs.wait_for(|ended| *ended) => {}
        }
    });
    let errors = stderr.map(|(from, to)| tokio::spawn(output(from, tokio::io::split(to).1)));
    output(stdout, to_host).await;
    if let Some(errors) = errors {
        errors.await.ok();
    }
    hang_up.await.ok();
    input.abort();
    input.await.ok();
}

/// Carries one output; afterwards its end is on the stream. A host that reset
/// the stream is not told; the program then gets SIGPIPE.
async fn output(mut drain: Drain<impl AsyncRead + Unpin>, mut to: WriteHalf<LinkStream>) {
    // An output that cannot be read any more is over as well.
    while let Ok(Some(bytes)) = drain.next().await {
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
    to.shutdown().await.ok();
}

/// A program on a terminal, whichever host looks at it.
struct Terminal {
    pid: Pid,
    keys: WriteHalf<Nonblocking>,
    screen: Drain<ReadHalf<Nonblocking>>,
    ended: Ended,
    adopted: mpsc::Receiver<LinkStream>,
    valve: Valve,
}

impl Terminal {
    /// Moves bytes between the link and the program until its output is over.
    async fn carry(mut self, first: LinkStream) {
        let mut stream = first;
        loop {
            let vanished = stream.reset_watch();
            let (from_host, to_host) = tokio::io::split(stream);
            let mut from_host = BufReader::with_capacity(pump::CHUNK, from_host);
            let whole = tokio::select! {
                whole = show(&mut self.screen, to_host) => whole,
                _ = vanished.reset() => false,
                () = type_in(&mut from_host, &mut self.keys, &self.valve) => false,
            };
            if whole {
                // What was shown is handed over.
                drop(self.screen);
                tokio::select! {
                    // A program may go on without its terminal.
                    vanished = vanished.reset() => hang_up(self.pid, vanished),
                    _ = self.ended.wait_for(|ended| *ended) => {}
                }
                return;
            }
            let vanished = vanished.reset().await;
            hang_up(self.pid, vanished);
            if vanished == Vanished::Stream {
                return;
            }
            match self.next_host().await {
                Some(next) => stream = next,
                None => return,
            }
        }
    }

    async fn next_host(&mut self) -> Option<LinkStream> {
        let too_late = async {
            self.ended.wait_for(|ended| *ended).await.ok();
            tokio::time::sleep(ADOPTION_PATIENCE).await;
        };
        tokio::select! {
            next = self.adopted.recv() => next,
            () = too_late => None,
        }
    }
}

/// Tells a program that its host left it; one that is replaced did not.
fn hang_up(pid: Pid, vanished: Vanished) {
    if vanished == Vanished::Stream {
        // Gone already is as good.
        killpg(pid, Signal::SIGHUP).ok();
    }
}

/// Carries what is typed; never over, since a terminal's input has no end.
async fn type_in(
    from_host: &mut BufReader<ReadHalf<LinkStream>>,
    keys: &mut WriteHalf<Nonblocking>,
    valve: &Valve,
) {
    while let Ok(bytes @ [_, ..]) = from_host.fill_buf().await {
        // A program that does not read keeps them here.
        let _held = valve.hold();
        let length = bytes.len();
        if keys.write_all(bytes).await.is_err() {
            break;
        }
        from_host.consume(length);
    }
    std::future::pending::<()>().await;
}

/// Carries the output; false when the host does not take it any more.
async fn show(
    screen: &mut Drain<ReadHalf<Nonblocking>>,
    mut to_host: WriteHalf<LinkStream>,
) -> bool {
    // An output that cannot be read any more is over as well.
    while let Ok(Some(bytes)) = screen.next().await {
        if to_host.write_all(bytes).await.is_err() {
            return false;
        }
    }
    to_host.shutdown().await.ok();
    true
}
