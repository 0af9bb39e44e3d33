//! One registry, spoken to over HTTP: the distribution API's part for pulling,
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>.
//!
//! ```text
//!  request ──► 200 ───────────────────────────► checked body
//!     ▲  │ 401: token or password, once
//!     └──┤ 408, 429, 5xx, broken connection: wait, then again from where it broke
//!        └ 403, 404, what does not match: over
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use oci_spec::image::{Descriptor, MediaType};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::client;
use super::pace::{Again, Failure, Pace, retry_after};
use super::sink::Sink;
use super::token;
use crate::access::{Access, Endpoint};
use crate::document::{DOCKER_INDEX, DOCKER_MANIFEST, MAX_DOCUMENT};
use crate::error::{Corruption, SourceError};

/// Names a manifest's digest: distribution-spec, "Pulling manifests".
const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";
/// Longest error text that is read; what is shown of it is shorter.
const MAX_ERROR_BODY: u64 = 64 * 1024;
/// Most characters of a registry's error text that are shown.
const MAX_SHOWN: usize = 300;

/// A registry.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) endpoint: Endpoint,
    client: Client,
    tokens: Client,
    /// Plain HTTP, which only insecure registries may turn out to speak.
    plain: AtomicBool,
    /// Whether it has answered. One that has is worth waiting for when it no longer
    /// can be reached.
    answered: AtomicBool,
    authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest or index as it came.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) content_type: Option<String>,
    pub(super) digest: Option<String>,
}

/// One request.
struct Request<'a> {
    /// Below `/v2/`.
    path: String,
    headers: HeaderMap,
    /// What is asked for, in messages.
    what: &'a str,
}

impl Remote {
    pub(super) fn new(endpoint: Endpoint, access: &Access) -> Result<Self, SourceError> {
        let failed = |source: reqwest::Error| SourceError::Client {
            host: endpoint.host.clone(),
            source: source.without_url(),
        };
        let client = client::build(&endpoint, access, client::Redirects::Followed);
        let tokens = client::build(&endpoint, access, client::Redirects::Refused);
        Ok(Self {
            client: client.map_err(failed)?,
            tokens: tokens.map_err(failed)?,
            plain: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            authorization: Mutex::new(None),
            endpoint,
        })
    }

    /// The manifest or index of a tag or digest, not longer than it may be.
    pub(super) async fn manifest(&self, reference: &str) -> Result<Fetched, SourceError> {
        let mark = if reference.contains(':') { '@' } else { ':' };
        let what = format!("{}{mark}{reference}", self.endpoint.repository);
        let mut pace = Pace::default();
        loop {
            match self.manifest_once(reference, &what).await {
                Ok(fetched) => return Ok(fetched),
                Err(failure) => pace.after(failure).await?,
            }
        }
    }

    async fn manifest_once(&self, reference: &str, what: &str) -> Result<Fetched, Failure> {
        let accept = [
            MediaType::ImageIndex.as_ref(),
            DOCKER_INDEX,
            MediaType::ImageManifest.as_ref(),
            DOCKER_MANIFEST,
        ]
        .join(", ");
        let mut headers = HeaderMap::new();
        if let Ok(accept) = HeaderValue::from_str(&accept) {
            headers.insert(ACCEPT, accept);
        }
        let request = Request {
            path: format!("{}/manifests/{reference}", self.endpoint.repository),
            headers,
            what,
        };
        let response = self.request(&request).await?;
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let (content_type, digest) = (header(CONTENT_TYPE.as_str()), header(DOCKER_CONTENT_DIGEST));
        let bytes = self.body(response, MAX_DOCUMENT, what).await?;
        Ok(Fetched {
            bytes,
            content_type,
            digest,
        })
    }

