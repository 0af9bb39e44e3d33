//! A byte stream on the link.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::endpoint::{LinkError, Shared, State};
use crate::message::StreamId;
use crate::mux::{ReadState, WriteState};

/// A byte stream, like a socket: reads and writes are independent halves.
///
/// Shutting it down ends the sending half after what was written. Dropping it
/// after that still delivers everything; dropping it before resets the stream,
/// and the other side sees [`io::ErrorKind::ConnectionReset`]. Where the link
/// ended, reads give what had arrived and then
/// [`io::ErrorKind::ConnectionAborted`].
#[derive(Debug)]
pub struct LinkStream {
    shared: Arc<Shared>,
    id: StreamId,
    epoch: u32,
}

impl LinkStream {
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId, epoch: u32) -> LinkStream {
        LinkStream { shared, id, epoch }
    }

    /// Its number, for the call that gives it a meaning.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Something that outlives the halves and tells when the stream is dead.
    pub fn reset_watch(&self) -> ResetWatch {
        ResetWatch {
            shared: Arc::clone(&self.shared),
            id: self.id,
            epoch: self.epoch,
        }
    }
}

/// What became of a stream that is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vanished {
    /// It was reset or is over, or the link has ended.
    Stream,
    /// The host is a new one that knows nothing of it.
    Host,
}

/// Waits for the end of a stream that neither reads nor writes might see.
#[derive(Debug)]
pub struct ResetWatch {
    shared: Arc<Shared>,
    id: StreamId,
    epoch: u32,
}

impl ResetWatch {
    /// Resolves once the stream was reset by the other side, is over, or the
    /// link ended. One watch per stream at a time.
    pub async fn reset(&self) -> Vanished {
        poll_fn(|context| {
            let mut state = self.shared.lock();
            if state.mux.epoch() != self.epoch {
                return Poll::Ready(Vanished::Host);
            }
            if state.end.is_some() || state.mux.is_dead(self.id) {
                return Poll::Ready(Vanished::Stream);
            }
            state.watchers.insert(self.id, context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.shared.lock();
        if state.mux.epoch() != self.epoch {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        match state.mux.read(self.id, buffer.initialize_unfilled()) {
            ReadState::Data(count) => {
                buffer.advance(count);
                drop(state);
                self.shared.wake();
                Poll::Ready(Ok(()))
            }
            ReadState::End => Poll::Ready(Ok(())),
            ReadState::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            ReadState::Empty => match &state.end {
                Some(end) => Poll::Ready(Err(aborted(end))),
                None => {
                    state.readers.insert(self.id, context.waker().clone());
                    Poll::Pending
                }
            },
        }
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut state = self.shared.lock();
        if let Some(end) = &state.end {
            return Poll::Ready(Err(aborted(end)));
        }
        if state.mux.epoch() != self.epoch {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        match state.mux.write(self.id, bytes) {
            WriteState::Taken(count) => {
                drop(state);
                self.shared.wake();
                Poll::Ready(Ok(count))
            }
            WriteState::Full => {
                state.writers.insert(self.id, context.waker().clone());
                Poll::Pending
            }
            WriteState::Finished => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            WriteState::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_mux(|state| state.mux.finish(self.id));
        Poll::Ready(Ok(()))
    }
}

impl LinkStream {
    fn with_mux(&self, act: impl FnOnce(&mut State)) {
        let mut state = self.shared.lock();
        if state.mux.epoch() == self.epoch {
            act(&mut state);
            drop(state);
            self.shared.wake();
        }
    }
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        self.with_mux(|state| {
            state.readers.remove(&self.id);
            state.writers.remove(&self.id);
            state
                .watchers
                .remove(&self.id)
                .into_iter()
                .for_each(Waker::wake);
            state.mux.abandon(self.id);
        });
    }
}

fn aborted(end: &LinkError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, end.clone())
}
