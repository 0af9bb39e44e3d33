//! The API as programs in the guest have it, at 127.0.0.1:7777 there: their own
//! instance, and little of it.
//!
//! ```text
//!  program ──► harness ──link──► aegis-vmm ──door socket──► here ──► engine
//! ```
//!
//! What is read here comes from a guest, which is trusted with nothing but its own
//! instance. A connection carries one request: an idle one would keep the VM awake.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use aegis_bus::instance::UpdateRequest;
use aegis_bus::job::JobState;
use aegis_core::capabilities;
use aegis_core::fault::{Fault, Symbol};
use aegis_core::port::{PortMapping, PortRequest, PortSelector};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::UnixStream;

use super::answer::{ApiError, Body, value};
use super::http::{Asked, HEAD_PATIENCE, MAX_JSON, body, drain};
use super::{llm, shape, tether};
use crate::engine::Engine;
use crate::instance::{Instance, InstanceError, Operation};
use crate::messages::Taken;

/// How long a lease is for that does not say so, as the original has it.
const LEASE_MS: u64 = 30_000;
/// What leases of the guest begin with: they are told apart from those of people.
const GUESTS: &str = "the guest: ";
/// Longest reason that a guest may give, in characters.
const MAX_REASON: usize = 100;
/// Before a restart that the guest asked for: its program reads the answer first.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A request of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Show,
    KeepAwake,
    LetSleep,
    Restart,
    Expose,
    Unexpose(u16),
    Send,
    Chat,
}

/// Serves one connection to its end.
pub(super) async fn serve(stream: UnixStream, engine: Arc<Engine>, instance: Instance) {
    let handle = instance.handle().clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let asked = Asked {
            engine: engine.clone(),
            instance: instance.clone(),
            query: Default::default(),
        };
        async move {
            let (head, mut body) = request.into_parts();
            let answered = answer(&head, &mut body, &asked).await;
            if answered.is_err() {
                drain(&mut body).await;
            }
            Ok::<_, Infallible>(answered.unwrap_or_else(|error| refusal(&error)))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(instance = %handle, "a request of the guest broke off: {error}, ignoring");
    }
}

/// A refusal in the form that guests know.
fn refusal(error: &ApiError) -> Response<Body> {
    let words = json!({"error": {"message": error.message}});
    let mut response = value(&words);
    *response.status_mut() = error.status;
    response
}

fn route(method: &Method, path: &str) -> Result<Route, ApiError> {
    let no_such = || ApiError::new(StatusCode::NOT_FOUND, "no such route");
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match (method.as_str(), &parts[..]) {
        ("GET", ["v1", "self"]) => Ok(Route::Show),
        ("POST", ["v1", "self", "keepalive"]) => Ok(Route::KeepAwake),
        ("DELETE", ["v1", "self", "keepalive"]) => Ok(Route::LetSleep),
        ("POST", ["v1", "self", "restart"]) => Ok(Route::Restart),
        ("POST", ["v1", "self", "expose"]) => Ok(Route::Expose),
        ("DELETE", ["v1", "self", "expose", port]) => {
            port.parse().map(Route::Unexpose).map_err(|_| no_such())
        }
        ("POST", ["v1", "tether", "send"]) => Ok(Route::Send),
        ("POST", ["v1", "llm", "chat"]) => Ok(Route::Chat),
        (_, ["v1", "self"] | ["v1", "self", "keepalive" | "restart" | "expose"])
        | (_, ["v1", "self", "expose", _] | ["v1", "tether", "send"] | ["v1", "llm", "chat"]) => {
            let message = format!("{method} is not possible here");
            Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message))
        }
        _ => Err(no_such()),
    }
}

async fn answer(
    head: &Parts,
    sent: &mut Incoming,
    asked: &Asked,
) -> Result<Response<Body>, ApiError> {
    match route(&head.method, head.uri.path())? {
        Route::Show => show(asked),
        Route::KeepAwake => keep_awake(asked, &body(sent, MAX_JSON).await?).await,
        Route::LetSleep => let_sleep(asked).await,
        Route::Restart => Ok(restart(asked)),
        Route::Expose => expose(asked, &body(sent, MAX_JSON).await?).await,
        Route::Unexpose(port) => unexpose(asked, port).await,
        Route::Send => send(asked, &body(sent, MAX_JSON).await?).await,
        Route::Chat => llm::chat(asked, head, body(sent, MAX_JSON).await?).await,
    }
}

