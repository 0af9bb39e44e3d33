//! `POST /v1/instances/NAME/exec`: a command in the guest, its output as lines.
//!
//! The command's session is the VM owner's; here its pipes become lines. A client
//! that goes away hangs the command up, and so does the end of aegisd: the client
//! sees its answer end without the last line and asks again.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use aegis_core::control::{ExecEvent, ExecRequest};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::secret::SecretEnv;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use super::answer::{ApiError, Body, Lines, lines};
use super::http::Asked;
use super::shape::time;
use crate::instance::now_us;

/// Longest line of output in bytes; a longer one comes in parts.
const MAX_LINE: usize = 16 * 1024;

#[derive(Debug, Deserialize)]
struct Request {
    command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// Who and what the lines are about.
#[derive(Clone, Debug)]
struct Session {
    instance: String,
    id: String,
}

pub(super) async fn run(asked: &Asked, body: Bytes) -> Result<Response<Body>, ApiError> {
    let request: Request = serde_json::from_slice(&body).map_err(|error| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("the body is not a request: {error}"),
        )
    })?;
    let began = now_us();
    let request = ExecRequest {
        argv: request.command,
        env: request.env,
        ..ExecRequest::default()
    };
    let descriptors = asked.instance.exec(request, SecretEnv::new()).await;
    let descriptors = descriptors.map_err(|error| ApiError::of_instance(&error))?;
    let session = Session {
        instance: asked.instance.handle().to_string(),
        id: format!("exec-{began}"),
    };
    let streams = Streams::new(descriptors)
        .map_err(|error| ApiError::of_io("take the streams of the command", &error))?;
    let (lines, response) = lines();
    tokio::spawn(async move {
        let first = json!({"exec_id": session.id, "started_at": time(began)});
        if lines.send(&first).await {
            carry(streams, &session, &lines).await;
        }
    });
    Ok(response)
}

/// Our ends of a session.
struct Streams {
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    control: UnixStream,
}

impl Streams {
    /// Stdin is closed at once: the command finds it at its end.
    fn new(descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let four: [OwnedFd; 4] = descriptors
            .try_into()
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let [_stdin, stdout, stderr, control] = four;
        let control = StdUnixStream::from(control);
        control.set_nonblocking(true)?;
        Ok(Self {
            stdout: pipe::Receiver::from_owned_fd(stdout)?,
            stderr: pipe::Receiver::from_owned_fd(stderr)?,
            control: UnixStream::from_std(control)?,
        })
    }
}

async fn carry(streams: Streams, session: &Session, lines: &Lines) {
    let Streams {
        stdout,
        stderr,
        control,
    } = streams;
    let all = async {
        let (end, (), ()) = tokio::join!(
            last_event(control),
            copy(stdout, "stdout", session, lines),
            copy(stderr, "stderr", session, lines),
        );
        end
    };
    // Dropping the streams is what hangs the command up.
    let end = tokio::select! {
        end = all => end,
        () = lines.closed() => return,
    };
    let mut last = json!({
        "exec_id": session.id,
        "exit_code": end.exit_code(),
        "done": true,
    });
    if let ExecEvent::Failed(fault) = end {
        last["error"] = json!(fault.message);
    }
    lines.send(&last).await;
}

/// The event that ends a session; it comes after all output.
async fn last_event(control: UnixStream) -> ExecEvent {
    let mut events = BufReader::new(control).lines();
    while let Ok(Some(line)) = events.next_line().await {
        match serde_json::from_str::<ExecEvent>(&line) {
            Ok(event) if event.is_final() => return event,
            _ => {}
        }
    }
    ExecEvent::Failed(Fault::new(
        Symbol::VmEnded,
        "the VM ended before the command did",
    ))
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    stream: &'static str,
    session: &Session,
    lines: &Lines,
) {
    let mut cutter = Cutter::default();
    let mut buffer = vec![0; MAX_LINE];
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        let cut = match length {
            0 => cutter.rest(),
            length => cutter.cut(&buffer[..length]),
        };
        for part in cut {
            if !lines.send(&part.to_json(stream, session)).await {
                return;
            }
        }
        if length == 0 {
            return;
        }
    }
}

/// A line of output, or a part of one.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    bytes: Vec<u8>,
    /// The line goes on in the next part.
    partial: bool,
}

impl Part {
    fn to_json(&self, stream: &str, session: &Session) -> Value {
        let mut line = json!({
            "ts": time(now_us()),
            "stream": stream,
            "line": String::from_utf8_lossy(&self.bytes),
            "source": "exec",
            "instance_id": session.instance,
            "exec_id": session.id,
        });
        if self.partial {
            line["partial"] = json!(true);
        }
        line
    }
}

/// Cuts bytes into lines without their newlines.
#[derive(Debug, Default)]
struct Cutter {
    begun: Vec<u8>,
}

impl Cutter {
    fn cut(&mut self, bytes: &[u8]) -> Vec<Part> {
        let mut parts = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.begun.extend_from_slice(text);
            while self.begun.len() > MAX_LINE {
                let rest = self.begun.split_off(MAX_LINE);
                let bytes = std::mem::replace(&mut self.begun, rest);
                parts.push(Part {
                    bytes,
                    partial: true,
                });
            }
            if ends {
                parts.push(Part {
                    bytes: std::mem::take(&mut self.begun),
                    partial: false,
                });
            }
        }
        parts
    }

    /// What is left when the output ends within a line.
    fn rest(&mut self) -> Vec<Part> {
        let bytes = std::mem::take(&mut self.begun);
        let part = (!bytes.is_empty()).then_some(Part {
            bytes,
            partial: false,
        });
        part.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(parts: Vec<Part>) -> Vec<(String, bool)> {
        let text = |part: Part| (String::from_utf8(part.bytes).unwrap(), part.partial);
        parts.into_iter().map(text).collect()
    }

    #[test]
    fn output_is_cut_into_lines_wherever_it_is_read() {
        let mut cutter = Cutter::default();
        assert_eq!(texts(cutter.cut(b"a\nb")), [("a".into(), false)]);
        assert_eq!(
            texts(cutter.cut(b"c\n\n")),
            [("bc".into(), false), (String::new(), false)]
        );
        assert_eq!(texts(cutter.cut(b"end")), []);
        assert_eq!(texts(cutter.rest()), [("end".into(), false)]);
        assert_eq!(texts(cutter.rest()), []);
    }

    #[test]
    fn a_long_line_comes_in_parts_and_is_never_held_whole() {
        let mut cutter = Cutter::default();
        let long = vec![b'x'; MAX_LINE * 2 + 5];
        let mut parts = cutter.cut(&long);
        assert!(cutter.begun.len() <= MAX_LINE);
        parts.extend(cutter.cut(b"\n"));
        let lengths: Vec<_> = parts
            .iter()
            .map(|part| (part.bytes.len(), part.partial))
            .collect();
        assert_eq!(lengths, [(MAX_LINE, true), (MAX_LINE, true), (5, false)]);
    }
}
