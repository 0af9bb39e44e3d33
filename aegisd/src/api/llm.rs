//! Models that run on the host, for programs in the guest: a request goes to a server
//! that the user runs, and its answer to the guest as it comes. The guest gets no way
//! into the host's network by it, and cannot name another address.
//!
//! | provider | address, unless the variable of aegisd's environment says another |
//! |---|---|
//! | `ollama` | `http://127.0.0.1:11434`, `AEGIS_OLLAMA_URL` |
//! | `lmstudio` | `http://127.0.0.1:1234`, `AEGIS_LMSTUDIO_URL` |
//! | `vllm` | `http://127.0.0.1:8000`, `AEGIS_VLLM_URL` |
//!
//! A program that accepts `text/event-stream` gets the answer itself. Others get it as
//! the original gave it: piece by piece, posted to their own port.

use std::time::Duration;

use aegis_core::capabilities;
use aegis_core::tether::GUEST_PORT;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answer::{ApiError, Body, stream, value};
use super::guest::read;
use super::http::Asked;
use crate::instance::{Instance, now_us};
use crate::messages::post::{Post, PostError};

/// Providers, their usual addresses, and what tells of others.
const PROVIDERS: [(&str, &str, &str); 3] = [
    ("ollama", "http://127.0.0.1:11434", "AEGIS_OLLAMA_URL"),
    ("lmstudio", "http://127.0.0.1:1234", "AEGIS_LMSTUDIO_URL"),
    ("vllm", "http://127.0.0.1:8000", "AEGIS_VLLM_URL"),
];
/// The path that all of them have.
const CHAT_PATH: &str = "/v1/chat/completions";
/// What asks for an answer as it comes (WHATWG HTML, "Server-sent events").
const EVENTS: &str = "text/event-stream";
/// The path in the guest that pieces of an answer are posted to.
const PIECES_PATH: &str = "/v1/llm/recv";
/// How long the server may take to be connected to, and to begin its answer: it may
/// have to load a model.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_PATIENCE: Duration = Duration::from_secs(300);
/// Longest line of an answer that goes piece by piece, in bytes.
const MAX_LINE: usize = 256 * 1024;

#[derive(Debug, Deserialize)]
struct Chat {
    provider: String,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    req_id: Option<String>,
    body: Value,
}

/// `POST /v1/llm/chat`.
pub(super) async fn chat(
    asked: &Asked,
    head: &Parts,
    body: Bytes,
) -> Result<Response<Body>, ApiError> {
    let Chat {
        provider,
        model,
        req_id,
        body: mut request,
    } = read(&body)?;
    let may = capabilities::may_use_models(&asked.instance.record().spec.capabilities);
    may.map_err(|denial| ApiError::new(StatusCode::FORBIDDEN, denial.to_string()))?;
    if let (Some(model), Some(fields)) = (model, request.as_object_mut()) {
        fields.entry("model").or_insert(model.into());
    }
    let answer = ask(&provider, request.to_string()).await?;
    let accepts = head.headers.get(ACCEPT).and_then(|kind| kind.to_str().ok());
    if accepts.is_some_and(|kind| kind.contains(EVENTS)) {
        return Ok(pass_on(answer));
    }
    let req_id = req_id.unwrap_or_else(|| format!("llm-{}", now_us()));
    let (instance, id) = (asked.instance.clone(), req_id.clone());
    tokio::spawn(async move {
        if let Err(error) = piece_by_piece(&instance, &id, answer).await {
            let handle = instance.handle();
            tracing::warn!(instance = %handle, "{handle}: a model's answer: {error}, ignoring");
        }
    });
    Ok(value(&json!({"req_id": req_id})))
}

/// Where a provider's server is.
fn address(provider: &str) -> Result<Uri, ApiError> {
    let bad = |message| ApiError::new(StatusCode::BAD_REQUEST, message);
    let known = PROVIDERS.iter().find(|(name, _, _)| *name == provider);
    let (_, usual, variable) = known.ok_or_else(|| {
        let names = PROVIDERS.map(|(name, _, _)| name).join(", ");
        bad(format!(
            "there is no provider '{provider}' on the host; there are {names}"
        ))
    })?;
    let text = std::env::var(variable).unwrap_or_else(|_| (*usual).to_owned());
    let address: Option<Uri> = text.parse().ok();
    let address =
        address.filter(|address| address.scheme_str() == Some("http") && address.host().is_some());
    address.ok_or_else(|| {
        let message = format!("{variable} in the environment of aegisd is not http://HOST:PORT");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })
}

