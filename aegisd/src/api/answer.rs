//! Answers: JSON, bytes, errors, and streams of lines.

use std::io;

use aegis_core::fault::{Fault, Symbol};
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Response, StatusCode};
use rustix::io::Errno;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::route::Astray;
use crate::instance::InstanceError;

/// Lines that wait for a slow reader; then their source waits too.
const LINES: usize = 64;

/// The body of every answer.
pub type Body = BoxBody<Bytes, io::Error>;

/// A request that fails: a status and one sentence for people.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// Methods that the path has, for 405.
    pub allow: Option<&'static str>,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            allow: None,
        }
    }

    /// What every name is answered with that is not the instance's own.
    pub fn no_instance() -> Self {
        Self::new(StatusCode::NOT_FOUND, "instance not found")
    }

    /// A file operation that failed; `what` completes "cannot ...".
    pub fn of_io(what: &str, error: &io::Error) -> Self {
        let status = match error.kind() {
            io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
            io::ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => StatusCode::CONFLICT,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StatusCode::FORBIDDEN
            }
            // A link, which is not followed.
            _ if Errno::from_io_error(error) == Some(Errno::LOOP) => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, format!("cannot {what}: {error}"))
    }

    /// An operation of the instance that failed. Failures to wake it are 503: the
    /// same request may succeed later.
    pub fn of_instance(error: &InstanceError) -> Self {
        Self::of_fault(&error.fault())
    }

    fn of_fault(fault: &Fault) -> Self {
        let status = match fault.symbol {
            Symbol::NotFound => StatusCode::NOT_FOUND,
            Symbol::InvalidArgument | Symbol::InvalidHandle => StatusCode::BAD_REQUEST,
            Symbol::Disabled | Symbol::WrongState => StatusCode::CONFLICT,
            Symbol::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Symbol::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, fault.message.clone())
    }

    pub fn into_response(self) -> Response<Body> {
        let mut response = value(&json!({"error": self.message}));
        *response.status_mut() = self.status;
        if let Some(allow) = self.allow {
            let allow = hyper::header::HeaderValue::from_static(allow);
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }
}

impl From<Astray> for ApiError {
    fn from(astray: Astray) -> Self {
        match astray {
            Astray::Path => Self::new(StatusCode::NOT_FOUND, "no such route"),
            Astray::Encoding => {
                Self::new(StatusCode::BAD_REQUEST, "the address is not written right")
            }
            Astray::Method(allow) => Self {
                allow: Some(allow),
                ..Self::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    format!("only {allow} is possible here"),
                )
            },
        }
    }
}

/// An answer in JSON.
pub fn value(value: &Value) -> Response<Body> {
    typed("application/json", whole(value.to_string()))
}

/// An answer of raw bytes.
pub fn bytes(kind: &'static str, bytes: Vec<u8>) -> Response<Body> {
    typed(kind, whole(bytes))
}

/// An answer that comes from elsewhere as it is. Where that breaks off, so does this.
pub fn stream(body: Incoming) -> Response<Body> {
    Response::new(body.map_err(io::Error::other).boxed())
}

/// An answer that is written line by line, for as long as there is a sender.
pub fn lines() -> (Lines, Response<Body>) {
    let (sender, receiver) = mpsc::channel::<Bytes>(LINES);
    let frames = stream::unfold(receiver, |mut receiver| async {
        let line = receiver.recv().await?;
        Some((Ok::<_, io::Error>(Frame::data(line)), receiver))
    });
    let response = typed(
        "application/x-ndjson",
        BodyExt::boxed(StreamBody::new(frames)),
    );
    (Lines { sender }, response)
}

/// The way into an answer of lines.
#[derive(Clone, Debug)]
pub struct Lines {
    sender: mpsc::Sender<Bytes>,
}

impl Lines {
    /// Sends one line; `false` if nobody reads any more.
    pub async fn send(&self, value: &Value) -> bool {
        self.send_text(value.to_string()).await
    }

    /// Sends a text that is one line already.
    pub async fn send_text(&self, mut line: String) -> bool {
        line.push('\n');
        self.sender.send(line.into()).await.is_ok()
    }

    /// Waits until nobody reads any more.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

fn typed(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
