//! What a program asks of a link: calls, streams, silence, the end.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::endpoint::{LinkError, Shared, State};
use crate::message::{
    Boot, Booted, Call, Event, Exec, Fault, MAX_MESSAGE, Message, Process, ProcessEnd, Program,
    Reply, Restored, SessionId, Stats, TtySize,
};
use crate::mux::MAX_STREAMS;
use crate::stream::LinkStream;

/// Calls one side may have open. Each exec session has one that waits for its
/// end, so this is also the bound on those.
pub const MAX_CALLS: usize = 2048;

/// One side of a link. Cheap to clone; all clones are the same link.
///
/// Calls are cancel-safe: dropping the future gives the call up. None has a
/// deadline, because a guest may be paused; who needs one puts it around.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The other side answered that it failed.
    #[error("The other side of the link refused the call")]
    Fault(#[source] Fault),
    /// The link ended before a reply came.
    #[error("The link ended before the reply")]
    Link(#[source] LinkError),
    /// The reply is none to this call.
    #[error("The reply does not fit the call")]
    UnexpectedReply,
    /// The message is longer than it may be.
    #[error("The request takes {length} bytes, more than the {MAX_MESSAGE} of a message")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// [`MAX_STREAMS`] streams are open.
    #[error("All {MAX_STREAMS} streams of the link are in use")]
    TooManyStreams,
    /// [`MAX_CALLS`] calls are open.
    #[error("All {MAX_CALLS} calls of the link are in use")]
    TooManyCalls,
}

/// A running exec session.
#[derive(Debug)]
pub struct ExecSession {
    /// Names it in [`Handle::wait`], [`Handle::signal`] and [`Handle::resize`].
    pub session: SessionId,
    /// Process id in the guest.
    pub pid: u32,
    /// Write: stdin, closed by a shutdown. Read: stdout, or the terminal.
    /// Dropping it with stdin open hangs the session up (SIGHUP). After the
    /// shutdown a drop only discards the output; who wants a hang-up then has
    /// to send the signal.
    pub stdio: LinkStream,
    /// Read: stderr; none with a terminal.
    pub stderr: Option<LinkStream>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        Handle { shared }
    }

    /// Tells the guest what to become; it answers once its root is assembled.
    ///
    /// # Errors
    /// [`CallError`]; a fault has one of the `Boot…` symbols.
    pub async fn boot(&self, boot: Boot) -> Result<Booted, CallError> {
        match self.call(Call::Boot(Box::new(boot))).await? {
            Reply::Booted(booted) => Ok(booted),
            _ => Err(CallError::UnexpectedReply),
        }
    }

    /// Starts a program, on a terminal if a size is given.
    ///
    /// # Errors
    /// [`CallError`]; a fault says why the program cannot be started.
    pub async fn exec(
        &self,
        program: Program,
        tty: Option<TtySize>,
    ) -> Result<ExecSession, CallError> {
        let stdio = self.open()?;
        let stderr = if tty.is_none() {
            Some(self.open()?)
        } else {
            None
        };
        let session = {
            let mut state = self.shared.lock();
            state.next_session += 1;
            // Never used twice, also over a restore.
            u64::from(state.mux.epoch()) << 32 | state.next_session
        };
        let exec = Exec {
            session,
            stdio: stdio.id(),
            stderr: stderr.as_ref().map(LinkStream::id),
            program,
            tty,
        };
        match self.call(Call::Exec(Box::new(exec))).await? {
            Reply::Started { pid } => Ok(ExecSession {
                session,
                pid,
                stdio,
                stderr,
            }),
            _ => Err(CallError::UnexpectedReply),
        }
    }

    /// Waits for the end of a session. To be called once for each; the guest
    /// keeps the answer until then.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn wait(&self, session: SessionId) -> Result<ProcessEnd, CallError> {
        match self.call(Call::Wait { session }).await? {
            Reply::Ended { end } => Ok(end),
            _ => Err(CallError::UnexpectedReply),
        }
    }

    /// Sends a signal to the process group of a session.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn signal(&self, session: SessionId, signal: i32) -> Result<(), CallError> {
        self.done(Call::Signal { session, signal }).await
    }

    /// Changes the size of a session's terminal.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn resize(&self, session: SessionId, size: TtySize) -> Result<(), CallError> {
        self.done(Call::Resize { session, size }).await
    }

    /// Connects to a TCP port on the guest's loopback.
    ///
    /// # Errors
    /// [`CallError`]; a fault if nothing listens there.
    pub async fn dial(&self, port: u16) -> Result<LinkStream, CallError> {
        let stream = self.open()?;
        self.done(Call::Dial {
            stream: stream.id(),
            port,
        })
        .await?;
        Ok(stream)
    }

    /// Sets the guest's wall clock, in nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn set_time(&self, time_ns: u64) -> Result<(), CallError> {
        self.done(Call::SetTime { time_ns }).await
    }

    /// Asks the guest to hand over all output and to take no more; its disks are
    /// written when it answers. What comes of a program meanwhile waits in the guest.
    ///
    /// # Errors
    /// [`CallError`]; a fault if something does not take its input.
    pub async fn suspend(&self) -> Result<(), CallError> {
        self.done(Call::Suspend).await
    }

    /// Takes [`Handle::suspend`] back, also one that has no answer yet.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn unsuspend(&self, time_ns: u64) -> Result<(), CallError> {
        self.done(Call::Unsuspend { time_ns }).await
    }

    /// Tells a restored guest what has become of the world; its output flows again.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn restored(&self, restored: Restored) -> Result<(), CallError> {
        self.done(Call::Restored(restored)).await
    }

    /// Takes a session on a terminal over that a host before this one had started.
    ///
    /// # Errors
    /// [`CallError`]; a fault if there is none whose output goes on.
    pub async fn adopt(&self, session: SessionId) -> Result<LinkStream, CallError> {
        let stream = self.open()?;
        self.done(Call::Adopt {
            session,
            stream: stream.id(),
        })
        .await?;
        Ok(stream)
    }

    /// Has the guest break off its TCP connections to other hosts.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn reset_flows(&self) -> Result<(), CallError> {
        self.done(Call::ResetFlows).await
    }

    /// Asks the guest for figures.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn stats(&self) -> Result<Stats, CallError> {
        match self.call(Call::Stats).await? {
            Reply::Stats(stats) => Ok(stats),
            _ => Err(CallError::UnexpectedReply),
        }
    }

    /// Asks the guest which processes it has.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn processes(&self) -> Result<Vec<Process>, CallError> {
        match self.call(Call::Processes).await? {
            Reply::Processes { processes } => Ok(processes),
            _ => Err(CallError::UnexpectedReply),
        }
    }

    /// Sends a signal to the process group that a process of the guest leads.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn signal_process(&self, pid: u32, signal: i32) -> Result<(), CallError> {
        self.done(Call::SignalProcess { pid, signal }).await
    }

    /// Asks whether anyone is there.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ping(&self) -> Result<(), CallError> {
        self.done(Call::Ping).await
    }

    /// Asks the guest to end in order. The reply comes at once; the link ends
    /// with the guest, some seconds after the grace at the latest.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn stop(&self, grace_ms: u32) -> Result<(), CallError> {
        self.done(Call::Stop { grace_ms }).await
    }

    /// Any call, its reply not interpreted.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let (pending, reply) = PendingCall::start(&self.shared, call)?;
        let outcome = reply.await;
        drop(pending);
        match outcome {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(fault)) => Err(CallError::Fault(fault)),
            Err(_) => Err(CallError::Link(self.end_reason())),
        }
    }

    /// Tells the other side of something. Events are few by their nature: they
    /// wait without a bound on this side.
    pub fn send_event(&self, event: Event) {
        self.shared
            .lock()
            .mux
            .send_message(Message::Event { event }.to_json(), true);
        self.shared.wake();
    }

    /// Opens a byte stream. Nothing waits for the other side; a call or an
    /// event then says what it is for.
    ///
    /// # Errors
    /// [`CallError::TooManyStreams`], or [`CallError::Link`] after the end.
    pub fn open(&self) -> Result<LinkStream, CallError> {
        let mut state = self.shared.lock();
        if let Some(end) = &state.end {
            return Err(CallError::Link(end.clone()));
        }
        let id = state.mux.open().ok_or(CallError::TooManyStreams)?;
        let epoch = state.mux.epoch();
        drop(state);
        Ok(LinkStream::new(Arc::clone(&self.shared), id, epoch))
    }

    /// Host: brings both directions to silence at a frame boundary, for a save.
    /// Streams keep what they hold; writes wait.
    ///
    /// # Errors
    /// [`CallError::Link`] if the link ends before the guest is silent.
    pub async fn quiesce(&self) -> Result<(), CallError> {
        let (sender, quiesced) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if let Some(end) = &state.end {
                return Err(CallError::Link(end.clone()));
            }
            state.mux.quiesce();
            state.quiescing.push(sender);
        }
        self.shared.wake();
        quiesced
            .await
            .map_err(|_| CallError::Link(self.end_reason()))
    }

    /// Host: goes on after [`Handle::quiesce`] where nothing was saved, or where
    /// the saved guest runs on.
    pub fn unquiesce(&self) {
        self.shared.lock().mux.unquiesce();
        self.shared.wake();
    }

    /// The epoch of the link, which belongs to a save.
    pub fn epoch(&self) -> u32 {
        self.shared.lock().mux.epoch()
    }

    /// Waits until everything that was sent or written is on the channel, as
    /// far as the other side gives leave.
    ///
    /// # Errors
    /// [`CallError::Link`] if the link ends before.
    pub async fn flush(&self) -> Result<(), CallError> {
        let (sender, flushed) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if let Some(end) = &state.end {
                return Err(CallError::Link(end.clone()));
            }
            state.flushing.push(sender);
        }
        self.shared.wake();
        flushed
            .await
            .map_err(|_| CallError::Link(self.end_reason()))
    }

    /// Waits until nothing waits on this side: all that was sent or written is on the
    /// channel, and all that was received is taken and read.
    ///
    /// # Errors
    /// [`CallError::Link`] if the link ends before.
    pub async fn settled(&self) -> Result<(), CallError> {
        let (sender, settled) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if let Some(end) = &state.end {
                return Err(CallError::Link(end.clone()));
            }
            state.settling.push(sender);
        }
        self.shared.wake();
        settled
            .await
            .map_err(|_| CallError::Link(self.end_reason()))
    }

    /// Ends the link at once.
    pub fn close(&self) {
        self.shared.end(LinkError::Closed);
    }

    /// Resolves with the reason once the link has ended.
    pub async fn closed(&self) -> LinkError {
        let mut ended = self.shared.ended();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(LinkError::Closed),
            Err(_) => LinkError::Closed,
        }
    }

    #[cfg(test)]
    pub(crate) fn state_for_tests(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.lock()
    }

    async fn done(&self, call: Call) -> Result<(), CallError> {
        match self.call(call).await? {
            Reply::Done => Ok(()),
            _ => Err(CallError::UnexpectedReply),
        }
    }

    fn end_reason(&self) -> LinkError {
        self.shared.lock().end.clone().unwrap_or(LinkError::Closed)
    }
}

