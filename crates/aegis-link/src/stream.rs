//! A byte stream on the link.

use crate::message::StreamId;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte stream. `shutdown` closes the sending half, dropping it before both
/// halves have ended resets it.
#[derive(Debug)]
pub struct LinkStream {
    pub(crate) id: StreamId,
}

impl LinkStream {
    /// Its number.
    pub fn id(&self) -> StreamId {
        self.id
    }
}
impl AsyncRead for LinkStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        unimplemented!()
    }
}
impl AsyncWrite for LinkStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        unimplemented!()
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        unimplemented!()
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        unimplemented!()
    }
}
