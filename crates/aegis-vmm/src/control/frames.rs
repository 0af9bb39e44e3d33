//! Newline-delimited JSON over a unix stream socket, with descriptors beside the
//! first byte of a frame (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aegis_core::control::MAX_FRAME;
use aegis_os::descriptors::{RECEIVE, SEND, keep};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Read at a time, in bytes. Nearly all frames are shorter.
const CHUNK: usize = 4096;

/// Most descriptors of a frame: three streams of a session and its control stream.
const MAX_SENT: usize = 4;

/// Why a connection carries no more frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("cannot read a frame")]
    Read(#[source] io::Error),
    #[error("cannot write a frame")]
    Write(#[source] io::Error),
    #[error("a frame is longer than {MAX_FRAME} bytes")]
    TooLong,
}

/// A connection that carries frames.
#[derive(Debug)]
pub struct FrameStream {
    socket: UnixStream,
    /// The descriptor that came last and was not taken yet; those beyond one at a time
    /// are closed.
    passed: Option<OwnedFd>,
    /// Read and not returned yet.
    buffer: Vec<u8>,
    /// So much of the buffer's beginning holds no newline.
    searched: usize,
}

impl FrameStream {
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            passed: None,
            buffer: Vec::new(),
            searched: 0,
        }
    }

    /// The next frame without its newline; `None` at the end of the connection,
    /// within a frame too. Loses nothing when it is dropped.
    ///
    /// # Errors
    /// When reading fails or the frame is too long.
    pub async fn read(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        loop {
            let unsearched = &self.buffer[self.searched..];
            if let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                let mut frame = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                frame.pop();
                return Ok(Some(frame));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() >= MAX_FRAME {
                return Err(FrameError::TooLong);
            }
            let mut chunk = [0; CHUNK];
            let received = self
                .socket
                .async_io(Interest::READABLE, || receive(&self.socket, &mut chunk));
            let (length, passed) = received.await.map_err(FrameError::Read)?;
            if length == 0 {
                return Ok(None);
            }
            self.buffer.extend_from_slice(&chunk[..length]);
            self.passed = passed.or(self.passed.take());
        }
    }

    /// The descriptor that came with a frame, or with one before it.
    pub fn take_passed(&mut self) -> Option<OwnedFd> {
        self.passed.take()
    }

    /// Writes a frame, its newline included, and its descriptors.
    ///
    /// # Errors
    /// When writing fails. A frame that was written in part makes the connection
    /// useless, so does a future that was dropped.
    pub async fn write(&self, frame: &[u8], fds: &[OwnedFd]) -> Result<(), FrameError> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let mut written = 0;
        while written < frame.len() {
            let rest = &frame[written..];
            let fds = if written == 0 { &fds[..] } else { &[] };
            let sent = self
                .socket
                .async_io(Interest::WRITABLE, || send(&self.socket, rest, fds));
            written += sent.await.map_err(FrameError::Write)?;
        }
        Ok(())
    }
}

/// Writes what there is room for, and the descriptors beside it.
fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SENT))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SEND,
    )?)
}

/// Reads what is there, and a descriptor beside it.
fn receive(socket: impl AsFd, chunk: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut places = [IoSliceMut::new(chunk)];
    let flags = RECEIVE | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut places, &mut ancillary, flags)?;
    let mut passed = None;
    // One that was cut off for want of space or descriptors is missed by who needs it.
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            for fd in fds {
                passed = Some(keep(fd)?);
            }
        }
    }
    Ok((received.bytes, passed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as StdUnixStream;

    fn pair() -> (FrameStream, StdUnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        (FrameStream::new(ours), theirs)
    }

    #[tokio::test]
    async fn frames_are_cut_at_newlines_however_they_arrive() {
        let (mut frames, mut peer) = pair();
        peer.write_all(b"one\ntw").unwrap();
        assert_eq!(frames.read().await.unwrap().unwrap(), b"one");
        peer.write_all(b"o\n\nthree").unwrap();
        drop(peer);
        assert_eq!(frames.read().await.unwrap().unwrap(), b"two");
        assert_eq!(frames.read().await.unwrap().unwrap(), b"");
        assert!(frames.read().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_without_an_end_is_refused() {
        let (mut frames, mut peer) = pair();
        let writer = std::thread::spawn(move || {
            let result = peer.write_all(&vec![b'x'; MAX_FRAME + CHUNK]);
            (peer, result)
        });
        assert!(matches!(frames.read().await, Err(FrameError::TooLong)));
        drop(frames);
        drop(writer.join().unwrap());
    }

    #[tokio::test]
    async fn a_descriptor_that_is_passed_can_be_taken_once() {
        let (mut frames, peer) = pair();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&peer, b"take\n", &[writer.as_fd()]).unwrap();
        drop(writer);
        assert_eq!(frames.read().await.unwrap().unwrap(), b"take");
        let mut passed = File::from(frames.take_passed().unwrap());
        assert!(frames.take_passed().is_none());
        passed.write_all(b"through").unwrap();
        drop(passed);
        let mut through = String::new();
        reader.read_to_string(&mut through).unwrap();
        assert_eq!(through, "through");
    }

    #[tokio::test]
    async fn descriptors_travel_with_the_first_byte() {
        let (frames, peer) = pair();
        let (mut reader, writer) = io::pipe().unwrap();
        frames.write(b"frame\n", &[writer.into()]).await.unwrap();
        let mut bytes = [0; 64];
        let (length, passed) = receive(&peer, &mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"frame\n");
        let mut passed = File::from(passed.unwrap());
        passed.write_all(b"through").unwrap();
        drop(passed);
        let mut through = String::new();
        reader.read_to_string(&mut through).unwrap();
        assert_eq!(through, "through");
    }
}