fn show(asked: &Asked) -> Result<Response<Body>, ApiError> {
    let shown = shape::instance(asked)?;
    let mut own = json!({
        "id": shown["id"],
        "handle": shown["handle"],
        "state": shown["state"],
        "image": shown.get("image_ref").cloned().unwrap_or(json!("")),
        "parent_id": "",
    });
    if let Some(endpoints) = shown.get("endpoints") {
        own["endpoints"] = endpoints.clone();
    }
    Ok(value(&own))
}

async fn keep_awake(asked: &Asked, body: &Bytes) -> Result<Response<Body>, ApiError> {
    #[derive(Deserialize)]
    struct KeepAwake {
        #[serde(default)]
        ttl_ms: Option<u64>,
        #[serde(default)]
        reason: Option<String>,
    }
    let KeepAwake { ttl_ms, reason } = read(body)?;
    let time = Duration::from_millis(ttl_ms.unwrap_or(LEASE_MS).max(1_000));
    let reason = reason.filter(|reason| !reason.is_empty());
    let reason = reason.unwrap_or_else(|| "work".to_owned());
    let reason = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON);
    // The guest has one lease, whatever it calls it.
    let reason = format!("{GUESTS}{}", reason.collect::<String>());
    let others = leases(asked).into_iter().filter(|other| *other != reason);
    for other in others {
        let reason = Some(other);
        done(asked, Operation::LetSleep { reason }).await?;
    }
    done(asked, Operation::KeepAwake { reason, time }).await?;
    Ok(value(&json!({"ok": true})))
}

async fn let_sleep(asked: &Asked) -> Result<Response<Body>, ApiError> {
    for reason in leases(asked) {
        let reason = Some(reason);
        done(asked, Operation::LetSleep { reason }).await?;
    }
    Ok(value(&json!({"ok": true})))
}

/// The guest's own leases.
fn leases(asked: &Asked) -> Vec<String> {
    let record = asked.instance.record();
    let reasons = record.leases.into_iter().map(|lease| lease.reason);
    reasons
        .filter(|reason| reason.starts_with(GUESTS))
        .collect()
}

fn restart(asked: &Asked) -> Response<Body> {
    let instance = asked.instance.clone();
    tokio::spawn(async move {
        tokio::time::sleep(LAST_WORDS).await;
        if let Err(error) = instance.ask(Operation::Restart { grace_secs: None }) {
            let (handle, fault) = (instance.handle(), error.fault());
            tracing::warn!(instance = %handle, "{handle}: its guest's restart: {fault}, ignoring");
        }
    });
    value(&json!({"ok": true, "message": "the VM restarts"}))
}

async fn expose(asked: &Asked, body: &Bytes) -> Result<Response<Body>, ApiError> {
    #[derive(Deserialize)]
    struct Expose {
        guest_port: u16,
        #[serde(default)]
        public_port: u16,
        #[serde(default)]
        protocol: String,
    }
    let Expose {
        guest_port,
        public_port,
        protocol,
    } = read(body)?;
    if !["", "tcp", "http"].contains(&protocol.as_str()) {
        let message = format!("the protocol '{protocol}' cannot be exposed; tcp can");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
    }
    // A number of the host's loopback: a guest opens nothing to other machines.
    let text = match public_port {
        0 => guest_port.to_string(),
        public_port => format!("{public_port}:{guest_port}"),
    };
    let port: PortRequest = text.parse().map_err(|error: aegis_core::port::PortError| {
        ApiError::new(StatusCode::BAD_REQUEST, error.to_string())
    })?;
    let is_there = |ports: &[PortMapping]| ports.iter().find(|at| port.is_met_by(at)).copied();
    let before = asked.instance.record().spec;
    if is_there(&before.ports).is_none() {
        let may = capabilities::may_expose(&before.capabilities, before.ports.len() + 1);
        may.map_err(|denial| ApiError::new(StatusCode::FORBIDDEN, denial.to_string()))?;
        let change = UpdateRequest {
            ports: vec![port],
            ..UpdateRequest::default()
        };
        done(asked, Operation::Update(Box::new(change))).await?;
    }
    let ports = asked.instance.record().spec.ports;
    let exposed = is_there(&ports).ok_or_else(|| {
        ApiError::new(StatusCode::CONFLICT, "the port was closed again meanwhile")
    })?;
    Ok(value(&json!({
        "guest_port": exposed.guest,
        "public_port": exposed.host.port(),
        "protocol": "tcp",
        "url": format!("http://{}", exposed.host),
    })))
}

