//! The HTTP server that the host delivers frames to.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/tether/recv`, a frame | 202 once it is on the disk; 400, 413 a bad one; 503 try again |
//! | GET, anything | 200: the agent is there |

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;

use crate::agent::Agent;
use crate::frame;
use crate::provider::exchange::chain;

/// How long a client may take to send its headers.
const HEADERS: Duration = Duration::from_secs(10);
/// The pause after a connection could not be taken, as when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, agent: Arc<Agent>) -> Infallible {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "Cannot take a connection, ignoring");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let agent = agent.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let agent = agent.clone();
                async move { Ok::<_, Infallible>(answer(&agent, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "A connection broke, ignoring");
            }
        });
    }
}

async fn answer(agent: &Agent, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() == Method::GET {
        return reply(StatusCode::OK, &json!({"ok": true}));
    }
    if request.uri().path() != "/v1/tether/recv" {
        return refusal(StatusCode::NOT_FOUND, "There is no such path");
    }
    if request.method() != Method::POST {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "Frames are sent by POST");
    }
    let bytes = match Limited::new(request.into_body(), frame::LIMIT)
        .collect()
        .await
    {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "A frame has at most 1 MiB");
        }
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &chain(&*error)),
    };
    let (frame, request) = match frame::parse(&bytes) {
        Ok(frame) => frame,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &chain(&error)),
    };
    match agent.take(frame, request).await {
        Ok(()) => reply(StatusCode::ACCEPTED, &json!({"ok": true})),
        Err(error) => {
            let error = chain(&error);
            tracing::error!(error, "Cannot take a frame");
            refusal(StatusCode::SERVICE_UNAVAILABLE, &error)
        }
    }
}

fn refusal(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    reply(status, &json!({"error": {"message": message}}))
}

fn reply(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}
