//! Messages on a connection to a program in the guest: `POST /v1/tether/recv`, a frame
//! each, HTTP/1.1. What answers is the guest's own program, and is believed nothing but
//! a status and a sentence.

use std::io;
use std::time::Duration;

use aegis_core::tether::{GUEST_PORT, RECEIVE_PATH};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the program may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read of an answer, in bytes.
const MAX_ANSWER: usize = 16 * 1024;
/// What of it is shown, in characters.
const MAX_SHOWN: usize = 200;

/// What the program says to a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has it.
    Taken,
    /// It never will.
    Refused(String),
}

/// Why a message is not delivered.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("the connection to the guest's program broke")]
    Http(#[from] hyper::Error),
    #[error("a message cannot be written as a request")]
    Request(#[from] hyper::http::Error),
    #[error("the guest's program did not answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("the guest's program answered with {0}")]
    Status(StatusCode),
    #[error("cannot use the connection to the guest")]
    Io(#[from] io::Error),
}

/// A connection.
#[derive(Debug)]
pub struct Post {
    sender: SendRequest<Full<Bytes>>,
}

impl Post {
    /// Begins on a connection.
    ///
    /// # Errors
    /// It is none.
    pub async fn new(stream: UnixStream) -> Result<Self, PostError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender, or with the connection; whoever posts learns why.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender })
    }

    /// Whether another message can go this way.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Posts a message.
    ///
    /// # Errors
    /// It is not known whether the program has it.
    pub async fn post(&mut self, frame: String) -> Result<Answer, PostError> {
        self.post_to(RECEIVE_PATH, frame).await
    }

    /// Posts a JSON text to a path.
    ///
    /// # Errors
    /// As of [`Post::post`].
    pub async fn post_to(&mut self, path: &str, text: String) -> Result<Answer, PostError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, format!("127.0.0.1:{GUEST_PORT}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(text))?;
        let answered = async {
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            // To its end, so that another message can follow.
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await;
            Ok::<_, PostError>((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
        };
        let (status, body) = timeout(PATIENCE, answered)
            .await
            .map_err(|_| PostError::Late)??;
        judge(status, &body)
    }
}

/// A program that finds fault with the message itself will do so again. Anything else
/// may pass: it starts, it is full, it is another program.
fn judge(status: StatusCode, body: &[u8]) -> Result<Answer, PostError> {
    let finds_fault = [
        StatusCode::BAD_REQUEST,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::UNPROCESSABLE_ENTITY,
    ];
    match status {
        status if status.is_success() => Ok(Answer::Taken),
        status if finds_fault.contains(&status) => {
            let words = String::from_utf8_lossy(body);
            let words = words.chars().map(|c| if c.is_control() { ' ' } else { c });
            let words: String = words.take(MAX_SHOWN).collect();
            Ok(Answer::Refused(format!("{status}: {}", words.trim())))
        }
        status => Err(PostError::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_refused_for_what_it_is_alone() {
        assert_eq!(judge(StatusCode::ACCEPTED, b"").unwrap(), Answer::Taken);
        let refused = judge(StatusCode::BAD_REQUEST, b"no\x1bpe\n").unwrap();
        assert_eq!(
            refused,
            Answer::Refused("400 Bad Request: no pe".to_owned())
        );
        for status in [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE] {
            assert!(judge(status, b"").is_err());
        }
    }
}