    /// Loads a blob into a sink, which is whole afterwards but not yet checked.
    pub(super) async fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut Sink<'_>,
    ) -> Result<(), SourceError> {
        let mut pace = Pace::default();
        loop {
            let before = sink.received();
            let Err(failure) = self.blob_once(descriptor, sink).await else {
                return Ok(());
            };
            if sink.received() > before {
                pace.progress();
            }
            pace.after(failure).await?;
        }
    }

    async fn blob_once(&self, descriptor: &Descriptor, sink: &mut Sink<'_>) -> Result<(), Failure> {
        let what = sink.what().to_owned();
        let from = sink.received();
        let mut headers = HeaderMap::new();
        if from > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={from}-"))
        {
            headers.insert(RANGE, range);
        }
        let request = Request {
            path: format!("{}/blobs/{}", self.endpoint.repository, descriptor.digest()),
            headers,
            what: &what,
        };
        let mut response = match self.request(&request).await {
            Err(failure) if from > 0 && is_range_refused(&failure) => {
                sink.restart().await.map_err(Failure::last)?;
                return Err(Failure::passing(failure.error));
            }
            response => response?,
        };
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
        if resumed && first_byte(&response) != Some(from) {
            sink.restart().await.map_err(Failure::last)?;
            return Err(Failure::passing(sink.corrupt(Corruption::Shorter {
                expected: descriptor.size(),
                found: 0,
            })));
        }
        if !resumed && from > 0 {
            sink.restart().await.map_err(Failure::last)?;
        }
        let promised = response.content_length();
        if promised.is_some_and(|more| more > descriptor.size() - sink.received()) {
            return Err(Failure::last(
                sink.corrupt(Corruption::Longer(descriptor.size())),
            ));
        }
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => sink.write(&bytes).await.map_err(Failure::last)?,
                Ok(None) => break,
                Err(source) => return Err(Failure::passing(self.broken(&what, source))),
            }
        }
        match sink.is_whole() {
            true => Ok(()),
            false => Err(Failure::passing(sink.corrupt(Corruption::Shorter {
                expected: descriptor.size(),
                found: sink.received(),
            }))),
        }
    }

    /// Asks whether these credentials, or nobody's, may use the registry at all.
    pub(super) async fn check(&self) -> Result<(), SourceError> {
        let request = Request {
            path: String::new(),
            headers: HeaderMap::new(),
            what: "its API",
        };
        let mut pace = Pace::default();
        loop {
            match self.request(&request).await {
                Ok(_) => return Ok(()),
                Err(failure) => pace.after(failure).await?,
            }
        }
    }

    /// Sends a request, with a new authorization if the registry wants one.
    async fn request(&self, request: &Request<'_>) -> Result<Response, Failure> {
        let mut renewed = false;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let response = self.send(request, authorization.as_ref()).await?;
            if response.status() != StatusCode::UNAUTHORIZED || renewed {
                return self.judge(response, request.what).await;
            }
            // Of downloads that were refused at once one asks for a token, and the others
            // wait for it.
            let mut held = self.authorization.lock().await;
            if *held == authorization {
                *held = Some(token::authorize(self, response.headers(), request.what).await?);
            }
            renewed = true;
        }
    }

    async fn send(
        &self,
        request: &Request<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let send = |scheme: &str| {
            let url = format!("{scheme}://{}/v2/{}", self.endpoint.address(), request.path);
            let mut builder = self.client.get(url).headers(request.headers.clone());
            if let Some(authorization) = authorization {
                builder = builder.header(AUTHORIZATION, authorization.clone());
            }
            builder.send()
        };
        let sent = match self.plain.load(Ordering::Relaxed) {
            true => send("http").await,
            false => match send("https").await {
                Err(error) if error.is_connect() && self.endpoint.insecure => {
                    let sent = send("http").await;
                    self.plain.store(sent.is_ok(), Ordering::Relaxed);
                    sent
                }
                sent => sent,
            },
        };
        let answered = self.answered.fetch_or(sent.is_ok(), Ordering::Relaxed);
        sent.map_err(|source| self.unsent(request.what, source, answered))
    }

    /// Whether the registry turned out to speak plain HTTP, as it may.
    pub(super) fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    /// The client for tokens, which follows no redirect: a request for a token holds a
    /// password.
    pub(super) fn tokens(&self) -> &Client {
        &self.tokens
    }

    /// A request that got no answer.
    pub(super) fn unsent(&self, what: &str, source: reqwest::Error, answered: bool) -> Failure {
        let host = self.endpoint.host.clone();
        let again = match (source.is_connect(), source.is_redirect(), answered) {
            (_, true, _) | (true, _, false) => Again::Never,
            _ => Again::After(None),
        };
        let unreachable = source.is_connect();
        let source = source.without_url();
        let error = match unreachable {
            true => SourceError::Unreachable { host, source },
            false => SourceError::Transfer {
                host,
                what: what.to_owned(),
                source,
            },
        };
        Failure { error, again }
    }

    fn broken(&self, what: &str, source: reqwest::Error) -> SourceError {
        SourceError::Transfer {
            host: self.endpoint.host.clone(),
            what: what.to_owned(),
            source: source.without_url(),
        }
    }

    /// Reads a body that must not be longer than `limit`.
    pub(super) async fn body(
        &self,
        mut response: Response,
        limit: u64,
        what: &str,
    ) -> Result<Vec<u8>, Failure> {
        let long = || {
            Failure::last(SourceError::Corrupt {
                what: what.to_owned(),
                place: self.endpoint.host.clone(),
                source: Corruption::Longer(limit),
            })
        };
        if response
            .content_length()
            .is_some_and(|length| length > limit)
        {
            return Err(long());
        }
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(more)) if (bytes.len() + more.len()) as u64 > limit => return Err(long()),
                Ok(Some(more)) => bytes.extend_from_slice(&more),
                Ok(None) => return Ok(bytes),
                Err(source) => return Err(Failure::passing(self.broken(what, source))),
            }
        }
    }

    /// Tells answers apart.
    pub(super) async fn judge(&self, response: Response, what: &str) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let host = self.endpoint.host.clone();
        let what = what.to_owned();
        let wait = response.headers().get(RETRY_AFTER);
        let wait = wait.and_then(|header| retry_after(header.to_str().ok()?, Timestamp::now()));
        let message = match self.body(response, MAX_ERROR_BODY, &what).await {
            Ok(body) => error_text(&body),
            Err(_) => String::new(),
        };
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Failure::last(SourceError::Unauthorized {
                    known: self.endpoint.credentials.is_some(),
                    host,
                    what,
                })
            }
            StatusCode::NOT_FOUND => Failure::last(SourceError::NotFound { what, place: host }),
            StatusCode::TOO_MANY_REQUESTS => Failure {
                error: SourceError::Busy {
                    host,
                    message,
                    wait,
                },
                again: Again::After(wait),
            },
            status => Failure {
                again: match status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
                    true => Again::After(wait),
                    false => Again::Never,
                },
                error: SourceError::Answer {
                    host,
                    what,
                    status: status.as_u16(),
                    message,
                },
            },
        })
    }
}

fn is_range_refused(failure: &Failure) -> bool {
    matches!(&failure.error, SourceError::Answer { status: 416, .. })
}

/// The first byte that a partial answer holds: `bytes FIRST-LAST/SIZE`.
fn first_byte(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    first.parse().ok()
}

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What a registry says about an error, as one short line: distribution-spec,
/// "Error Codes".
fn error_text(body: &[u8]) -> String {
    let Ok(ErrorBody { errors }) = serde_json::from_slice(body) else {
        return String::new();
    };
    let texts = errors
        .into_iter()
        .map(|entry| match entry.message.is_empty() {
            true => entry.code,
            false => entry.message,
        });
    let text = texts.collect::<Vec<_>>().join("; ");
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(MAX_SHOWN).collect()
}
