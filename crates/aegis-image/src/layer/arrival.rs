//! A layer that comes through a descriptor: kept in a file as it is read, since it is
//! read twice and a pipe gives its bytes once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How soon a cancellation is noticed while nothing comes, in milliseconds.
const TICK: u16 = 100;

pub(super) struct Arrival<'a> {
    from: &'a File,
    kept: File,
    cancelled: &'a AtomicBool,
}

impl<'a> Arrival<'a> {
    /// `kept` is empty.
    pub(super) fn new(from: &'a File, kept: File, cancelled: &'a AtomicBool) -> Self {
        Self {
            from,
            kept,
            cancelled,
        }
    }

    /// Some bytes, once there are any, also of a pipe that does not block.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let mut waiting = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waiting, PollTimeout::from(TICK)) {
                Ok(0) | Err(nix::Error::EINTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            match self.from.read(buffer) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                read => return read,
            }
        }
    }
}

impl Read for Arrival<'_> {
    /// Fills the buffer but at the end: a pipe may give a byte at a time, and what
    /// packed a layer is told by its first ones.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.receive(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        self.kept.write_all(&buffer[..filled])?;
        Ok(filled)
    }
}
