//! Newline-delimited JSON frames over a unix stream, with descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

use aegis_core::control::{CallFrame, MAX_FRAME, OwnerFrame};
use aegis_os::descriptors::{RECEIVE, SEND, keep};
use rustix::fd::OwnedFd;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The most descriptors one frame brings: the four of an exec.
const MAX_DESCRIPTORS: usize = 4;
/// Bytes asked of the socket at once; most frames are smaller.
const CHUNK: usize = 16 * 1024;

/// Why frames cannot be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    #[error("cannot write to the control socket")]
    Write(#[source] io::Error),
    #[error("cannot read from the control socket")]
    Read(#[source] io::Error),
    #[error("a frame is longer than {MAX_FRAME} bytes")]
    TooLong,
    #[error("a call cannot be put into words")]
    Encode(#[source] serde_json::Error),
    #[error("a frame is not understood")]
    Decode(#[source] serde_json::Error),
}

/// One connection to an owner.
#[derive(Debug)]
pub(super) struct Frames {
    stream: UnixStream,
    /// Bytes read and not yet given out.
    bytes: Vec<u8>,
    /// Descriptors that came with them. The owner sends them with the first byte
    /// of their frame and waits with the next frame for nothing, so at most the
    /// frame at hand has some.
    descriptors: Vec<OwnedFd>,
}

impl Frames {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, frame: &CallFrame) -> Result<(), FramesError> {
        let mut bytes = serde_json::to_vec(frame).map_err(FramesError::Encode)?;
        bytes.push(b'\n');
        if bytes.len() > MAX_FRAME {
            return Err(FramesError::TooLong);
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let written = self.stream.async_io(Interest::WRITABLE, || {
                let mut none = SendAncillaryBuffer::default();
                let parts = [IoSlice::new(rest)];
                // NOSIGNAL: an owner that ended is an error, not a signal.
                Ok(sendmsg(&self.stream, &parts, &mut none, SEND)?)
            });
            rest = &rest[written.await.map_err(FramesError::Write)?..];
        }
        Ok(())
    }

    /// The next frame and its descriptors; `None` when the owner closed.
    pub(super) async fn receive(
        &mut self,
    ) -> Result<Option<(OwnerFrame, Vec<OwnedFd>)>, FramesError> {
        loop {
            if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                let frame = serde_json::from_slice(&line).map_err(FramesError::Decode)?;
                return Ok(Some((frame, std::mem::take(&mut self.descriptors))));
            }
            if self.bytes.len() >= MAX_FRAME {
                return Err(FramesError::TooLong);
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn fill(&mut self) -> Result<usize, FramesError> {
        let Self {
            stream,
            bytes,
            descriptors,
        } = self;
        let read = stream.async_io(Interest::READABLE, || {
            let mut chunk = [0; CHUNK];
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut chunk)];
            let flags = RECEIVE | RecvFlags::DONTWAIT;
            let received = recvmsg(&*stream, &mut parts, &mut ancillary, flags)?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    for descriptor in rights {
                        descriptors.push(keep(descriptor)?);
                    }
                }
            }
            bytes.extend_from_slice(&chunk[..received.bytes]);
            Ok(received.bytes)
        });
        read.await.map_err(FramesError::Read)
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::control::{Answer, Call};
    use rustix::net::SendAncillaryMessage;
    use std::os::fd::AsFd;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn frames_come_whole_with_their_descriptors() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut frames = Frames::new(ours);
        let call = Call::Status;
        frames.send(&CallFrame { id: 1, call }).await.unwrap();
        let mut line = vec![0; 26];
        let count = theirs.read(&mut line).await.unwrap();
        assert_eq!(&line[..count], b"{\"id\":1,\"call\":\"status\"}\n");

        let text = b"{\"id\":1,\"ok\":\"exec\",\"fds\":2}\n{\"id\":2,";
        let file = std::fs::File::open("/dev/null").unwrap();
        let rights = [file.as_fd(), file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&rights)));
        let parts = [IoSlice::new(text)];
        sendmsg(&theirs, &parts, &mut ancillary, SEND).unwrap();
        let (frame, descriptors) = frames.receive().await.unwrap().unwrap();
        assert!(matches!(
            frame,
            OwnerFrame::Answer {
                ok: Answer::Exec,
                fds: 2,
                ..
            }
        ));
        assert_eq!(descriptors.len(), 2);

        theirs.write_all(b"\"ok\":\"exec\"}\n").await.unwrap();
        let (frame, descriptors) = frames.receive().await.unwrap().unwrap();
        assert!(matches!(frame, OwnerFrame::Answer { id: 2, .. }));
        assert!(descriptors.is_empty());
        drop(theirs);
        assert!(frames.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_without_an_end_is_refused() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut frames = Frames::new(ours);
        let flood = tokio::spawn(async move {
            let chunk = vec![b'x'; CHUNK];
            while theirs.write_all(&chunk).await.is_ok() {}
        });
        let error = frames.receive().await.unwrap_err();
        assert!(matches!(error, FramesError::TooLong));
        drop(frames);
        flood.await.unwrap();
    }
}
