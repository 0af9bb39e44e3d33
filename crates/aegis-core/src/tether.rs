//! Frames of tether, the channel of messages between host and guest.
//!
//! A frame is a JSON object in the original AegisVM's form, version 1:
//!
//! ```text
//! {"v":1,"type":"user.message","ts":"2026-01-02T03:04:05Z","seq":12,"msg_id":"tg-42-7",
//!  "session":{"channel":"telegram","id":"42"},"payload":{"text":"hello"}}
//! ```
//!
//! `type` and `session` must be there. `seq` is the host's to give: the number of the
//! message among those of its instance, growing. `msg_id` is its sender's: of a type and
//! a session each is taken once. Fields that are not named here go through as they are.
//!
//! | types | from | kept |
//! |---|---|---|
//! | `user.*`, `control.*` | the host | until the guest has taken them, and then for a while |
//! | `assistant.delta`, `reasoning.delta` | the guest | not: who follows hears them |
//! | all others | the guest | for a while |

use serde_json::{Map, Value, json};

/// The version of frames.
pub const VERSION: u64 = 1;
/// Longest frame in bytes of its JSON text (the original's longest line).
pub const MAX_FRAME: usize = 1 << 20;
/// Most messages that are kept of an instance; the oldest go first.
pub const MAX_KEPT: usize = 10_000;
/// Most bytes of messages that are kept of an instance.
pub const MAX_KEPT_BYTES: usize = 64 << 20;
/// The port of the guest's 127.0.0.1 at which programs find the API of their instance.
pub const API_PORT: u16 = 7777;
/// The port of the guest's 127.0.0.1 at which a program takes messages.
pub const GUEST_PORT: u16 = 7778;
/// The path there that a message is posted to.
pub const RECEIVE_PATH: &str = "/v1/tether/recv";
/// Most messages of an instance that wait for its guest.
pub const MAX_UNDELIVERED: usize = 1_000;
/// Most bytes of them.
pub const MAX_UNDELIVERED_BYTES: usize = 32 << 20;
/// A message of somebody to the guest.
pub const USER_MESSAGE: &str = "user.message";
/// Ends what the guest does for a session.
pub const CANCEL: &str = "control.cancel";
/// Says that the guest has taken a message: its `msg_id` is that of the message.
pub const ACK: &str = "event.ack";
/// A piece of an answer.
pub const DELTA: &str = "assistant.delta";
/// A whole answer.
pub const DONE: &str = "assistant.done";
/// Longest channel, session, type and message id in bytes.
const MAX_NAME: usize = 256;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToGuest,
    ToHost,
}

/// A frame whose form was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    fields: Map<String, Value>,
    channel: String,
    session: String,
    kind: String,
}

/// Why a text is no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the frame has {0} bytes; at most {MAX_FRAME} can be")]
    TooLong(usize),
    #[error("the frame is not a JSON object")]
    NotAnObject,
    #[error("the frame's version 'v' is not {VERSION}")]
    Version,
    #[error("the frame's '{0}' is not a text of 1 to {MAX_NAME} bytes without control characters")]
    Name(&'static str),
}

impl Frame {
    /// Reads a frame.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        if text.len() > MAX_FRAME {
            return Err(FrameError::TooLong(text.len()));
        }
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
            return Err(FrameError::NotAnObject);
        };
        if fields.get("v") != Some(&Value::from(VERSION)) {
            return Err(FrameError::Version);
        }
        let session = fields.get("session").and_then(Value::as_object);
        let of_session = |field| session.and_then(|session| session.get(field));
        let channel = name("session.channel", of_session("channel"))?;
        let id = name("session.id", of_session("id"))?;
        let kind = name("type", fields.get("type"))?;
        if fields.contains_key("msg_id") {
            name("msg_id", fields.get("msg_id"))?;
        }
        Ok(Self {
            channel,
            session: id,
            kind,
            fields,
        })
    }

    /// A message of somebody in a session.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(
        kind: &str,
        channel: &str,
        session: &str,
        payload: &Value,
    ) -> Result<Self, FrameError> {
        let frame = json!({
            "v": VERSION,
            "type": kind,
            "session": {"channel": channel, "id": session},
            "payload": payload,
        });
        Self::parse(&frame.to_string())
    }

    /// What tells that the guest has taken this message, or why it never will.
    pub fn acknowledged(&self, refusal: Option<&str>) -> Self {
        let payload = match refusal {
            None => json!({"status": "received"}),
            Some(why) => json!({"status": "refused", "error": why}),
        };
        let mut fields = Map::new();
        fields.insert("v".to_owned(), VERSION.into());
        fields.insert("type".to_owned(), ACK.into());
        let session = json!({"channel": self.channel, "id": self.session});
        fields.insert("session".to_owned(), session);
        if let Some(id) = self.fields.get("msg_id") {
            fields.insert("msg_id".to_owned(), id.clone());
        }
        fields.insert("payload".to_owned(), payload);
        Self {
            fields,
            channel: self.channel.clone(),
            session: self.session.clone(),
            kind: ACK.to_owned(),
        }
    }

    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        match ["user.", "control."]
            .iter()
            .any(|start| self.kind.starts_with(start))
        {
            true => Direction::ToGuest,
            false => Direction::ToHost,
        }
    }

    /// Whether it is for those who listen now, and not kept.
    pub fn is_passing(&self) -> bool {
        [DELTA, "reasoning.delta"].contains(&self.kind.as_str())
    }

    /// What its sender calls it.
    pub fn msg_id(&self) -> Option<&str> {
        self.fields.get("msg_id").and_then(Value::as_str)
    }

    /// What the sender of the message calls it that this one answers.
    pub fn reply_to(&self) -> Option<&str> {
        self.fields.get("reply_to_msg_id").and_then(Value::as_str)
    }

    /// Names it, unless its sender did.
    pub fn name_it(&mut self, msg_id: impl FnOnce() -> String) {
        let entry = self.fields.entry("msg_id".to_owned());
        entry.or_insert_with(|| msg_id().into());
    }

    /// Says when it was sent, unless its sender did.
    pub fn date_it(&mut self, time: impl FnOnce() -> String) {
        let entry = self.fields.entry("ts".to_owned());
        entry.or_insert_with(|| time().into());
    }

    /// Takes away its number: one that its sender gave it means nothing here.
    pub fn unnumber(&mut self) {
        self.fields.remove("seq");
    }

    /// Where the conversation takes place: `telegram`, `host`, `ui`.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Which of the channel's conversations it is.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Its type, e.g. `user.message`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The number it has among its instance's; `None` where it has none yet.
    pub fn seq(&self) -> Option<u64> {
        self.fields.get("seq").and_then(Value::as_u64)
    }

    /// When it was sent, as its sender wrote it.
    pub fn time(&self) -> Option<&str> {
        self.fields.get("ts").and_then(Value::as_str)
    }

    /// What it says.
    pub fn payload(&self) -> Option<&Value> {
        self.fields.get("payload")
    }

    /// Gives it its number.
    pub fn number(&mut self, seq: u64) {
        self.fields.insert("seq".to_owned(), seq.into());
    }

    /// The JSON text, on one line.
    pub fn to_text(&self) -> String {
        // All keys are strings, so this is JSON.
        serde_json::to_string(&self.fields).unwrap_or_default()
    }

    /// The JSON object.
    pub fn into_value(self) -> Value {
        Value::Object(self.fields)
    }
}