async fn ask(provider: &str, request: String) -> Result<Response<Incoming>, ApiError> {
    let address = address(provider)?;
    let authority = address
        .authority()
        .map(ToString::to_string)
        .unwrap_or_default();
    let failed = |why: String| {
        let message = format!("{provider} at {authority} does not answer: {why}");
        ApiError::new(StatusCode::BAD_GATEWAY, message)
    };
    let host = address
        .host()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let port = address.port_u16().unwrap_or(80);
    let connected = timeout(CONNECT_PATIENCE, TcpStream::connect((host.as_str(), port))).await;
    let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let connection = connected.map_err(|error| failed(error.to_string()))?;
    let begun = http1::handshake(TokioIo::new(connection)).await;
    let (mut sender, connection) = begun.map_err(|error| failed(error.to_string()))?;
    tokio::spawn(async move { drop(connection.await) });
    let path = format!("{}{CHAT_PATH}", address.path().trim_end_matches('/'));
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, &authority)
        .header(ACCEPT, EVENTS)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(request))
        .map_err(|error| failed(error.to_string()))?;
    match timeout(ANSWER_PATIENCE, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(|error| failed(error.to_string())),
        Err(_) => Err(failed(format!(
            "not within {} s",
            ANSWER_PATIENCE.as_secs()
        ))),
    }
}

/// The answer itself: its status, its kind, and its bytes as they come.
fn pass_on(answer: Response<Incoming>) -> Response<Body> {
    let (head, body) = answer.into_parts();
    let mut response = stream(body);
    *response.status_mut() = head.status;
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    response
}

/// The answer as the original gave it: each event's data in a request of its own, in
/// order, and what tells its end.
async fn piece_by_piece(
    instance: &Instance,
    req_id: &str,
    mut answer: Response<Incoming>,
) -> Result<(), PostError> {
    let mut post = None;
    let mut lines = EventData::default();
    let mut end = json!({"type": "llm.done", "req_id": req_id});
    let failed = |why: String| json!({"type": "llm.error", "req_id": req_id, "error": why});
    if !answer.status().is_success() {
        end = failed(format!(
            "the model's server answered with {}",
            answer.status()
        ));
    }
    while let Some(frame) = answer.frame().await {
        let Ok(frame) = frame else {
            end = failed("the model's server broke off".to_owned());
            break;
        };
        for data in lines.cut(frame.data_ref().map_or(&[], |bytes| bytes)) {
            if data == "[DONE]" {
                continue;
            }
            let piece = json!({"type": "llm.delta", "req_id": req_id, "data": data});
            give(instance, &mut post, piece.to_string()).await?;
        }
    }
    give(instance, &mut post, end.to_string()).await
}

/// Gives the guest's program a piece, on the connection of the last one if that is open.
async fn give(
    instance: &Instance,
    post: &mut Option<Post>,
    piece: String,
) -> Result<(), PostError> {
    let mut open = match post.take() {
        Some(mut post) => post.is_open().await.then_some(post),
        None => None,
    };
    if open.is_none() {
        let dialed = instance.dial(GUEST_PORT, CONNECT_PATIENCE).await;
        open = Some(Post::new(dialed.map_err(std::io::Error::other)?).await?);
    }
    if let Some(connection) = &mut open {
        connection.post_to(PIECES_PATH, piece).await?;
    }
    *post = open;
    Ok(())
}

/// Cuts an event stream into the data of its events, one line each, which is how the
/// servers send them.
#[derive(Debug, Default)]
struct EventData {
    begun: Vec<u8>,
}

impl EventData {
    fn cut(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut data = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE.saturating_sub(self.begun.len());
            self.begun
                .extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.begun);
                let line = String::from_utf8_lossy(&line);
                let text = line.trim_end().strip_prefix("data:").map(str::trim_start);
                data.extend(text.map(str::to_owned));
            }
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_wherever_they_are_read() {
        let mut lines = EventData::default();
        assert!(lines.cut(b"data: {\"a\"").is_empty());
        assert_eq!(lines.cut(b":1}\r\n\ndata:[DO"), ["{\"a\":1}"]);
        assert_eq!(lines.cut(b"NE]\n: ping\nevent: x\n"), ["[DONE]"]);
    }

    #[test]
    fn only_servers_of_the_host_are_known() {
        assert_eq!(address("ollama").unwrap().port_u16(), Some(11434));
        let unknown = address("http://10.0.0.1").unwrap_err();
        assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
        assert!(unknown.message.contains("ollama, lmstudio, vllm"));
    }
}
