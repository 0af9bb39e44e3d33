//! Character devices as tokio streams: the link's port and the masters of
//! terminals, neither of which tokio knows.
#![allow(
    unsafe_code,
    reason = "tokio asks for a promise about a descriptor's life"
)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a read means that a file would not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A virtio port. Reading nothing means that the host has not opened its
    /// side yet (Linux drivers/char/virtio_console.c, port_fops_read).
    Port,
    /// The master of a terminal. EIO means that no process has the slave open.
    Terminal,
}

/// A character device in non-blocking mode.
#[derive(Debug)]
pub(crate) struct Nonblocking {
    file: AsyncFd<File>,
    kind: Kind,
}

impl Nonblocking {
    /// The port of the link, opened non-blocking.
    pub(crate) fn port(file: File) -> io::Result<Nonblocking> {
        Nonblocking::register(file, Kind::Port)
    }

    /// The master of a terminal.
    pub(crate) fn terminal(master: OwnedFd) -> io::Result<Nonblocking> {
        let flags = OFlag::from_bits_truncate(fcntl(&master, FcntlArg::F_GETFL)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Nonblocking::register(File::from(master), Kind::Terminal)
    }

    fn register(file: File, kind: Kind) -> io::Result<Nonblocking> {
        // SAFETY: a File owns its descriptor and gives the same one until it is
        // dropped, and the AsyncFd it is moved into never gives it away.
        let file = unsafe { AsyncFd::register(file) }?;
        Ok(Nonblocking { file, kind })
    }

    fn read_now(&self, mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
        match self.kind {
            Kind::Terminal => match file.read(buffer) {
                Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
                outcome => outcome,
            },
            // A port gives a page at a time; the cost of a turn of the event
            // loop for each would show.
            Kind::Port => {
                let mut filled = 0;
                while filled < buffer.len() {
                    match file.read(&mut buffer[filled..]) {
                        Ok(0) => break,
                        Ok(count) => filled += count,
                        Err(_) if filled > 0 => break,
                        Err(error) => return Err(error),
                    }
                }
                if filled == 0 {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(filled)
                }
            }
        }
    }
}

impl AsyncRead for Nonblocking {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.file.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            if let Ok(outcome) = guard.try_io(|file| self.read_now(file.get_ref(), unfilled)) {
                return Poll::Ready(outcome.map(|count| buffer.advance(count)));
            }
        }
    }
}

impl AsyncWrite for Nonblocking {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.file.poll_write_ready(context))?;
            if let Ok(outcome) = guard.try_io(|file| file.get_ref().write(bytes)) {
                return Poll::Ready(outcome);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
