//! Messages, as the daemons of an instance have them: sent, followed, read.

use std::time::Duration;

use aegis_core::tether::Frame;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::answer::{ApiError, Body, lines, value};
use super::http::Asked;
use crate::instance::InstanceError;
use crate::registry::{MessageQuery, RegistryError};

/// Messages of one answer to a poll, unless it says how many, and at most.
const POLLED: u64 = 50;
const MAX_POLLED: u64 = 200;
/// The longest that a poll waits.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// A frame that came as a body.
pub(super) fn frame(body: &Bytes) -> Result<Frame, ApiError> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    Frame::parse(text).map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.to_string()))
}

pub(super) async fn send(asked: &Asked, body: Bytes) -> Result<Response<Body>, ApiError> {
    let sent = asked.engine.send_message(&asked.instance, frame(&body)?);
    let kept = sent.await.map_err(|error| ApiError::of_instance(&error))?;
    let mut response = value(&json!({
        "msg_id": kept.frame.msg_id(),
        "session_id": kept.frame.session(),
        "ingress_seq": kept.seq,
    }));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

pub(super) async fn stream(asked: &Asked) -> Result<Response<Body>, ApiError> {
    let after = asked.number("after_seq")?;
    let channel = asked.query.get("channel").cloned();
    let handle = asked.instance.handle().clone();
    let followed = asked
        .engine
        .follow_messages(handle.as_str(), after, channel);
    let mut follower = followed
        .await
        .map_err(|error| ApiError::of_instance(&error))?;
    let (lines, response) = lines();
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = follower.next() => next,
                () = lines.closed() => return,
            };
            match next {
                Ok(Some(text)) => {
                    if !lines.send_text(text).await {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    let fault = error.fault();
                    tracing::warn!(instance = %handle, "messages cannot be followed: {fault}");
                    return;
                }
            }
        }
    });
    Ok(response)
}

pub(super) async fn poll(asked: &Asked) -> Result<Response<Body>, ApiError> {
    let types = asked.query.get("types").map_or("", String::as_str);
    let types = types.split(',').filter(|kind| !kind.is_empty());
    let limit = asked
        .number("limit")?
        .unwrap_or(POLLED)
        .clamp(1, MAX_POLLED);
    let wait = Duration::from_millis(asked.number("wait_ms")?.unwrap_or(0)).min(MAX_WAIT);
    let after = asked.number("after_seq")?;
    let query = MessageQuery {
        channel: asked.query.get("channel").cloned(),
        session: asked.query.get("session_id").cloned(),
        types: types.map(str::to_owned).collect(),
        about: asked.query.get("reply_to_msg_id").cloned(),
        after: after.unwrap_or(0),
        before: asked.number("before_seq")?,
        // Without a beginning the latest are meant.
        newest: after.is_none(),
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
        ..MessageQuery::default()
    };
    let found = wait_for(asked, query, Instant::now() + wait).await;
    let (frames, timed_out) = found.map_err(|error| ApiError::of_instance(&error))?;
    let seq = |frame: &Frame| frame.seq();
    let next = frames.last().and_then(seq).or(after).unwrap_or(0);
    let frames: Vec<Value> = frames.into_iter().map(Frame::into_value).collect();
    Ok(value(&json!({
        "frames": frames,
        "next_seq": next,
        "timed_out": timed_out,
    })))
}

/// The messages that are asked for, as soon as there are some; and whether it became
/// too late for them.
async fn wait_for(
    asked: &Asked,
    query: MessageQuery,
    until: Instant,
) -> Result<(Vec<Frame>, bool), InstanceError> {
    let name = asked.instance.handle().as_str();
    // From before the first look, so that none comes unseen between the two.
    let mut follower = asked.engine.follow_messages(name, None, None).await?;
    loop {
        let texts = asked.engine.messages(name, query.clone()).await?;
        let frames: Vec<Frame> = texts
            .iter()
            .filter_map(|text| Frame::parse(text).ok())
            .collect();
        if !frames.is_empty() || Instant::now() >= until {
            let is_late = frames.is_empty();
            return Ok((frames, is_late));
        }
        match timeout_at(until, follower.next()).await {
            Ok(Ok(Some(_))) | Err(_) => {}
            Ok(Ok(None)) => return Err(InstanceError::Unknown(name.to_owned())),
            Ok(Err(error)) => return Err(error.into()),
        }
    }
}

pub(super) async fn watermark(asked: &Asked) -> Result<Response<Body>, ApiError> {
    let (registry, channel) = (&asked.engine.shared().registry, asked.required("channel")?);
    let seq = registry.watermark(asked.instance.handle().clone(), channel.to_owned());
    Ok(value(&json!({"seq": seq.await.map_err(of_registry)?})))
}

pub(super) async fn set_watermark(asked: &Asked, body: Bytes) -> Result<Response<Body>, ApiError> {
    #[derive(Deserialize)]
    struct Mark {
        seq: u64,
    }
    let channel = asked.required("channel")?.to_owned();
    let Mark { seq } = serde_json::from_slice(&body).map_err(|error| {
        let message = format!("the body is not {{\"seq\": NUMBER}}: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, message)
    })?;
    let registry = &asked.engine.shared().registry;
    let set = registry.set_watermark(asked.instance.handle().clone(), channel, seq);
    set.await.map_err(of_registry)?;
    Ok(value(&json!({"seq": seq})))
}

fn of_registry(error: RegistryError) -> ApiError {
    ApiError::of_instance(&error.into())
}
