//! The guest API: the instance's own way to its host.

use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::frame::Frame;

/// How long a request may take. The host answers at once, unless aegisd restarts, which
/// is a connection that waits.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a lease lasts without being renewed.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(60);

/// Why the host did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestApiError {
    #[error("The guest API cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("The guest API answered {status}: {message}")]
    Status { status: u16, message: String },
}

impl GuestApiError {
    /// Whether the same request will never be taken.
    #[must_use]
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            GuestApiError::Status {
                status: 400 | 413 | 422,
                ..
            }
        )
    }
}

/// A client of the guest API.
#[derive(Clone, Debug)]
pub(crate) struct GuestApi {
    client: Client,
    base: String,
}

impl GuestApi {
    /// A client for the API at an address, `http://127.0.0.1:7777`.
    #[must_use]
    pub(crate) fn new(client: Client, base: String) -> GuestApi {
        GuestApi { client, base }
    }

    /// Hands a frame to the host.
    ///
    /// # Errors
    /// [`GuestApiError`].
    pub(crate) async fn send(&self, frame: &Frame) -> Result<(), GuestApiError> {
        let body = serde_json::to_string(frame).unwrap_or_default();
        self.call(Method::POST, "/v1/tether/send", Some(body))
            .await
            .map(drop)
    }

    /// Keeps the VM awake.
    ///
    /// # Errors
    /// [`GuestApiError`].
    pub(crate) async fn keep_alive(&self) -> Result<(), GuestApiError> {
        let milliseconds = u64::try_from(LEASE_TTL.as_millis()).unwrap_or(u64::MAX);
        let body = json!({"ttl_ms": milliseconds, "reason": "answering"}).to_string();
        self.call(Method::POST, "/v1/self/keepalive", Some(body))
            .await
            .map(drop)
    }

    /// Lets the VM sleep.
    ///
    /// # Errors
    /// [`GuestApiError`].
    pub(crate) async fn let_sleep(&self) -> Result<(), GuestApiError> {
        self.call(Method::DELETE, "/v1/self/keepalive", None)
            .await
            .map(drop)
    }

    /// What the host says of this instance.
    ///
    /// # Errors
    /// [`GuestApiError`].
    pub(crate) async fn self_info(&self) -> Result<Value, GuestApiError> {
        self.call(Method::GET, "/v1/self", None).await
    }

    /// Restarts the VM.
    ///
    /// # Errors
    /// [`GuestApiError`].
    pub(crate) async fn restart(&self) -> Result<(), GuestApiError> {
        self.call(Method::POST, "/v1/self/restart", Some("{}".to_owned()))
            .await
            .map(drop)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Value, GuestApiError> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .timeout(TIMEOUT);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let response = request.send().await.map_err(GuestApiError::Unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(GuestApiError::Unreachable)?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let message = value["error"]["message"]
            .as_str()
            .unwrap_or("no reason given");
        Err(GuestApiError::Status {
            status: status.as_u16(),
            message: message.chars().take(300).collect(),
        })
    }
}
