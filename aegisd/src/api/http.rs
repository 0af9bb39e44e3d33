//! Connections and requests: HTTP/1.1, bounded in size and time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::UnixStream;

use super::answer::{ApiError, Body, value};
use super::route::{Route, Target, query, target};
use super::{exec, files, logs, shape, tether};
use crate::engine::Engine;
use crate::instance::{Instance, Operation};
use crate::jobs::Outcome;

/// How long a client may take for the head of a request, and for its body.
pub(super) const HEAD_PATIENCE: Duration = Duration::from_secs(30);
const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// Longest JSON body in bytes, as long as one call of the VM's owner may be.
pub(super) const MAX_JSON: usize = 1 << 20;
/// Largest file that goes through the workspace routes, in bytes.
pub(super) const MAX_FILE: usize = 10 << 20;

/// What is read of a body that is refused, in bytes, and for how long.
const MAX_DRAINED: usize = 64 << 20;
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// A request's own part, beside its route.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) engine: Arc<Engine>,
    pub(super) instance: Instance,
    pub(super) query: BTreeMap<String, String>,
}

/// Serves one connection to its end.
pub async fn serve(stream: UnixStream, engine: Arc<Engine>, instance: Instance) {
    let handle = instance.handle().clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (engine, instance) = (engine.clone(), instance.clone());
        async move {
            let (head, mut body) = request.into_parts();
            let answered = answer(&head, &mut body, engine, instance).await;
            if answered.is_err() {
                // Many clients send all of a request before they read the answer.
                drain(&mut body).await;
            }
            Ok::<_, Infallible>(answered.unwrap_or_else(ApiError::into_response))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(instance = %handle, "a daemon's connection broke: {error}, ignoring");
    }
}

async fn answer(
    head: &Parts,
    sent: &mut Incoming,
    engine: Arc<Engine>,
    instance: Instance,
) -> Result<Response<Body>, ApiError> {
    let target = target(&head.method, head.uri.path())?;
    let query = query(head.uri.query())?;
    let asked = Asked {
        engine,
        instance,
        query,
    };
    let route = match target {
        Target::Status => return Ok(value(&shape::status(&asked.engine))),
        Target::List => {
            let shown = shape::instance(&asked)?;
            let wanted = asked.query.get("state");
            let fits = wanted.is_none_or(|state| shown["state"] == state.as_str());
            return Ok(value(&match fits {
                true => json!([shown]),
                false => json!([]),
            }));
        }
        Target::Instance { name, route } if asked.is_own(&name) => route,
        Target::Instance { .. } => return Err(ApiError::no_instance()),
    };
    match route {
        Route::Show => Ok(value(&shape::instance(&asked)?)),
        Route::Start => asked.start(),
        Route::Pause => asked.said("paused", asked.instance.pause().await),
        Route::Resume => asked.said("running", asked.instance.resume().await),
        Route::Exec => exec::run(&asked, body(sent, MAX_JSON).await?).await,
        Route::Logs => logs::read(&asked).await,
        Route::Tree => files::tree(&asked).await,
        Route::ReadFile => files::read(&asked).await,
        Route::WriteFile => files::write(&asked, body(sent, MAX_FILE).await?).await,
        Route::ReadConfig => files::read_config(&asked).await,
        Route::WriteConfig => files::write_config(&asked, body(sent, MAX_JSON).await?).await,
        Route::Blob => files::write_blob(&asked, head, body(sent, MAX_FILE).await?).await,
        Route::Send => tether::send(&asked, body(sent, MAX_JSON).await?).await,
        Route::Stream => tether::stream(&asked).await,
        Route::Poll => tether::poll(&asked).await,
        Route::Watermark => tether::watermark(&asked).await,
        Route::SetWatermark => tether::set_watermark(&asked, body(sent, MAX_JSON).await?).await,
    }
}

impl Asked {
    fn is_own(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.instance.handle().as_str())
    }

    /// A value of the query that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, ApiError> {
        let value = self.query.get(name).filter(|value| !value.is_empty());
        value.map(String::as_str).ok_or_else(|| {
            ApiError::new(StatusCode::BAD_REQUEST, format!("the query needs '{name}'"))
        })
    }

    /// A value of the query that is a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.query.get(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            let message = format!("'{name}' is not a whole number: {text}");
            ApiError::new(StatusCode::BAD_REQUEST, message)
        })
    }

    /// Asks for a start and does not wait for the guest, as the original does not.
    fn start(&self) -> Result<Response<Body>, ApiError> {
        let asked = self.instance.ask(Operation::Start);
        asked.map_err(|error| ApiError::of_instance(&error))?;
        Ok(value(&json!({"status": "starting"})))
    }

    fn said(
        &self,
        status: &str,
        outcome: Result<Outcome, crate::instance::InstanceError>,
    ) -> Result<Response<Body>, ApiError> {
        outcome.map_err(|error| ApiError::of_instance(&error))?;
        Ok(value(&json!({"status": status})))
    }
}

pub(super) async fn body(sent: &mut Incoming, limit: usize) -> Result<Bytes, ApiError> {
    let read = Limited::new(sent, limit).collect();
    match tokio::time::timeout(BODY_PATIENCE, read).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {limit} bytes"),
        )),
        Ok(Err(_)) => Err(ApiError::new(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        )),
    }
}

/// Reads what is left of a body that nobody wants, up to a limit.
pub(super) async fn drain(sent: &mut Incoming) {
    let read = async {
        let mut length = 0;
        while let Some(Ok(frame)) = sent.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > MAX_DRAINED {
                return;
            }
        }
    };
    // Who sends on and on finds the connection closed.
    tokio::time::timeout(DRAIN_PATIENCE, read).await.ok();
}
