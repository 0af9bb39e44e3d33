//! What people attach: images become blobs, other files go into the workspace.

use std::time::Duration;

use aegis_core::fault::chain;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::api::{ApiError, Bot, Meaning};
use super::types::Message;
use crate::aegis::{Aegis, AegisError};
use crate::backoff::Backoff;
use crate::frame::{MAX_FILE, MAX_IMAGES};

/// The folder of files, below the workspace.
const FOLDER: &str = ".aegis/files";
/// Longest part of a file's name that is kept, in bytes.
const MAX_NAME: usize = 100;
/// The waits between two tries of Telegram, and how many there are: about a minute.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(20);
const TRIES: u32 = 7;
/// Likewise for aegisd, which is waited for without end.
const AEGISD_FIRST: Duration = Duration::from_millis(300);
const AEGISD_LONGEST: Duration = Duration::from_secs(15);

/// Why an attachment cannot be taken, for whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("This file is larger than 10 MB, which is the most I can take.")]
    TooLarge,
    #[error("I could not fetch this file from Telegram. Please send it again.")]
    Telegram,
    #[error("This file could not be passed on to the agent.")]
    Aegis,
}

/// What is attached to a message, as a payload names it.
#[derive(Clone, Debug, Default)]
pub struct Attached {
    pub images: Vec<Value>,
    pub files: Vec<Value>,
}

/// One thing that is attached.
struct Attachment<'a> {
    file_id: &'a str,
    size: Option<u64>,
    media_type: String,
    name: String,
    is_image: bool,
}

/// Fetches what is attached to messages and keeps it for the guest.
///
/// # Errors
/// The first that cannot be taken.
pub async fn take(bot: &Bot, aegis: &Aegis, messages: &[Message]) -> Result<Attached, Refusal> {
    let mut attached = Attached::default();
    for message in messages {
        let Some(attachment) = attachment(message) else {
            continue;
        };
        if attachment.size.is_some_and(|size| size > MAX_FILE as u64) {
            return Err(Refusal::TooLarge);
        }
        let bytes = fetch(bot, attachment.file_id).await?;
        let place = (message.chat.id, message.message_id);
        keep(aegis, &attachment, place, bytes, &mut attached).await?;
    }
    Ok(attached)
}

fn attachment(message: &Message) -> Option<Attachment<'_>> {
    if let Some(photo) = message.largest_photo() {
        return Some(Attachment {
            file_id: &photo.file_id,
            size: photo.file_size,
            media_type: "image/jpeg".to_owned(),
            name: "photo.jpg".to_owned(),
            is_image: true,
        });
    }
    let (file, kind) = message.file()?;
    let media_type = file
        .mime_type
        .clone()
        .unwrap_or_else(|| "application/octet-stream".to_owned());
    let images = ["image/png", "image/jpeg", "image/gif", "image/webp"];
    Some(Attachment {
        file_id: &file.file_id,
        size: file.file_size,
        is_image: images.contains(&media_type.as_str()),
        name: plain_name(file.file_name.as_deref().unwrap_or(kind)),
        media_type,
    })
}

async fn fetch(bot: &Bot, file_id: &str) -> Result<Vec<u8>, Refusal> {
    let mut backoff = Backoff::new(FIRST, LONGEST);
    for _ in 0..TRIES {
        let error = match bot.download(file_id, MAX_FILE).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        tracing::warn!("{}", chain(&error));
        match error.meaning() {
            _ if matches!(error, ApiError::TooLarge { .. }) => return Err(Refusal::TooLarge),
            // Others wait behind this message.
            Meaning::Wait(time) => sleep(time.min(LONGEST)).await,
            Meaning::Refused if error.to_string().contains("too big") => {
                return Err(Refusal::TooLarge);
            }
            Meaning::Refused => return Err(Refusal::Telegram),
            _ => sleep(backoff.wait()).await,
        }
    }
    Err(Refusal::Telegram)
}

/// An image that aegisd does not take as such, and the fifth one of a message, is a file.
async fn keep(
    aegis: &Aegis,
    attachment: &Attachment<'_>,
    (chat, message): (i64, i64),
    bytes: Vec<u8>,
    attached: &mut Attached,
) -> Result<(), Refusal> {
    if attachment.is_image && attached.images.len() < MAX_IMAGES {
        let kept = wait_out_file(|| aegis.keep_image(&attachment.media_type, bytes.clone())).await;
        match kept {
            Ok(blob) => {
                attached.images.push(
                    json!({"media_type": blob.media_type, "blob": blob.blob, "size": blob.size}),
                );
                return Ok(());
            }
            Err(error) => tracing::warn!("{}, keeping it as a file", chain(&error)),
        }
    }
    let path = format!("{FOLDER}/tg{chat}-{message}-{}", attachment.name);
    let size = bytes.len();
    let written = wait_out_file(|| aegis.write_file(&path, bytes.clone())).await;
    written.map_err(|error| {
        tracing::error!("{}", chain(&error));
        Refusal::Aegis
    })?;
    attached.files.push(json!({
        "path": path,
        "name": attachment.name,
        "media_type": attachment.media_type,
        "size": size,
    }));
    Ok(())
}

/// Asks aegisd until it answers with something that another try would not change.
pub async fn wait_out<T, F: Future<Output = Result<T, AegisError>>>(
    mut ask: impl FnMut() -> F,
) -> Result<T, AegisError> {
    let mut backoff = Backoff::new(AEGISD_FIRST, AEGISD_LONGEST);
    loop {
        match ask().await {
            Err(error) if error.is_passing() => {
                tracing::warn!("{}, trying again", chain(&error));
                sleep(backoff.wait()).await;
            }
            result => return result,
        }
    }
}

/// Likewise for a file, of which a refusal is final sooner: the folder is the guest's, and
/// what it does there, a link or a full disk, holds up no other chat.
async fn wait_out_file<T, F: Future<Output = Result<T, AegisError>>>(
    mut ask: impl FnMut() -> F,
) -> Result<T, AegisError> {
    let mut backoff = Backoff::new(AEGISD_FIRST, AEGISD_LONGEST);
    let mut refusals = 0;
    loop {
        let error = match ask().await {
            Ok(result) => return Ok(result),
            Err(error) => error,
        };
        refusals += u32::from(error.status().is_some());
        let is_final = !error.is_passing() || matches!(error.status(), Some(404 | 409));
        if is_final || refusals >= TRIES {
            return Err(error);
        }
        tracing::warn!("{}, trying again", chain(&error));
        sleep(backoff.wait()).await;
    }
}

/// A name that is nothing but a name: letters, digits, `._-`, and no dot in front.
fn plain_name(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let plain = plain.trim_start_matches('.');
    // The end says what kind of file it is.
    let mut start = plain.len().saturating_sub(MAX_NAME);
    while !plain.is_char_boundary(start) {
        start += 1;
    }
    match &plain[start..] {
        "" => "file".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_keep_their_ending() {
        assert_eq!(plain_name("report 2026.pdf"), "report_2026.pdf");
        assert_eq!(plain_name("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(plain_name(".bashrc"), "bashrc");
        assert_eq!(plain_name("..."), "file");
        assert_eq!(plain_name("Übung\"\n.txt"), "Übung__.txt");
        let long = plain_name(&format!("{}.tar.gz", "ä".repeat(300)));
        assert!(long.len() <= MAX_NAME && long.ends_with(".tar.gz"));
    }
}
