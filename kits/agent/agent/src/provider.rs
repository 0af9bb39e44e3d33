//! Models and how they are asked.
//!
//! ```text
//!   choice     "anthropic/claude-…" and settings  →  a Target: protocol, address, key
//!   openai  ┐  a Request  →  the body of an HTTP request          (pure)
//!   claude  ┘  events of the answer  →  text as it comes, a Reply   (pure)
//!   sse        bytes  →  events                                   (pure)
//!   retry      what failed, how often  →  wait, or give up        (pure)
//!   exchange   the HTTP requests themselves
//! ```

pub(crate) mod choice;
pub(crate) mod claude;
pub(crate) mod exchange;
pub(crate) mod openai;
pub(crate) mod retry;
pub(crate) mod sse;

use serde_json::Value;

use crate::session::turn::Usage;

/// What a model is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub system: String,
    pub messages: Vec<Message>,
    pub tools: Vec<ToolDefinition>,
    /// Tokens of the answer at most.
    pub max_tokens: u64,
}

/// A part of the conversation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    User {
        text: String,
        images: Vec<Image>,
    },
    Assistant {
        text: String,
        calls: Vec<ToolCall>,
    },
    /// Follows the call with this id.
    Tool {
        call_id: String,
        text: String,
        images: Vec<Image>,
        error: bool,
    },
}

/// An image as models take it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub media_type: String,
    pub base64: String,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Image({}, {} characters)",
            self.media_type,
            self.base64.len()
        )
    }
}

/// A tool that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ToolDefinition {
    pub name: String,
    pub description: String,
    /// JSON schema of an object.
    pub parameters: Value,
}

/// A call that a model makes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ToolCall {
    pub id: String,
    pub name: String,
    /// An object; empty where the model gave no arguments.
    pub input: Value,
}

/// Text as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Text(String),
    Reasoning(String),
}

/// Why a model stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It has said all.
    End,
    /// It waits for its tools.
    Tools,
    /// It may say no more: its own limit, or `max_tokens`.
    Length,
    /// It does not want to, or a filter does not.
    Refused,
}

/// All that a model said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    pub text: String,
    pub calls: Vec<ToolCall>,
    pub stop: Stop,
    pub usage: Usage,
}

/// What in a stream is not as its protocol says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("The provider sent an event that is not JSON of its protocol")]
    Malformed(#[source] serde_json::Error),
    #[error("The provider sent tool arguments that are not JSON")]
    Arguments(#[source] serde_json::Error),
    #[error("The provider's answer ended before it was complete")]
    Incomplete,
    /// The provider says so in the stream.
    #[error("The provider reported {kind}: {message}")]
    Reported { kind: String, message: String },
}

/// A way of asking models. Pure: [`exchange`] does the sending.
pub(crate) trait Protocol: Send + Sync {
    /// The path under the base URL.
    fn path(&self) -> &'static str;

    /// Headers with the key; none of them may be logged.
    fn headers(&self, key: Option<&str>) -> Vec<(&'static str, String)>;

    /// The body of the request.
    fn body(&self, model: &str, request: &Request) -> Value;

    /// A reader for one answer.
    fn reader(&self) -> Box<dyn ReplyReader>;
}

/// Reads one answer, event by event.
pub(crate) trait ReplyReader: Send {
    /// Takes an event; gives what is new.
    ///
    /// # Errors
    /// [`StreamError`]: the whole answer is worth nothing then.
    fn take(&mut self, event: &sse::Event) -> Result<Vec<Event>, StreamError>;

    /// The answer, once the stream is over.
    ///
    /// # Errors
    /// [`StreamError`].
    fn finish(self: Box<Self>) -> Result<Reply, StreamError>;

    /// Whether the protocol's last event has come.
    fn is_over(&self) -> bool;
}

/// The arguments of a call as an object: models leave them empty where there are none.
///
/// # Errors
/// [`StreamError::Arguments`].
fn arguments(text: &str) -> Result<Value, StreamError> {
    if text.trim().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    match serde_json::from_str(text).map_err(StreamError::Arguments)? {
        Value::Null => Ok(Value::Object(serde_json::Map::new())),
        value => Ok(value),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Reading a stream in tests.

    use super::*;

    /// The events and the reply of a stream's text, given in parts of `step` bytes.
    pub(crate) fn read(
        protocol: &dyn Protocol,
        stream: &str,
        step: usize,
    ) -> Result<(Vec<Event>, Reply), StreamError> {
        let mut lines = sse::Parser::default();
        let mut reader = protocol.reader();
        let mut events = Vec::new();
        for part in stream.as_bytes().chunks(step) {
            lines.push(part).unwrap();
            while let Some(event) = lines.next() {
                events.extend(reader.take(&event)?);
            }
        }
        Ok((events, reader.finish()?))
    }
}