async fn unexpose(asked: &Asked, port: u16) -> Result<Response<Body>, ApiError> {
    let spec = asked.instance.record().spec;
    let of_guest = spec.ports.iter().filter(|mapping| mapping.guest == port);
    let of_guest: Vec<PortSelector> = of_guest.copied().map(PortSelector::Mapping).collect();
    if of_guest.is_empty() {
        let message = format!("the port {port} of the guest is not exposed");
        return Err(ApiError::new(StatusCode::NOT_FOUND, message));
    }
    let may = capabilities::may_expose(&spec.capabilities, 0);
    may.map_err(|denial| ApiError::new(StatusCode::FORBIDDEN, denial.to_string()))?;
    let change = UpdateRequest {
        remove_ports: of_guest,
        ..UpdateRequest::default()
    };
    done(asked, Operation::Update(Box::new(change))).await?;
    Ok(value(&json!({"status": "ok"})))
}

async fn send(asked: &Asked, body: &Bytes) -> Result<Response<Body>, ApiError> {
    let frame = tether::frame(body)?;
    let heard = asked.engine.hear_message(&asked.instance, frame).await;
    let mut answer = json!({"ok": true});
    if let Taken::Kept(kept) = heard.map_err(|error| ApiError::of_instance(&error))? {
        answer["seq"] = json!(kept.seq);
    }
    Ok(value(&answer))
}

/// Asks for an operation and waits for its end.
async fn done(asked: &Asked, operation: Operation) -> Result<(), ApiError> {
    let job = asked.instance.ask(operation);
    let job = job.map_err(|error| ApiError::of_instance(&error))?;
    let mut shown = asked.engine.board().follow();
    let ended = shown.wait_for(|shown| {
        let job = shown.jobs.get(&job);
        job.is_none_or(|job| job.outcome.state != JobState::Running)
    });
    let outcome = match ended.await {
        Ok(shown) => shown.jobs.get(&job).map(|job| job.outcome.clone()),
        Err(_) => None,
    };
    match outcome {
        Some(outcome) if outcome.state == JobState::Done => Ok(()),
        Some(outcome) => {
            let unknown = || Fault::new(Symbol::Cancelled, "the operation was cancelled");
            let fault = outcome.fault.unwrap_or_else(unknown);
            Err(ApiError::of_instance(&InstanceError::Start(fault)))
        }
        // It ended so long ago that nobody knows how.
        None => Ok(()),
    }
}

pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(text).map_err(|error| {
        let message = format!("the body is not a request: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, message)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_guest_has_the_routes_of_its_own_instance() {
        let status = |method, path| route(&method, path).map_err(|error| error.status);
        assert_eq!(status(Method::GET, "/v1/self"), Ok(Route::Show));
        assert_eq!(
            status(Method::DELETE, "/v1/self/expose/80"),
            Ok(Route::Unexpose(80))
        );
        assert_eq!(status(Method::POST, "/v1/tether/send"), Ok(Route::Send));
        let not_allowed = Err(StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(status(Method::PUT, "/v1/self/keepalive"), not_allowed);
        let not_found = Err(StatusCode::NOT_FOUND);
        for path in ["/v1/self/expose/x", "/v1/instances", "/v1/secrets", "/"] {
            assert_eq!(status(Method::DELETE, path), not_found, "{path}");
        }
    }

    #[test]
    fn a_refusal_has_the_original_s_form() {
        let refused = refusal(&ApiError::new(StatusCode::FORBIDDEN, "no"));
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        let empty: Value = read(&Bytes::new()).unwrap();
        assert_eq!(empty, json!({}));
    }
}
