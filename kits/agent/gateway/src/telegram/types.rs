//! The few objects of the Bot API that the gateway reads
//! (<https://core.telegram.org/bots/api#available-types>).

use serde::Deserialize;
use serde_json::Value;

/// Something that happened. Kinds other than messages are left out.
#[derive(Clone, Debug, Deserialize)]
pub struct Update {
    pub update_id: i64,
    /// A new message; as it came, since one that is odd must not hide the others.
    #[serde(default)]
    pub message: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    pub message_id: i64,
    pub chat: Chat,
    #[serde(default)]
    pub from: Option<User>,
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default)]
    pub caption: Option<String>,
    #[serde(default)]
    pub entities: Vec<Entity>,
    #[serde(default)]
    pub caption_entities: Vec<Entity>,
    #[serde(default)]
    pub media_group_id: Option<String>,
    #[serde(default)]
    pub reply_to_message: Option<Box<Message>>,
    #[serde(default)]
    pub photo: Vec<PhotoSize>,
    #[serde(default)]
    pub document: Option<File>,
    #[serde(default)]
    pub audio: Option<File>,
    #[serde(default)]
    pub video: Option<File>,
    #[serde(default)]
    pub voice: Option<Value>,
    #[serde(default)]
    pub video_note: Option<Value>,
    #[serde(default)]
    pub sticker: Option<Value>,
    #[serde(default)]
    pub location: Option<Value>,
    #[serde(default)]
    pub contact: Option<Value>,
    #[serde(default)]
    pub poll: Option<Value>,
    #[serde(default)]
    pub dice: Option<Value>,
    /// The group has become the supergroup of this id.
    #[serde(default)]
    pub migrate_to_chat_id: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Chat {
    pub id: i64,
    /// `private`, `group`, `supergroup` or `channel`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub title: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct User {
    pub id: i64,
    #[serde(default)]
    pub is_bot: bool,
    #[serde(default)]
    pub first_name: String,
    #[serde(default)]
    pub last_name: Option<String>,
    #[serde(default)]
    pub username: Option<String>,
}

/// A part of a text that means something; `offset` and `length` are in UTF-16 code units.
#[derive(Clone, Debug, Deserialize)]
pub struct Entity {
    #[serde(rename = "type")]
    pub kind: String,
    pub offset: usize,
    pub length: usize,
    #[serde(default)]
    pub user: Option<User>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct PhotoSize {
    pub file_id: String,
    pub width: u64,
    pub height: u64,
    #[serde(default)]
    pub file_size: Option<u64>,
}

/// A document, an audio file or a video.
#[derive(Clone, Debug, Deserialize)]
pub struct File {
    pub file_id: String,
    #[serde(default)]
    pub file_name: Option<String>,
    #[serde(default)]
    pub mime_type: Option<String>,
    #[serde(default)]
    pub file_size: Option<u64>,
}

/// Where a file can be fetched, for an hour.
#[derive(Clone, Debug, Deserialize)]
pub struct FilePath {
    #[serde(default)]
    pub file_path: Option<String>,
    #[serde(default)]
    pub file_size: Option<u64>,
}

/// What of a sent message is looked at.
#[derive(Clone, Debug, Deserialize)]
pub struct Sent {
    pub message_id: i64,
}

impl Chat {
    pub fn is_private(&self) -> bool {
        self.kind == "private"
    }
}

impl User {
    /// The name that people see.
    pub fn name(&self) -> String {
        match &self.last_name {
            Some(last) => format!("{} {last}", self.first_name),
            None => self.first_name.clone(),
        }
    }
}

impl Message {
    /// The text, or what is written under a photo or file.
    pub fn words(&self) -> &str {
        self.text
            .as_deref()
            .or(self.caption.as_deref())
            .unwrap_or_default()
    }

    /// The entities of [`Message::words`].
    pub fn marks(&self) -> &[Entity] {
        match self.text {
            Some(_) => &self.entities,
            None => &self.caption_entities,
        }
    }

    /// The photo in its largest size.
    pub fn largest_photo(&self) -> Option<&PhotoSize> {
        self.photo
            .iter()
            .max_by_key(|size| size.width.saturating_mul(size.height))
    }

    /// A file of any kind, and what it is called where it has no name.
    pub fn file(&self) -> Option<(&File, &'static str)> {
        let document = self.document.as_ref().map(|file| (file, "document"));
        let audio = self.audio.as_ref().map(|file| (file, "audio"));
        let video = self.video.as_ref().map(|file| (file, "video"));
        document.or(audio).or(video)
    }

    /// What it is, where that is something the agent cannot be given.
    pub fn unsupported(&self) -> Option<&'static str> {
        let kinds = [
            (&self.voice, "voice messages"),
            (&self.video_note, "video messages"),
            (&self.sticker, "stickers"),
            (&self.location, "locations"),
            (&self.contact, "contacts"),
            (&self.poll, "polls"),
            (&self.dice, "dice"),
        ];
        kinds
            .iter()
            .find(|(field, _)| field.is_some())
            .map(|(_, name)| *name)
    }
}
