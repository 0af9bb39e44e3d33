//! Asking a model over HTTP, again where that may help.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use super::choice::{Route, Target};
use super::claude::Claude;
use super::openai::OpenAi;
use super::retry::{self, Failure};
use super::{Event, Protocol, Reply, Request, StreamError, sse};

/// The most bytes of an answer that reports an error.
const ERROR_LIMIT: usize = 64 * 1024;
/// The most characters of a provider's report that a user sees.
const REPORT_LIMIT: usize = 500;

/// Why a model gave no answer. The texts are for users: without keys and addresses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("The model's provider refused the request with {status}: {message}")]
    Status {
        status: u16,
        message: String,
        retry_after: Option<Duration>,
    },
    #[error("The model's provider cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("The connection to the model's provider broke")]
    Broken(#[source] reqwest::Error),
    #[error("The model's provider sent nothing for {} seconds", .0.as_secs())]
    Silent(Duration),
    #[error("The model's answer cannot be read")]
    Stream(#[source] StreamError),
    #[error("The model's answer cannot be read")]
    TooLarge(#[source] sse::TooLarge),
}

impl AskError {
    /// Whether the request was more than the model takes at once.
    #[must_use]
    pub(crate) fn is_too_long(&self) -> bool {
        let AskError::Status {
            status, message, ..
        } = self
        else {
            return false;
        };
        let message = message.to_lowercase();
        let told = [
            "context_length",
            "context length",
            "prompt is too long",
            "context window",
        ];
        *status == 413 || (*status == 400 && told.iter().any(|text| message.contains(text)))
    }

    fn failure(&self) -> (Failure, Option<Duration>) {
        match self {
            AskError::Status {
                status,
                retry_after,
                ..
            } => (Failure::Status(*status), *retry_after),
            AskError::Unreachable(_) | AskError::Broken(_) | AskError::Silent(_) => {
                (Failure::Connection, None)
            }
            AskError::Stream(StreamError::Reported { kind, .. }) => {
                let lasting = [
                    "invalid_request_error",
                    "authentication_error",
                    "permission_error",
                    "not_found_error",
                    "insufficient_quota",
                ];
                match lasting.contains(&kind.as_str()) {
                    true => (Failure::Final, None),
                    false => (Failure::Stream, None),
                }
            }
            AskError::Stream(_) | AskError::TooLarge(_) => (Failure::Stream, None),
        }
    }
}

/// An error and what is behind it, as one line.
#[must_use]
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// How patient to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Until the first byte, and between two parts.
    pub silence: Duration,
    /// How often to ask again.
    pub retries: u32,
}

/// Where text goes as it comes.
pub(crate) trait Sink: Send {
    /// More text.
    fn event(&mut self, event: Event);
    /// All since the request began counts for nothing: it is made again.
    fn restart(&mut self);
}

/// The clients for asking models.
#[derive(Clone, Debug)]
pub(crate) struct Models {
    /// To the outside.
    pub outside: Client,
    /// To the guest API, never through a proxy.
    pub inside: Client,
    /// `http://127.0.0.1:7777`.
    pub guest_api: String,
}

impl Models {
    /// Asks until there is an answer, or trying again is of no use.
    ///
    /// # Errors
    /// The last [`AskError`].
    pub(crate) async fn ask(
        &self,
        target: &Target,
        request: &Request,
        patience: Patience,
        sink: &mut dyn Sink,
    ) -> Result<Reply, AskError> {
        let mut attempt = 0;
        loop {
            let error = match self.once(target, request, patience.silence, sink).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let (failure, told) = error.failure();
            let jitter = jitter();
            let Some(pause) = retry::pause(failure, told, attempt, patience.retries, jitter) else {
                return Err(error);
            };
            tracing::warn!(
                error = chain(&error),
                attempt,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "Cannot ask the model, trying again"
            );
            sink.restart();
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn once(
        &self,
        target: &Target,
        request: &Request,
        silence: Duration,
        sink: &mut dyn Sink,
    ) -> Result<Reply, AskError> {
        let protocol = protocol(&target.route);
        let sent = self.request(target, &*protocol, request).send();
        let response = tokio::time::timeout(silence, sent)
            .await
            .map_err(|_| AskError::Silent(silence))?
            .map_err(|error| AskError::Unreachable(error.without_url()))?;
        if !response.status().is_success() {
            return Err(refusal(response, silence, key(&target.route)).await);
        }
        read(response, &*protocol, silence, sink).await
    }

    fn request(
        &self,
        target: &Target,
        protocol: &dyn Protocol,
        request: &Request,
    ) -> RequestBuilder {
        let body = protocol.body(&target.model, request);
        let (builder, body) = match &target.route {
            Route::OpenAi { base_url, .. } | Route::Claude { base_url, .. } => {
                let url = format!("{base_url}/{}", protocol.path());
                (self.outside.post(url), body)
            }
            Route::Host { server } => {
                let url = format!("{}/v1/llm/chat", self.guest_api);
                let body = json!({"provider": server, "model": target.model, "body": body});
                (self.inside.post(url), body)
            }
        };
        protocol
            .headers(key(&target.route))
            .into_iter()
            .fold(builder, |builder, (name, value)| {
                builder.header(name, value)
            })
            .header("accept", "text/event-stream")
            .header("content-type", "application/json")
            .body(body.to_string())
    }
}

fn protocol(route: &Route) -> Box<dyn Protocol> {
    match route {
        Route::OpenAi { official, .. } => Box::new(OpenAi {
            official: *official,
        }),
        Route::Claude { .. } => Box::new(Claude),
        Route::Host { .. } => Box::new(OpenAi { official: false }),
    }
}

fn key(route: &Route) -> Option<&str> {
    match route {
        Route::OpenAi { key, .. } | Route::Claude { key, .. } => key.as_deref(),
        Route::Host { .. } => None,
    }
}

async fn read(
    mut response: Response,
    protocol: &dyn Protocol,
    silence: Duration,
    sink: &mut dyn Sink,
) -> Result<Reply, AskError> {
    let mut parser = sse::Parser::default();
    let mut reader = protocol.reader();
    while !reader.is_over() {
        let part = tokio::time::timeout(silence, response.chunk())
            .await
            .map_err(|_| AskError::Silent(silence))?
            .map_err(|error| AskError::Broken(error.without_url()))?;
        let Some(part) = part else { break };
        parser.push(&part).map_err(AskError::TooLarge)?;
        while let Some(event) = parser.next() {
            for event in reader.take(&event).map_err(AskError::Stream)? {
                sink.event(event);
            }
        }
    }
    reader.finish().map_err(AskError::Stream)
}

/// What a provider says when it refuses.
async fn refusal(mut response: Response, silence: Duration, key: Option<&str>) -> AskError {
    let status = response.status().as_u16();
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let retry_after = retry::retry_after(
        header("retry-after"),
        header("retry-after-ms"),
        jiff::Timestamp::now(),
    );
    let mut body = Vec::new();
    while body.len() < ERROR_LIMIT {
        match tokio::time::timeout(silence, response.chunk()).await {
            Ok(Ok(Some(part))) => body.extend_from_slice(&part),
            _ => break,
        }
    }
    AskError::Status {
        status,
        message: report(&body, key),
        retry_after,
    }
}

/// The message of an error's body, without the key that some providers repeat.
fn report(body: &[u8], key: Option<&str>) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &value["error"];
    let message = match error["message"].as_str().or(error.as_str()) {
        Some(message) => match error["code"].as_str() {
            Some(code) if !message.contains(code) => format!("{message} ({code})"),
            _ => message.to_owned(),
        },
        None => "it gave no reason".to_owned(),
    };
    let message = match key {
        Some(key) if !key.is_empty() => message.replace(key, "[key]"),
        _ => message,
    };
    message.chars().take(REPORT_LIMIT).collect()
}

/// A random number from 0 to 1; the middle where there is no randomness.
fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_why_and_never_the_key() {
        let body = br#"{"error":{"message":"Incorrect API key provided: sk-secret","code":"bad"}}"#;
        let text = report(body, Some("sk-secret"));
        assert_eq!(text, "Incorrect API key provided: [key] (bad)");
        assert_eq!(report(b"<html>", None), "it gave no reason");
        assert_eq!(
            report(br#"{"error":"model is not here"}"#, None),
            "model is not here"
        );
    }

    #[test]
    fn a_request_that_is_too_long_is_known() {
        let refused = |status, message: &str| AskError::Status {
            status,
            message: message.to_owned(),
            retry_after: None,
        };
        assert!(refused(400, "prompt is too long: 9 tokens > 5 maximum").is_too_long());
        assert!(refused(400, "... (context_length_exceeded)").is_too_long());
        assert!(!refused(400, "bad role").is_too_long());
    }
}
