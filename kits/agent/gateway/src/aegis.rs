//! The instance's API at `AEGIS_SOCKET` (docs/API.md): HTTP over a unix socket.
//!
//! aegisd may be restarted at any time. Every call here has a longest time and fails; when
//! to ask again is the caller's to decide, with [`AegisError::is_passing`].

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::environment::Environment;
use crate::frame::{Frame, MAX_FILE};
use crate::trust;

/// Longest wait for an answer. A connection waits while aegisd is restarted.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest wait for the transfer of a file.
const TRANSFER: Duration = Duration::from_secs(120);
/// Longest wait for the beginning of a stream. `exec` wakes the VM first, which may boot.
const STREAM_BEGINS: Duration = Duration::from_secs(180);
/// Longest answer that is no file, in bytes: a page of frames.
const MAX_ANSWER: usize = 16 << 20;
/// Longest text of an error that is shown.
const MAX_REASON: usize = 300;

/// A client of the API.
#[derive(Clone, Debug)]
pub struct Aegis {
    http: Client,
    base: Url,
}

#[derive(Debug, thiserror::Error)]
pub enum AegisError {
    #[error("cannot make a client for AEGIS_SOCKET")]
    Client(#[source] reqwest::Error),
    #[error("cannot use TLS")]
    Tls(#[source] rustls::Error),
    #[error("AEGIS_INSTANCE is no name of an instance")]
    Name,
    #[error("{operation}: aegisd does not answer")]
    Unreachable {
        operation: &'static str,
        #[source]
        source: reqwest::Error,
    },
    #[error("{operation}: aegisd did not answer in time")]
    Late { operation: &'static str },
    #[error("{operation}: aegisd refuses ({status}): {reason}")]
    Refused {
        operation: &'static str,
        status: u16,
        reason: String,
    },
    #[error("{operation}: the answer of aegisd makes no sense")]
    Answer {
        operation: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("{operation}: the answer is longer than {MAX_ANSWER} bytes")]
    TooLong { operation: &'static str },
}

impl AegisError {
    /// Whether the same request may succeed later. What is wrong with the request itself
    /// stays wrong: 400, 403, 413.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Late { .. } | Self::Answer { .. } => true,
            Self::Refused { status, .. } => !matches!(status, 400 | 403 | 413 | 415),
            Self::Client(_) | Self::Tls(_) | Self::Name | Self::TooLong { .. } => false,
        }
    }

    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// What of an instance is looked at.
#[derive(Clone, Debug, Deserialize)]
pub struct Instance {
    #[serde(default)]
    pub state: String,
    /// Tells an instance from an earlier one of its name.
    #[serde(default)]
    pub created_at: String,
    #[serde(default)]
    pub lease_held: bool,
}

/// An image that aegisd keeps.
#[derive(Clone, Debug, Deserialize)]
pub struct Blob {
    pub blob: String,
    pub media_type: String,
    pub size: u64,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    frames: Vec<Frame>,
}

#[derive(Deserialize)]
struct Watermark {
    #[serde(default)]
    seq: u64,
}

impl Aegis {
    /// # Errors
    /// The client cannot be made, or the instance's name is none.
    pub fn new(environment: &Environment) -> Result<Self, AegisError> {
        let http = Client::builder()
            .tls_backend_preconfigured(trust::tls().map_err(AegisError::Tls)?)
            .unix_socket(environment.socket.clone())
            .no_proxy()
            // A kept connection may be one that ended with aegisd.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(AegisError::Client)?;
        let mut base = Url::parse("http://aegis/v1/instances").map_err(|_| AegisError::Name)?;
        base.path_segments_mut()
            .map_err(|()| AegisError::Name)?
            .push(&environment.instance);
        Ok(Self { http, base })
    }

    /// The instance, without waking it.
    pub async fn instance(&self) -> Result<Instance, AegisError> {
        let operation = "reading the instance";
        let request = self.request(Method::GET, "", &[]).timeout(ANSWER);
        json_of(operation, send(operation, request).await?).await
    }

    /// Hands a frame over; from then on its delivery is aegisd's duty. The same frame again
    /// counts once.
    pub async fn post_frame(&self, frame: &Value) -> Result<(), AegisError> {
        let operation = "handing over a message";
        let request = self.request(Method::POST, "tether", &[]).timeout(ANSWER);
        let request = request
            .header("content-type", "application/json")
            .body(frame.to_string());
        send(operation, request).await.map(drop)
    }

    /// The frames of a channel after `seq`, without end.
    pub async fn frames(&self, channel: &str, seq: u64) -> Result<Response, AegisError> {
        let seq = seq.to_string();
        let query = [("after_seq", seq.as_str()), ("channel", channel)];
        let request = self.request(Method::GET, "tether/stream", &query);
        begin("following the messages", request).await
    }

    /// The number of the newest stored frame of a channel, 0 where there is none.
    pub async fn newest(&self, channel: &str) -> Result<u64, AegisError> {
        let operation = "looking for the newest message";
        let mut newest = 0;
        loop {
            let after = newest.to_string();
            let query = [
                ("channel", channel),
                ("after_seq", &after),
                ("limit", "200"),
                ("wait_ms", "0"),
            ];
            let request = self
                .request(Method::GET, "tether/poll", &query)
                .timeout(ANSWER);
            let page: Page = json_of(operation, send(operation, request).await?).await?;
            match page.frames.iter().filter_map(|frame| frame.seq).max() {
                Some(seq) if seq > newest => newest = seq,
                _ => return Ok(newest),
            }
        }
    }

    /// Up to where a channel's frames were dealt with, as aegisd keeps it; 0 where nobody
    /// has said.
    pub async fn watermark(&self, channel: &str) -> Result<u64, AegisError> {
        let operation = "reading the watermark";
        let query = [("channel", channel)];
        let request = self
            .request(Method::GET, "tether/watermark", &query)
            .timeout(ANSWER);
        let watermark: Watermark = json_of(operation, send(operation, request).await?).await?;
        Ok(watermark.seq)
    }

    /// Says up to where a channel's frames were dealt with.
    pub async fn set_watermark(&self, channel: &str, seq: u64) -> Result<(), AegisError> {
        let query = [("channel", channel)];
        let request = self
            .request(Method::POST, "tether/watermark", &query)
            .timeout(ANSWER);
        let request = request
            .header("content-type", "application/json")
            .body(json!({"seq": seq}).to_string());
        send("setting the watermark", request).await.map(drop)
    }

    /// Keeps an image for the guest.
    pub async fn keep_image(&self, media_type: &str, bytes: Vec<u8>) -> Result<Blob, AegisError> {
        let operation = "keeping an image";
        let request = self.request(Method::POST, "blob", &[]).timeout(TRANSFER);
        let request = request.header("content-type", media_type).body(bytes);
        json_of(operation, send(operation, request).await?).await
    }

    /// A file of the workspace, at most [`MAX_FILE`] bytes.
    pub async fn read_file(&self, path: &str) -> Result<Vec<u8>, AegisError> {
        let operation = "reading a file of the workspace";
        let query = [("path", path)];
        let request = self
            .request(Method::GET, "workspace", &query)
            .timeout(TRANSFER);
        body(operation, send(operation, request).await?, MAX_FILE).await
    }

    /// Writes a file of the workspace.
    pub async fn write_file(&self, path: &str, bytes: Vec<u8>) -> Result<(), AegisError> {
        let query = [("path", path)];
        let request = self
            .request(Method::POST, "workspace", &query)
            .timeout(TRANSFER);
        let request = request
            .header("content-type", "application/octet-stream")
            .body(bytes);
        send("writing a file of the workspace", request)
            .await
            .map(drop)
    }

    /// Runs a command in the guest, which is woken; the answer is its output, line by line.
    pub async fn exec(&self, command: &[&str]) -> Result<Response, AegisError> {
        let request = self.request(Method::POST, "exec", &[]);
        let request = request
            .header("content-type", "application/json")
            .body(json!({"command": command, "env": {}}).to_string());
        begin("running a command", request).await
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path.split('/').filter(|part| !part.is_empty()));
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.request(method, url)
    }
}

/// Sends a request whose answer has no end; its beginning has a longest time.
async fn begin(operation: &'static str, request: RequestBuilder) -> Result<Response, AegisError> {
    let sent = timeout(STREAM_BEGINS, send(operation, request)).await;
    sent.map_err(|_| AegisError::Late { operation })?
}

async fn send(operation: &'static str, request: RequestBuilder) -> Result<Response, AegisError> {
    let unreachable = |source: reqwest::Error| AegisError::Unreachable {
        operation,
        source: source.without_url(),
    };
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = body(operation, response, MAX_ANSWER)
        .await
        .unwrap_or_default();
    let told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let reason = told
        .get("error")
        .and_then(Value::as_str)
        .unwrap_or("no reason given");
    Err(AegisError::Refused {
        operation,
        status: status.as_u16(),
        reason: reason
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_REASON)
            .collect(),
    })
}

async fn json_of<T: DeserializeOwned>(
    operation: &'static str,
    response: Response,
) -> Result<T, AegisError> {
    let bytes = body(operation, response, MAX_ANSWER).await?;
    serde_json::from_slice(&bytes).map_err(|source| AegisError::Answer { operation, source })
}

async fn body(
    operation: &'static str,
    mut response: Response,
    most: usize,
) -> Result<Vec<u8>, AegisError> {
    let mut bytes = Vec::new();
    loop {
        let chunk = response
            .chunk()
            .await
            .map_err(|source| AegisError::Unreachable {
                operation,
                source: source.without_url(),
            })?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        if bytes.len() + chunk.len() > most {
            return Err(AegisError::TooLong { operation });
        }
        bytes.extend_from_slice(&chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_cannot_mend_by_being_sent_again_is_known() {
        let refused = |status| AegisError::Refused {
            operation: "x",
            status,
            reason: String::new(),
        };
        for status in [404, 409, 500, 503, 507] {
            assert!(refused(status).is_passing(), "{status}");
        }
        for status in [400, 403, 413] {
            assert!(!refused(status).is_passing(), "{status}");
        }
    }

    #[tokio::test]
    async fn paths_are_queries_and_names_are_escaped() {
        let aegis = Aegis::new(&Environment {
            instance: "a b".into(),
            socket: "/nowhere".into(),
        })
        .unwrap();
        let request = aegis.request(Method::GET, "tether/poll", &[("path", ".aegis/a b&c")]);
        let url = request.build().unwrap().url().to_string();
        assert_eq!(
            url,
            "http://aegis/v1/instances/a%20b/tether/poll?path=.aegis%2Fa+b%26c"
        );
        let error = aegis.instance().await.unwrap_err();
        assert!(error.is_passing(), "{error}");
    }
}
