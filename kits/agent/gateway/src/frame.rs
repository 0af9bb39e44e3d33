//! Frames of tether as the gateway reads and makes them. A guest wrote what comes, so every
//! field of the payload may be missing or of another type.

use aegis_core::tether::VERSION;
use serde::Deserialize;
use serde_json::{Value, json};

/// What of a frame the channels use.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Frame {
    #[serde(rename = "type")]
    pub kind: String,
    pub session: Session,
    /// Its number among the stored frames of the instance; live-only frames have none.
    #[serde(default)]
    pub seq: Option<u64>,
    /// `msg_id` of the user's message whose run it belongs to.
    #[serde(default)]
    pub reply_to_msg_id: Option<String>,
    #[serde(default)]
    pub payload: Value,
}

/// Which conversation of which channel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Session {
    pub channel: String,
    pub id: String,
}

/// An image of a message: a file of the instance's workspace, named by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `<sha256 in hex>.<png|jpg|gif|webp>`
    pub blob: String,
}

/// The folder of images, below the workspace.
pub const BLOBS: &str = ".aegis/blobs";
/// Largest image or file, in bytes (the API's limit for files of a workspace).
pub const MAX_FILE: usize = 10 << 20;
/// Most images of a message.
pub const MAX_IMAGES: usize = 4;

impl Frame {
    /// `payload.text`, empty where there is none.
    pub fn text(&self) -> &str {
        self.payload
            .get("text")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The images whose names can be such; what else the guest says is left out.
    pub fn images(&self) -> Vec<Image> {
        let images = self.payload.get("images").and_then(Value::as_array);
        images
            .into_iter()
            .flatten()
            .filter_map(|image| image.get("blob")?.as_str())
            .filter(|blob| is_blob(blob))
            .map(|blob| Image {
                blob: blob.to_owned(),
            })
            .take(MAX_IMAGES)
            .collect()
    }
}

impl Image {
    /// The ending of its file's name.
    pub fn extension(&self) -> &str {
        self.blob.rsplit_once('.').map_or("", |(_, ending)| ending)
    }

    /// Its type, as the ending of its name tells.
    pub fn media_type(&self) -> &'static str {
        match self.extension() {
            "png" => "image/png",
            "gif" => "image/gif",
            "webp" => "image/webp",
            _ => "image/jpeg",
        }
    }
}

/// Whether it is the name of an image's file: nothing else is ever asked for, whatever a
/// guest writes.
fn is_blob(name: &str) -> bool {
    name.split_once('.').is_some_and(|(digest, ending)| {
        digest.len() == 64
            && digest
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && matches!(ending, "png" | "jpg" | "gif" | "webp")
    })
}

/// A frame for the guest.
pub fn to_guest(kind: &str, channel: &str, session: &str, msg_id: &str, payload: Value) -> Value {
    let mut frame = json!({
        "v": VERSION,
        "type": kind,
        "ts": jiff::Timestamp::now().to_string(),
        "session": {"channel": channel, "id": session},
        "msg_id": msg_id,
    });
    if !payload.is_null() {
        frame["payload"] = payload;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_writes_into_a_payload_is_read_leniently() {
        let digest = "a".repeat(64);
        let read = |payload: Value| -> Frame {
            serde_json::from_value(json!({"v": 1, "type": "assistant.done", "seq": 3,
                "session": {"channel": "telegram", "id": "1"}, "payload": payload}))
            .unwrap()
        };
        let frame = read(json!({"text": "hi", "images": [
            {"blob": format!("{digest}.png")},
            {"blob": "../../etc/passwd"},
            {"blob": format!("{digest}.exe")},
            {"blob": format!("{digest}/x.png")},
            {}, 7]}));
        assert_eq!(frame.text(), "hi");
        let images = frame.images();
        assert_eq!(images.len(), 1);
        assert_eq!(
            (images[0].extension(), images[0].media_type()),
            ("png", "image/png")
        );
        for odd in [json!(null), json!([]), json!({"text": 5, "images": "x"})] {
            assert_eq!(
                (read(odd.clone()).text(), read(odd).images().len()),
                ("", 0)
            );
        }
    }

    #[test]
    fn frames_to_the_guest_are_frames() {
        let frame = to_guest("control.cancel", "telegram", "42", "tg-42-7", Value::Null);
        let read = aegis_core::tether::Frame::parse(&frame.to_string()).unwrap();
        assert_eq!((read.kind(), read.session()), ("control.cancel", "42"));
        assert!(frame.get("payload").is_none());
    }
}