/// A call that waits; dropping it forgets the call, and takes it back if
/// nothing of it was sent.
struct PendingCall<'a> {
    shared: &'a Shared,
    id: u64,
    tag: u64,
    epoch: u32,
}

type ReplyReceiver = oneshot::Receiver<Result<Reply, Fault>>;

impl<'a> PendingCall<'a> {
    fn start(
        shared: &'a Shared,
        call: Call,
    ) -> Result<(PendingCall<'a>, ReplyReceiver), CallError> {
        let (sender, reply) = oneshot::channel();
        let mut state = shared.lock();
        let State {
            calls,
            mux,
            next_call,
            end,
            ..
        } = &mut *state;
        if let Some(end) = end {
            return Err(CallError::Link(end.clone()));
        }
        if calls.len() >= MAX_CALLS {
            return Err(CallError::TooManyCalls);
        }
        *next_call += 1;
        let id = *next_call;
        let json = Message::Call { id, call }.to_json();
        if json.len() > MAX_MESSAGE {
            return Err(CallError::TooLong { length: json.len() });
        }
        calls.insert(id, sender);
        let pending = PendingCall {
            shared,
            id,
            tag: mux.send_message(json, false),
            epoch: mux.epoch(),
        };
        drop(state);
        shared.wake();
        Ok((pending, reply))
    }
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.mux.epoch() == self.epoch && state.calls.remove(&self.id).is_some() {
            state.mux.cancel(self.tag);
        }
    }
}
