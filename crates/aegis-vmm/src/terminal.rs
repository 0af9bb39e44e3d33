//! The terminal of the instance's command: it is there as long as the command,
//! whoever looks at it.
//!
//! ```text
//!  client ──keys──►┐                                   ┌──► log of the command
//!  client ──keys──►┴─► one writer ──► guest ──output──►┼──► scrollback
//!  client ◄──── bounded queue each ◄───────────────────┘
//! ```
//!
//! The command is an exec session on the link that belongs to the VM and to no
//! client: clients are told its output, their keys are merged, and the one that
//! came or resized last sets its size. The descriptors of a client are the same
//! as those of an exec session. It outlives a hibernation: the session goes on in
//! the guest, and what it has shown is saved with it.

mod client;
mod scrollback;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::control::ExecEvent;
use aegis_core::fault::{Fault, Symbol};
use aegis_link::log::{LogRecord, Output, Splitter};
use aegis_link::message::{CommandEnd, ProcessEnd, Program, SessionId, TtySize};
use aegis_link::{CallError, ExecSession, Handle, LinkStream};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::doorway::Visit;
use crate::exec::ends::Ends;
use crate::guest;
use crate::status::now_ns;
use client::{Client, Word};
use scrollback::Scrollback;

/// The size until a client says another: that of a terminal that does not know.
const USUAL: TtySize = TtySize { rows: 24, cols: 80 };

/// Clients at a time.
const MAX_CLIENTS: usize = 16;

/// Pieces of output that wait for one client; each is at most [`BUFFER`] long.
const WAITING_OUTPUT: usize = 16;

/// Pieces of input that wait for the guest, over all clients.
const WAITING_KEYS: usize = 16;

/// Bytes of output carried at a time.
const BUFFER: usize = 16 * 1024;

/// How long a client may leave its output unread before it is let go.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of the command.
#[derive(Debug)]
pub enum TerminalEvent {
    Started { pid: u32 },
    Ended(CommandEnd),
}

/// The running terminal; dropping it ends its task, not the command.
#[derive(Debug)]
pub struct Terminal {
    handle: TerminalHandle,
    events: mpsc::Receiver<TerminalEvent>,
    saves: mpsc::Sender<oneshot::Sender<SavedTerminal>>,
    task: JoinHandle<()>,
}

/// The way onto a terminal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TerminalHandle {
    joins: mpsc::Sender<Join>,
    slots: Arc<Semaphore>,
}

/// A terminal over a hibernation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTerminal {
    session: SessionId,
    scrollback: Scrollback,
    /// The beginning of a line whose end is not in the log yet.
    line: Vec<u8>,
}

/// A client that wants to come in.
#[derive(Debug)]
struct Join {
    ends: Ends,
    size: Option<TtySize>,
    visit: Visit,
    slot: tokio::sync::OwnedSemaphorePermit,
}

impl TerminalHandle {
    /// Lets a client in and returns its descriptors: stdin, stdout, stderr, control.
    ///
    /// # Errors
    /// [`Symbol::Busy`] when all places are taken, [`Symbol::WrongState`] when the
    /// command has ended.
    pub fn join(&self, size: Option<TtySize>, visit: Visit) -> Result<Vec<OwnedFd>, Fault> {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let slot = slot.map_err(|_| {
            Fault::new(
                Symbol::Busy,
                format!("{MAX_CLIENTS} clients are attached, the most there can be"),
            )
        })?;
        let made: io::Result<_> = Ends::make();
        let (client, ends) = made.map_err(|error| Fault::from_error(Symbol::Internal, &error))?;
        let join = Join {
            ends,
            size,
            visit,
            slot,
        };
        // There are as many places in the queue as there may be clients.
        self.joins
            .try_send(join)
            .map_err(|_| Fault::new(Symbol::WrongState, "the command of the instance has ended"))?;
        Ok(client)
    }
}

/// What the task of a terminal hears and says.
struct Ears {
    joins: mpsc::Receiver<Join>,
    saves: mpsc::Receiver<oneshot::Sender<SavedTerminal>>,
    tell: mpsc::Sender<TerminalEvent>,
}

impl Terminal {
    /// Starts the command on a terminal of its own. Its output goes into `log` too.
    pub fn start(
        link: Handle,
        program: Program,
        size: Option<TtySize>,
        log: mpsc::Sender<LogRecord>,
    ) -> Self {
        Self::with(|ears| live(link, program, size.unwrap_or(USUAL), ears, log))
    }

    /// Goes on with a terminal whose guest was restored.
    pub fn adopt(link: Handle, saved: SavedTerminal, log: mpsc::Sender<LogRecord>) -> Self {
        Self::with(|ears| live_on(link, saved, ears, log))
    }

    fn with<F>(task: impl FnOnce(Ears) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (joins, joining) = mpsc::channel(MAX_CLIENTS);
        let (saves, saving) = mpsc::channel(1);
        let (tell, events) = mpsc::channel(2);
        let task = tokio::spawn(task(Ears {
            joins: joining,
            saves: saving,
            tell,
        }));
        let handle = TerminalHandle {
            joins,
            slots: Arc::new(Semaphore::new(MAX_CLIENTS)),
        };
        Self {
            handle,
            events,
            saves,
            task,
        }
    }

