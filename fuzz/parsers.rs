//! Everything of the host that reads bytes a guest wrote, called with any bytes.
//!
//! The fuzz targets and the tests of aegis-vmm share these: none may panic, loop
//! or hold more than its bounds, whatever the bytes are.
//!
//! A frame carries checksums that no fuzzer guesses. So where frames are meant,
//! bytes that begin with an odd number are taken for a script of well-formed ones:
//!
//! ```text
//!   kind  epoch  stream  length (2)  payload ...    and so on
//! ```

#![allow(dead_code, reason = "each target uses one of them")]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use aegis_link::frame::{self, Frame, HEADER, Kind, MAX_PAYLOAD, Reader};
use aegis_link::log::{MAX_LINE, read_record};
use aegis_link::message::{MAX_MESSAGE, Message};
use aegis_link::mux::{Mux, MuxEvent, Role, WINDOW};

const KINDS: [Kind; 12] = [
    Kind::Message,
    Kind::MessagePart,
    Kind::Open,
    Kind::Data,
    Kind::Credit,
    Kind::Fin,
    Kind::Reset,
    Kind::Quiesce,
    Kind::Quiesced,
    Kind::Unquiesce,
    Kind::Resync,
    Kind::Resynced,
];

/// What a guest would have put on the channel.
fn channel(bytes: &[u8]) -> Vec<u8> {
    let Some((form, mut rest)) = bytes.split_first() else {
        return Vec::new();
    };
    if form % 2 == 0 {
        return rest.to_vec();
    }
    let mut out = Vec::new();
    while let [kind, epoch, stream, low, high, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (payload, left) = more.split_at(length.min(more.len()));
        let frame = Frame {
            kind: KINDS[usize::from(*kind) % KINDS.len()],
            epoch: u32::from(*epoch),
            stream: u32::from(*stream),
            payload,
        };
        frame::encode(&mut out, frame);
        rest = left;
    }
    out
}

/// Pieces as a channel may give them; their size is the input's choice.
fn pieces<'a>(bytes: &[u8], channel: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let size = bytes.last().map_or(1, |size| 1 + 40 * usize::from(*size));
    channel.chunks(size)
}

/// Finding frames.
pub(crate) fn frames(bytes: &[u8]) {
    let channel = channel(bytes);
    let mut reader = Reader::default();
    let (mut found, mut skipped) = (0, 0);
    for piece in pieces(bytes, &channel) {
        reader.push(piece);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= MAX_PAYLOAD);
                    found += HEADER + frame.payload.len();
                }
                Ok(None) => break,
                Err(_) => skipped += reader.take_skipped(),
            }
        }
    }
    assert!(found + skipped <= channel.len(), "no byte counts twice");
}

/// The host's side of the protocol, with two streams of its own open.
pub(crate) fn mux(bytes: &[u8]) {
    let channel = channel(bytes);
    let mut mux = Mux::new(Role::Host);
    let own = [mux.open(), mux.open()];
    let (mut out, mut buffer) = (Vec::new(), [0; 4096]);
    mux.transmit(&mut out, MAX_PAYLOAD);
    for piece in pieces(bytes, &channel) {
        if mux.receive(piece).is_err() {
            return;
        }
        while let Some(event) = mux.poll_event() {
            match event {
                MuxEvent::Message { bytes, charge } => {
                    assert!(bytes.len() <= MAX_MESSAGE);
                    mux.release(charge);
                }
                MuxEvent::Readable(id) => {
                    mux.claim(id);
                    mux.read(id, &mut buffer);
                }
                MuxEvent::Writable(_) | MuxEvent::Quiesced | MuxEvent::Resynced => {}
            }
        }
        for id in own.into_iter().flatten() {
            mux.write(id, &buffer);
        }
        out.clear();
        mux.transmit(&mut out, MAX_PAYLOAD);
        assert!(out.len() <= 2 * WINDOW as usize);
    }
}

/// A whole link: frames, messages, calls without an answer.
pub(crate) fn link(bytes: &[u8]) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let channel = channel(bytes);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else {
        return;
    };
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(MAX_PAYLOAD);
        let (handle, mut incoming) = aegis_link::start(ours, Role::Host);
        let (mut answers, mut guest) = tokio::io::split(theirs);
        let read = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(1..) = answers.read(&mut buffer).await {}
        });
        let taken = tokio::spawn(async move { while incoming.next().await.is_ok() {} });
        // It fails once the host has had enough.
        guest.write_all(&channel).await.ok();
        guest.shutdown().await.ok();
        drop(handle);
        taken.await.expect("taking what the guest sent");
        read.await.expect("reading what the host answers");
    });
}

/// Messages as JSON.
pub(crate) fn messages(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<Message>(bytes) else {
        return;
    };
    let again = serde_json::to_vec(&message).expect("a message is JSON");
    let read = serde_json::from_slice::<Message>(&again).expect("what was written is read");
    assert_eq!(read, message);
}

/// Records of the command's log.
pub(crate) fn log_records(mut bytes: &[u8]) {
    loop {
        let before = bytes.len();
        let mut context = Context::from_waker(Waker::noop());
        let read = pin!(read_record(&mut bytes)).poll(&mut context);
        match read {
            Poll::Ready(Ok(Some(record))) => assert!(record.line.len() <= MAX_LINE),
            Poll::Ready(Ok(None) | Err(_)) => return,
            Poll::Pending => unreachable!("bytes in memory are always ready"),
        }
        assert!(bytes.len() < before, "a record has a length");
    }
}

/// The console as error messages show it.
pub(crate) fn console(bytes: &[u8]) {
    for line in aegis_vmm::console::readable_lines(bytes) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(!line.trim().is_empty());
    }
}
