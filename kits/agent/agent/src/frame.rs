//! Messages between the host and the agent (tether frames). Pure.
//!
//! | type | direction | what it says |
//! |---|---|---|
//! | `user.message` | to us | somebody wrote |
//! | `control.cancel` | to us | stop the answer that is being made |
//! | `control.new` | to us | the conversation starts afresh |
//! | `status.presence` | to the host, kept | what is being done |
//! | `assistant.delta`, `reasoning.delta` | to the host, live only | more text |
//! | `reasoning.done` | to the host, kept | the reasoning is over |
//! | `assistant.done` | to the host, kept | the answer |

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::blob::Blob;

/// The version of the envelope.
pub(crate) const VERSION: u8 = 1;
/// The most bytes of JSON that a frame has.
pub(crate) const LIMIT: usize = 1 << 20;
/// The most bytes of a type, a channel, an id or a message's id.
const NAME_LIMIT: usize = 256;
/// What an answer's text may take of a frame as JSON; the rest is for names and images.
const TEXT_LIMIT: usize = LIMIT - 64 * 1024;

/// Whose conversation it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SessionKey {
    /// `host`, `ui`, `telegram`, `cron` or another way in.
    pub channel: String,
    /// Which conversation of the channel.
    pub id: String,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Frame {
    pub v: u8,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<String>,
    pub session: SessionKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msg_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_msg_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

/// Why bytes are not a frame that the agent takes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("The frame is not JSON of a frame")]
    Json(#[source] serde_json::Error),
    #[error("The frame has version {0}; only 1 is known")]
    Version(u8),
    #[error("The frame's {0} is not 1 to 256 bytes without control characters")]
    Name(&'static str),
    #[error("The frame is of a type that goes to the host")]
    Direction,
}

/// What the host wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Message,
    Cancel,
    New,
    /// A type that this version does not know: taken, and nothing is done.
    Unknown,
}

/// A frame of the host, checked.
///
/// # Errors
/// See [`FrameError`].
pub(crate) fn parse(bytes: &[u8]) -> Result<(Frame, Request), FrameError> {
    let frame: Frame = serde_json::from_slice(bytes).map_err(FrameError::Json)?;
    if frame.v != VERSION {
        return Err(FrameError::Version(frame.v));
    }
    let names = [
        ("type", Some(&frame.kind)),
        ("session.channel", Some(&frame.session.channel)),
        ("session.id", Some(&frame.session.id)),
        ("msg_id", frame.msg_id.as_ref()),
    ];
    for (what, name) in names {
        if name.is_some_and(|name| !is_name(name)) {
            return Err(FrameError::Name(what));
        }
    }
    let request = match frame.kind.as_str() {
        "user.message" => Request::Message,
        "control.cancel" => Request::Cancel,
        "control.new" => Request::New,
        kind if kind.starts_with("user.") || kind.starts_with("control.") => Request::Unknown,
        _ => return Err(FrameError::Direction),
    };
    Ok((frame, request))
}

fn is_name(text: &str) -> bool {
    (1..=NAME_LIMIT).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A kind of text that streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Answer,
    Reasoning,
}

/// A frame of ours for a session.
#[must_use]
pub(crate) fn new(session: &SessionKey, kind: &str, reply_to: Option<&str>) -> Frame {
    Frame {
        v: VERSION,
        kind: kind.to_owned(),
        ts: Some(now()),
        session: session.clone(),
        msg_id: None,
        seq: None,
        reply_to_msg_id: reply_to.map(str::to_owned),
        payload: None,
    }
}

/// More text of an answer or of the reasoning before it.
#[must_use]
pub(crate) fn delta(session: &SessionKey, reply_to: &str, stream: Stream, text: &str) -> Frame {
    let kind = match stream {
        Stream::Answer => "assistant.delta",
        Stream::Reasoning => "reasoning.delta",
    };
    let mut frame = new(session, kind, Some(reply_to));
    frame.payload = Some(json!({ "text": text }));
    frame
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Complete,
    Failed,
    Cancelled,
}

/// An answer. Its message id follows from that of the message, so one that is sent
/// again after a crash is known to the host.
#[must_use]
pub(crate) fn done(
    session: &SessionKey,
    reply_to: &str,
    text: &str,
    images: &[Blob],
    ending: Ending,
) -> Frame {
    let mut frame = message(session, answer_id(reply_to), text, images);
    frame.reply_to_msg_id = Some(reply_to.to_owned());
    if let Some(Value::Object(payload)) = &mut frame.payload {
        match ending {
            Ending::Complete => {}
            Ending::Failed => drop(payload.insert("error".to_owned(), true.into())),
            Ending::Cancelled => drop(payload.insert("cancelled".to_owned(), true.into())),
        }
    }
    frame
}

/// A message of ours that answers none.
#[must_use]
pub(crate) fn message(session: &SessionKey, msg_id: String, text: &str, images: &[Blob]) -> Frame {
    let mut frame = new(session, "assistant.done", None);
    frame.msg_id = Some(msg_id);
    let mut payload = json!({ "text": fit(text) });
    if !images.is_empty() {
        payload["images"] = json!(images);
    }
    frame.payload = Some(payload);
    frame
}

/// `re-` and the message's id, or its hash where that would be too long for a name.
#[must_use]
pub(crate) fn answer_id(msg_id: &str) -> String {
    derived_id("re-", msg_id)
}

/// An id that follows from another one and is short enough for a name.
#[must_use]
pub(crate) fn derived_id(prefix: &str, msg_id: &str) -> String {
    if prefix.len() + msg_id.len() <= NAME_LIMIT {
        return format!("{prefix}{msg_id}");
    }
    format!("{prefix}{}", hex(&Sha256::digest(msg_id)))
}

/// As much of the text as fits into a frame once it is JSON.
fn fit(text: &str) -> String {
    const NOTE: &str = "\n[The rest was too long for one message.]";
    let mut size = 0;
    for (at, letter) in text.char_indices() {
        size += match letter {
            '"' | '\\' | '\n' | '\r' | '\t' => 2,
            letter if letter.is_ascii_control() => 6,
            letter => letter.len_utf8(),
        };
        if size > TEXT_LIMIT {
            return format!("{}{NOTE}", &text[..at]);
        }
    }
    text.to_owned()
}

/// Bytes in lower-case hexadecimal.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The time as frames and turns write it: RFC 3339 in UTC.
#[must_use]
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SessionKey {
        SessionKey {
            channel: "host".into(),
            id: "default".into(),
        }
    }

    #[test]
    fn a_message_is_parsed_and_keeps_its_payload() {
        let bytes = br#"{"v":1,"type":"user.message","session":{"channel":"host","id":"a"},
            "msg_id":"m1","seq":3,"payload":{"text":"hi"},"later":true}"#;
        let (frame, request) = parse(bytes).unwrap();
        assert_eq!(request, Request::Message);
        assert_eq!(frame.payload.unwrap()["text"], "hi");
    }

    #[test]
    fn frames_with_bad_names_versions_or_direction_are_refused() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut frame = json!({"v":1,"type":"user.message","session":{"channel":"c","id":"i"}});
            change(&mut frame);
            parse(frame.to_string().as_bytes())
        };
        assert!(with(&|_| {}).is_ok());
        assert!(with(&|frame| frame["v"] = 2.into()).is_err());
        assert!(with(&|frame| frame["session"]["id"] = "".into()).is_err());
        assert!(with(&|frame| frame["session"]["id"] = "a\nb".into()).is_err());
        assert!(with(&|frame| frame["msg_id"] = "x".repeat(257).into()).is_err());
        assert!(with(&|frame| frame["type"] = "assistant.done".into()).is_err());
    }

    #[test]
    fn the_answers_id_follows_from_the_messages_and_is_a_name() {
        assert_eq!(answer_id("tg-1-2"), "re-tg-1-2");
        let long = answer_id(&"x".repeat(256));
        assert!(long.len() <= 256);
        assert_eq!(long, answer_id(&"x".repeat(256)));
    }

    #[test]
    fn an_answer_always_fits_into_a_frame() {
        for text in ["\u{1}".repeat(LIMIT), "ü".repeat(LIMIT), "\"".repeat(LIMIT)] {
            let frame = done(&key(), "m", &text, &[], Ending::Complete);
            assert!(serde_json::to_vec(&frame).unwrap().len() <= LIMIT);
        }
    }
}
