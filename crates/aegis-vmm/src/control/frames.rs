//! Newline-delimited JSON over a unix stream socket, with descriptors beside the
//! first byte of a frame (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use aegis_core::control::MAX_FRAME;
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Read at a time, in bytes. Nearly all frames are shorter.
const CHUNK: usize = 4096;

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
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let mut written = 0;
        while written < frame.len() {
            let rest = &frame[written..];
            let fds = if written == 0 { &fds[..] } else { &[] };
            let sent = self.socket.async_io(Interest::WRITABLE, || {
                Ok(Sender(&self.socket).send_with_fds(&[rest], fds)?)
            });
            written += sent.await.map_err(FrameError::Write)?;
        }
        Ok(())
    }
}

/// Reads what is there, and a descriptor beside it.
fn receive(socket: &UnixStream, chunk: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = cmsg_space!(RawFd);
    let mut places = [IoSliceMut::new(chunk)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut places, Some(&mut space), flags)?;
    let mut passed = None;
    // One that was cut off for want of space or descriptors is missed by who needs it.
    for message in received.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(fds) = message {
            for fd in fds {
                // SAFETY: recvmsg(2) made this descriptor for us just now.
                #[allow(unsafe_code, reason = "nix gives plain numbers")]
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                passed = Some(fd);
            }
        }
    }
    Ok((received.bytes, passed))
}

/// The socket as vmm-sys-util wants to see it.
struct Sender<'a>(&'a UnixStream);

impl ScmSocket for Sender<'_> {
    fn socket_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
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
        let (reader, writer) = nix::unistd::pipe().unwrap();
        peer.send_with_fd(&b"take\n"[..], writer.as_raw_fd())
            .unwrap();
        drop(writer);
        assert_eq!(frames.read().await.unwrap().unwrap(), b"take");
        let mut passed = File::from(frames.take_passed().unwrap());
        assert!(frames.take_passed().is_none());
        passed.write_all(b"through").unwrap();
        drop(passed);
        let mut through = String::new();
        File::from(reader).read_to_string(&mut through).unwrap();
        assert_eq!(through, "through");
    }

    #[tokio::test]
    async fn descriptors_travel_with_the_first_byte() {
        let (frames, peer) = pair();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        frames.write(b"frame\n", &[writer]).await.unwrap();
        let mut bytes = [0; 64];
        let (length, file) = peer.recv_with_fd(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"frame\n");
        file.unwrap().write_all(b"through").unwrap();
        let mut through = String::new();
        File::from(reader).read_to_string(&mut through).unwrap();
        assert_eq!(through, "through");
    }
}
