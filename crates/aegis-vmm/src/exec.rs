//! Exec sessions: a program in the guest whose stdio and end reach a client
//! through descriptors.
//!
//! ```text
//!  client                 session                          guest
//!  stdin   ──pipe──────► pump ──► stdio stream ──────────► stdin
//!  stdout  ◄─pipe─────── pump ◄── stdio stream ◄────────── stdout or terminal
//!  stderr  ◄─pipe─────── pump ◄── stderr stream ◄───────── stderr
//!  control ◄─socket────► resize, signal ──► calls;  started, exited ◄── wait
//! ```
//!
//! Every pump holds one buffer; whoever is slow stops the other side through the
//! pipe or the stream's window. The end is told after all output was written. A
//! client that is gone (its end of the control socket closed) hangs the program
//! up, as a terminal would.

pub mod control;
pub mod ends;

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::control::ExecEvent;
use aegis_core::fault::{Fault, Symbol};
use aegis_link::message::{ProcessEnd, Program, SessionId, TtySize};
use aegis_link::{ExecSession, Handle, LinkStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::doorway::Visit;
use crate::guest;
use ends::Ends;

/// Sessions at a time. Each holds four descriptors here.
pub const MAX_SESSIONS: usize = 512;

/// Bytes a busy pump carries at a time: what a pipe holds by default (pipe(7)).
const BUFFER: usize = 64 * 1024;

/// The same of one that has little to do, as most have of hundreds.
const SMALL_BUFFER: usize = 1024;

/// How long a guest may take to hang a session up that has no client any more.
const HANG_UP_PATIENCE: Duration = Duration::from_secs(5);

/// signal(7).
const SIGHUP: i32 = 1;
const SIGPIPE: i32 = 13;

/// Bounds the sessions of a VM. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sessions {
    slots: Arc<Semaphore>,
}

impl Sessions {
    pub fn new() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_SESSIONS)),
        }
    }

    /// Room for one session.
    ///
    /// # Errors
    /// [`Symbol::Busy`] when all are taken.
    pub fn slot(&self) -> Result<Slot, Fault> {
        match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(permit) => Ok(Slot { permit }),
            Err(_) => Err(Fault::new(
                Symbol::Busy,
                format!("{MAX_SESSIONS} exec sessions of this VM are open, the most there can be"),
            )
            .with_hint("wait until one of them has ended")),
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

/// Room for one session that has not begun.
#[derive(Debug)]
pub struct Slot {
    permit: OwnedSemaphorePermit,
}

impl Slot {
    /// Begins a session in a task of its own and returns the client's ends: stdin,
    /// stdout, stderr, control. The visit lasts as long as the session.
    ///
    /// # Errors
    /// When descriptors cannot be made.
    pub fn begin(
        self,
        link: Handle,
        program: Program,
        tty: Option<TtySize>,
        visit: Visit,
    ) -> io::Result<Vec<OwnedFd>> {
        let (client, ends) = Ends::make()?;
        let session = Session { link, ends };
        tokio::spawn(async move {
            session.run(program, tty).await;
            drop(visit);
            drop(self.permit);
        });
        Ok(client)
    }
}

/// One session.
#[derive(Debug)]
struct Session {
    link: Handle,
    ends: Ends,
}

impl Session {
    async fn run(self, program: Program, tty: Option<TtySize>) {
        let Self { link, ends } = self;
        let Ends {
            stdin,
            stdout,
            stderr,
            mut reader,
            mut writer,
        } = ends;
        // Dropping the call of a client that is gone resets its streams, which
        // hangs up what the guest may have started meanwhile.
        let started = tokio::select! {
            started = link.exec(program, tty) => started,
            () = reader.closed() => return,
        };
        let running = match started {
            Ok(running) => running,
            Err(error) => {
                writer
                    .send(&ExecEvent::Failed(guest::call_fault(&error)))
                    .await;
                return;
            }
        };
        writer.send(&ExecEvent::Started {}).await;
        let id = running.session;
        let end = tokio::select! {
            end = carry(&link, running, stdin, stdout, stderr) => end,
            () = control::obey(&mut reader, &link, id) => {
                hang_up(&link, id).await;
                return;
            }
        };
        writer.send(&end).await;
    }
}

/// Carries all bytes until the program and its output have ended.
async fn carry(
    link: &Handle,
    running: ExecSession,
    stdin: pipe::Receiver,
    stdout: pipe::Sender,
    stderr: pipe::Sender,
) -> ExecEvent {
    let id = running.session;
    let (output, mut input) = tokio::io::split(running.stdio);
    let outputs = async {
        match running.stderr {
            Some(errors) => {
                tokio::join!(
                    pump_out(output, stdout, link, id),
                    pump_out(errors, stderr, link, id)
                );
            }
            None => {
                // A terminal has one output; the other is at its end at once.
                drop(stderr);
                pump_out(output, stdout, link, id).await;
            }
        }
    };
    let inputs = async {
        pump_in(stdin, &mut input).await;
        // Without the write half the stream is not whole and dropping it is a
        // reset, so it is kept until the program has ended.
        std::future::pending::<Infallible>().await
    };
    let ended = async { tokio::join!(link.wait(id), outputs).0 };
    let end = tokio::select! {
        end = ended => end,
        never = inputs => match never {},
    };
    match end {
        Ok(ProcessEnd::Exited { code }) => ExecEvent::Exited { code },
        Ok(ProcessEnd::Signaled { signal }) => ExecEvent::Signaled { signal },
        Err(error) => ExecEvent::Failed(guest::call_fault(&error)),
    }
}

/// Client to guest. Ends with the client's end of file, which it passes on, or
/// when the program takes no more: the client then finds its pipe broken.
async fn pump_in(mut from: pipe::Receiver, to: &mut tokio::io::WriteHalf<LinkStream>) {
    let mut buffer = vec![0; SMALL_BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        fit(&mut buffer, length);
    }
    // It fails where the guest closed its side first, and then nothing is left to say.
    let _closed_before = to.shutdown().await;
}

/// Guest to client. Output that nobody reads any more is thrown away, and the
/// program hears of it as it would from a local pipe: by SIGPIPE.
async fn pump_out<R>(mut from: R, mut to: pipe::Sender, link: &Handle, session: SessionId)
where
    R: tokio::io::AsyncRead + Unpin,
{
    let mut buffer = vec![0; SMALL_BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..length]).await.is_err() {
            drop(to);
            let told = link.signal(session, SIGPIPE);
            tokio::join!(told, discard(from, buffer)).1;
            return;
        }
        fit(&mut buffer, length);
    }
}

/// Grows a buffer that was filled and shrinks one that was hardly used.
fn fit(buffer: &mut Vec<u8>, used: usize) {
    if used == buffer.len() && used < BUFFER {
        *buffer = vec![0; BUFFER];
    } else if used <= SMALL_BUFFER && buffer.len() > SMALL_BUFFER {
        *buffer = vec![0; SMALL_BUFFER];
    }
}

async fn discard<R: tokio::io::AsyncRead + Unpin>(mut from: R, mut buffer: Vec<u8>) {
    while let Ok(1..) = from.read(&mut buffer).await {}
}

/// The streams are dropped already, which tells the guest; a program that closed
/// all of them before hears it from the signal alone.
async fn hang_up(link: &Handle, session: SessionId) {
    let told = tokio::time::timeout(HANG_UP_PATIENCE, link.signal(session, SIGHUP)).await;
    if let Ok(Err(error)) = told {
        tracing::debug!("cannot hang a session up: {error}, ignoring");
    }
}
