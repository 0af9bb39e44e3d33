//! One line of a session's file. Pure.
//!
//! Upstream's turns (`role`, `content`, `ts`, `user`, `tool_call_id`) with keys of our
//! own beside them, which upstream ignores:
//!
//! | key | on | what it says |
//! |---|---|---|
//! | `msg_id` | user | the message's id |
//! | `session` | user | whose it is, for file names that are cut |
//! | `reply_to` | all others | the message that this belongs to |
//! | `final` | assistant | this is the answer; nothing follows |
//! | `answer` | assistant, final | the whole text for the user, where `content` is only its end |
//! | `failed`, `cancelled` | assistant, final | how it ended, if not well |
//! | `error` | tool | the tool failed |
//! | `attached` | tool | images for the user, which the answer takes along |
//!
//! Two roles are ours: `summary` stands for the first `covers` messages of the file, and
//! `note` records what happened (`sent`, `resumed`, `new`).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::blob::Blob;
use crate::frame::{self, SessionKey};

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    User,
    Assistant,
    Tool,
    Summary,
    Note,
}

/// What is said: text alone, or blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

impl Default for Content {
    fn default() -> Content {
        Content::Text(String::new())
    }
}

impl Content {
    /// The text of all blocks.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        match self {
            Content::Text(text) => text.clone(),
            Content::Blocks(blocks) => blocks
                .iter()
                .filter_map(|block| match block {
                    Block::Text { text } => Some(text.as_str()),
                    _ => None,
                })
                .collect::<Vec<_>>()
                .join("\n"),
        }
    }

    /// The images.
    pub(crate) fn images(&self) -> impl Iterator<Item = &Blob> {
        self.blocks().iter().filter_map(|block| match block {
            Block::Image(blob) => Some(blob),
            _ => None,
        })
    }

    /// The tool calls.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        self.blocks().iter().filter_map(|block| match block {
            Block::ToolUse { id, name, input } => Some((id.as_str(), name.as_str(), input)),
            _ => None,
        })
    }

    fn blocks(&self) -> &[Block] {
        match self {
            Content::Text(_) => &[],
            Content::Blocks(blocks) => blocks,
        }
    }
}

/// A part of what is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Block {
    Text {
        text: String,
    },
    Image(Blob),
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

/// Who wrote a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    #[serde(default)]
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are keys of a line of JSON"
)]
pub(crate) struct Turn {
    pub role: Role,
    #[serde(default)]
    pub content: Content,
    #[serde(default)]
    pub ts: String,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient_user"
    )]
    pub user: Option<User>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msg_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    #[serde(default, rename = "final", skip_serializing_if = "is_false")]
    pub is_final: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub failed: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub cancelled: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub error: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<Blob>,
    /// Of a summary: how many messages from the file's start it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<usize>,
    /// Of a summary: ids of covered messages, so that they are still known when they
    /// come again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<String>,
    /// Of an answer: what the provider counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

/// Upstream has also written a bare name here.
fn lenient_user<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<User>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        User(User),
        Name(String),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Option::<Written>::deserialize(from)? {
        Some(Written::User(user)) => Some(user),
        Some(Written::Name(name)) => Some(User {
            name: Some(name),
            ..User::default()
        }),
        Some(Written::Other(_)) | None => None,
    })
}

/// Tokens as the provider counted them, over all requests of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub input: u64,
    pub output: u64,
}

impl Turn {
    /// A turn of a role with nothing but its content and the time.
    #[must_use]
    pub(crate) fn new(role: Role, content: Content) -> Turn {
        Turn {
            role,
            content,
            ts: frame::now(),
            user: None,
            tool_call_id: None,
            msg_id: None,
            session: None,
            reply_to: None,
            is_final: false,
            answer: None,
            failed: false,
            cancelled: false,
            error: false,
            attached: Vec::new(),
            covers: None,
            seen: Vec::new(),
            usage: None,
        }
    }

    /// A turn that belongs to the answer to a message.
    #[must_use]
    pub(crate) fn reply(role: Role, content: Content, reply_to: &str) -> Turn {
        Turn {
            reply_to: Some(reply_to.to_owned()),
            ..Turn::new(role, content)
        }
    }

    /// A record of something that happened to a message or to the session.
    #[must_use]
    pub(crate) fn note(what: &str, reply_to: Option<&str>) -> Turn {
        Turn {
            reply_to: reply_to.map(str::to_owned),
            ..Turn::new(Role::Note, Content::Text(what.to_owned()))
        }
    }

    /// How long it is for a model, in characters. An image counts as [`IMAGE_CHARS`].
    #[must_use]
    pub(crate) fn chars(&self) -> usize {
        match &self.content {
            Content::Text(text) => text.chars().count(),
            Content::Blocks(blocks) => blocks
                .iter()
                .map(|block| match block {
                    Block::Text { text } => text.chars().count(),
                    Block::Image(_) => IMAGE_CHARS,
                    Block::ToolUse { name, input, .. } => name.len() + input.to_string().len(),
                    Block::Other => 0,
                })
                .sum(),
        }
    }
}

/// An image costs a model about 1000 tokens; four characters are about one.
pub(crate) const IMAGE_CHARS: usize = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_turns_are_read() {
        let lines = [
            r#"{"role":"user","content":"hi","ts":"2025-01-01T00:00:00Z","user":"Ann"}"#,
            r#"{"role":"user","content":"hi","ts":"","user":{"id":"7","name":"Ann"},"x":1}"#,
            r#"{"role":"assistant","content":[{"type":"text","text":"a"},
                {"type":"tool_use","id":"t","name":"bash"},{"type":"later","x":1}],"ts":""}"#,
            r#"{"role":"tool","content":"out","tool_call_id":"t","ts":""}"#,
            r#"{"role":"user","content":[{"type":"image","media_type":"image/png","blob":"b.png"}]}"#,
        ];
        let turns: Vec<Turn> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(turns[0].user.as_ref().unwrap().name.as_deref(), Some("Ann"));
        assert_eq!(turns[2].content.calls().count(), 1);
        assert_eq!(turns[4].content.images().count(), 1);
    }

    #[test]
    fn our_turns_have_only_upstreams_keys_where_they_say_nothing_more() {
        let turn = Turn::new(Role::User, Content::Text("hi".into()));
        let value = serde_json::to_value(&turn).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["content", "role", "ts"]);
    }
}