fn name(field: &'static str, value: Option<&Value>) -> Result<String, FrameError> {
    let text = value.and_then(Value::as_str);
    let good = text
        .filter(|text| (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control));
    good.map(str::to_owned).ok_or(FrameError::Name(field))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn frame() -> Value {
        json!({"v": 1, "type": "user.message", "session": {"channel": "telegram", "id": "42"},
            "payload": {"text": "hello"}, "other": [1]})
    }

    #[test]
    fn a_frame_keeps_what_nobody_here_knows() {
        let mut read = Frame::parse(&frame().to_string()).unwrap();
        assert_eq!((read.channel(), read.session()), ("telegram", "42"));
        assert_eq!((read.kind(), read.seq()), ("user.message", None));
        read.number(7);
        assert_eq!(read.seq(), Some(7));
        let text = read.to_text();
        assert!(!text.contains('\n'));
        let mut expected = frame();
        expected["seq"] = json!(7);
        assert_eq!(Frame::parse(&text).unwrap().into_value(), expected);
    }

    #[test]
    fn types_tell_where_a_frame_goes() {
        let of = |kind| Frame::new(kind, "host", "default", &json!(null)).unwrap();
        assert_eq!(of(USER_MESSAGE).direction(), Direction::ToGuest);
        assert_eq!(of(CANCEL).direction(), Direction::ToGuest);
        assert_eq!(of(DONE).direction(), Direction::ToHost);
        assert!(of(DELTA).is_passing() && !of(DONE).is_passing());
        assert!(Frame::new("", "host", "default", &json!(null)).is_err());
    }

    #[test]
    fn an_acknowledgement_names_its_message() {
        let mut message = Frame::new(USER_MESSAGE, "host", "a", &json!({"text": "x"})).unwrap();
        message.name_it(|| "m-1".to_owned());
        message.name_it(|| "m-2".to_owned());
        let taken = message.acknowledged(None);
        assert_eq!((taken.kind(), taken.msg_id()), (ACK, Some("m-1")));
        assert_eq!(taken.session(), "a");
        assert_eq!(taken.payload(), Some(&json!({"status": "received"})));
        assert_eq!(Frame::parse(&taken.to_text()).unwrap(), taken);
        let refused = message.acknowledged(Some("no"));
        assert_eq!(refused.payload().unwrap()["error"], "no");
    }

    #[test]
    fn what_is_no_frame_is_refused_by_what_is_wrong() {
        let with = |field: &str, value: Value| {
            let mut frame = frame();
            frame[field] = value;
            Frame::parse(&frame.to_string()).unwrap_err()
        };
        assert_eq!(with("v", json!(2)), FrameError::Version);
        assert_eq!(with("type", json!("")), FrameError::Name("type"));
        assert_eq!(with("msg_id", json!(5)), FrameError::Name("msg_id"));
        let session = with("session", json!({"channel": "a\nb", "id": "1"}));
        assert_eq!(session, FrameError::Name("session.channel"));
        let session = with("session", json!("a"));
        assert_eq!(session, FrameError::Name("session.channel"));
        assert_eq!(Frame::parse("[]"), Err(FrameError::NotAnObject));
        assert_eq!(Frame::parse("{"), Err(FrameError::NotAnObject));
        let long = with("payload", json!("x".repeat(MAX_FRAME)));
        assert!(matches!(long, FrameError::TooLong(_)), "{long}");
    }
}