    /// Asks for what has to be saved, once all output that has come is shown; `None`
    /// where the command is not on its terminal.
    pub fn save(&self) -> impl Future<Output = Option<SavedTerminal>> + Send + use<> {
        let saves = self.saves.clone();
        async move {
            let (answer, saved) = oneshot::channel();
            saves.send(answer).await.ok()?;
            saved.await.ok()
        }
    }

    /// Ends a terminal that was saved: what it has not logged yet is in its save.
    pub async fn abandon(mut self) {
        self.task.abort();
        // An aborted task has let go of the log once it is joined.
        let _aborted = (&mut self.task).await;
    }

    pub fn handle(&self) -> TerminalHandle {
        self.handle.clone()
    }

    /// What becomes of the command; nothing more once the link is over. Loses
    /// nothing when it is dropped.
    pub async fn next(&mut self) -> TerminalEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Waits until all output is in the log, but not for longer than `patience`.
    pub async fn close(mut self, patience: Duration) {
        if tokio::time::timeout(patience, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
            // An aborted task has let go of the log once it is joined.
            let _aborted = (&mut self.task).await;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn live(
    link: Handle,
    program: Program,
    size: TtySize,
    mut ears: Ears,
    log: mpsc::Sender<LogRecord>,
) {
    // Nobody listens any more once the VM is over.
    let told = async |event| drop(ears.tell.send(event).await);
    let running = match link.exec(program, Some(size)).await {
        Ok(running) => running,
        Err(error) => {
            ears.joins.close();
            let fault = guest::call_fault(&error);
            while let Ok(join) = ears.joins.try_recv() {
                let (client, _) = seat(join, &mpsc::channel(1).0);
                tokio::spawn(client.refuse(fault.clone()));
            }
            if let CallError::Fault(fault) = error {
                told(TerminalEvent::Ended(CommandEnd::Failed(fault))).await;
            }
            return;
        }
    };
    told(TerminalEvent::Started { pid: running.pid }).await;
    let ExecSession { session, stdio, .. } = running;
    let saved = SavedTerminal {
        session,
        scrollback: Scrollback::default(),
        line: Vec::new(),
    };
    carry(link, Some(stdio), saved, ears, log).await;
}

async fn live_on(link: Handle, saved: SavedTerminal, ears: Ears, log: mpsc::Sender<LogRecord>) {
    // Where there is nothing to carry any more, the end of the session says why.
    let stdio = link.adopt(saved.session).await.ok();
    carry(link, stdio, saved, ears, log).await;
}

/// Carries the terminal until the command has ended.
async fn carry(
    link: Handle,
    stdio: Option<LinkStream>,
    begun: SavedTerminal,
    mut ears: Ears,
    log: mpsc::Sender<LogRecord>,
) {
    let (keys, typed) = mpsc::channel(WAITING_KEYS);
    let session = begun.session;
    let mut screen = Screen {
        link: link.clone(),
        session,
        keys,
        clients: Vec::new(),
        scrollback: begun.scrollback,
        log: Log {
            queue: log,
            splitter: Splitter::resume(begun.line),
            sequence: 0,
        },
    };
    let mut typing = None;
    if let Some(stdio) = stdio {
        let (output, input) = tokio::io::split(stdio);
        typing = Some(tokio::spawn(type_in(typed, input)));
        screen.follow(output, &mut ears).await;
    }
    ears.joins.close();
    // Whoever asks for a save learns that there is nothing to go on with.
    drop(ears.saves);
    let end = link.wait(session).await;
    screen.end(&mut ears.joins, &end).await;
    // Input is dropped last: without it the stream would be reset, which hangs up.
    if let Some(typing) = typing {
        typing.abort();
    }
    // Nobody listens any more once the VM is over.
    let told = async |event| drop(ears.tell.send(event).await);
    match end {
        Ok(end) => told(TerminalEvent::Ended(CommandEnd::Ended(end))).await,
        Err(CallError::Fault(fault)) => {
            told(TerminalEvent::Ended(CommandEnd::Failed(fault))).await;
        }
        // The end of the VM is told elsewhere.
        Err(_) => {}
    }
}

/// What the terminal's task holds.
struct Screen {
    link: Handle,
    session: SessionId,
    keys: mpsc::Sender<Vec<u8>>,
    clients: Vec<Seat>,
    scrollback: Scrollback,
    log: Log,
}

impl Screen {
    /// Carries output until it is over.
    async fn follow(&mut self, mut output: ReadHalf<LinkStream>, ears: &mut Ears) {
        let mut buffer = vec![0; BUFFER];
        loop {
            tokio::select! {
                biased;
                Some(join) = ears.joins.recv() => self.join(join).await,
                read = output.read(&mut buffer) => match read {
                    Ok(length @ 1..) => self.show(&buffer[..length]).await,
                    Ok(0) | Err(_) => return,
                },
                // After what has come.
                Some(answer) = ears.saves.recv() => {
                    // Who gave the save up needs no answer.
                    answer.send(self.saved()).ok();
                }
            }
        }
    }

    /// Lets a client in, shows it the last output and has the program paint anew.
    async fn join(&mut self, join: Join) {
        let size = join.size;
        let (client, seat) = seat(join, &self.keys);
        let replay = self.scrollback.replay();
        let has_output = !replay.is_empty();
        if has_output && seat.words.send(Word::Output(replay.into())).await.is_err() {
            return;
        }
        self.clients.push(seat);
        tokio::spawn(client.serve(self.link.clone(), self.session));
        if let Some(size) = size {
            tokio::spawn(fit(self.link.clone(), self.session, size, has_output));
        }
    }

    fn saved(&self) -> SavedTerminal {
        SavedTerminal {
            session: self.session,
            scrollback: self.scrollback.clone(),
            line: self.log.splitter.clone().finish(),
        }
    }

    async fn show(&mut self, output: &[u8]) {
        self.scrollback.push(output);
        let word = Word::Output(output.into());
        let deadline = Instant::now() + READ_PATIENCE;
        let mut index = 0;
        while index < self.clients.len() {
            let sent = timeout_at(deadline, self.clients[index].words.send(word.clone())).await;
            if matches!(sent, Ok(Ok(()))) {
                index += 1;
            } else {
                self.clients.remove(index);
            }
        }
        self.log.write(output).await;
    }

    async fn end(&mut self, joins: &mut mpsc::Receiver<Join>, end: &Result<ProcessEnd, CallError>) {
        self.log.finish().await;
        while let Ok(join) = joins.try_recv() {
            self.join(join).await;
        }
        let event = match end {
            Ok(ProcessEnd::Exited { code }) => ExecEvent::Exited { code: *code },
            Ok(ProcessEnd::Signaled { signal }) => ExecEvent::Signaled { signal: *signal },
            Err(error) => ExecEvent::Failed(guest::call_fault(error)),
        };
        let deadline = Instant::now() + READ_PATIENCE;
        for client in self.clients.drain(..) {
            let word = Word::End(event.clone());
            // One that does not read misses it.
            if let Ok(Ok(())) = timeout_at(deadline, client.words.send(word)).await {
                // It may be gone by now.
                client.kept.send(()).ok();
            }
        }
    }
}

/// A client's place at the terminal. Dropping it lets the client go.
struct Seat {
    words: mpsc::Sender<Word>,
    kept: oneshot::Sender<()>,
}

/// The two ends of a client's place.
fn seat(join: Join, keys: &mpsc::Sender<Vec<u8>>) -> (Client, Seat) {
    let (send, words) = mpsc::channel(WAITING_OUTPUT);
    let (keep, kept) = oneshot::channel();
    let client = Client {
        ends: join.ends,
        words,
        kept,
        keys: keys.clone(),
        visit: join.visit,
        slot: join.slot,
    };
    let seat = Seat {
        words: send,
        kept: keep,
    };
    (client, seat)
}

/// Gives the terminal the size of a client. A program that has painted already
/// paints anew only when the size changes, so it does twice.
async fn fit(link: Handle, session: SessionId, size: TtySize, repaint: bool) {
    let other = TtySize {
        rows: size.rows.saturating_add(1),
        ..size
    };
    for size in repaint.then_some(other).into_iter().chain([size]) {
        if let Err(error) = link.resize(session, size).await {
            tracing::debug!("the terminal of the command cannot be resized: {error}, ignoring");
        }
    }
}

/// Writes what clients type, in the order it comes.
async fn type_in(mut typed: mpsc::Receiver<Vec<u8>>, mut input: WriteHalf<LinkStream>) {
    while let Some(keys) = typed.recv().await {
        if input.write_all(&keys).await.is_err() {
            break;
        }
    }
    // The stream has to stay whole until its task is aborted.
    std::future::pending::<()>().await;
}

/// The command's output as lines of its log.
struct Log {
    queue: mpsc::Sender<LogRecord>,
    splitter: Splitter,
    sequence: u64,
}

impl Log {
    async fn write(&mut self, mut output: &[u8]) {
        while let Some((line, partial)) = self.splitter.next_line(&mut output) {
            self.send(line, partial).await;
        }
    }

    async fn finish(&mut self) {
        let last = std::mem::take(&mut self.splitter).finish();
        if !last.is_empty() {
            self.send(last, false).await;
        }
    }

    async fn send(&mut self, mut line: Vec<u8>, partial: bool) {
        // A terminal ends its lines with both.
        if !partial && line.last() == Some(&b'\r') {
            line.pop();
        }
        let record = LogRecord {
            sequence: self.sequence,
            time_ns: now_ns(),
            output: Output::Stdout,
            partial,
            line,
        };
        self.sequence += 1;
        // The log is closed after this task has ended.
        let _closed = self.queue.send(record).await;
    }
}
