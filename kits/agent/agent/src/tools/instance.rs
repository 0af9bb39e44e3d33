//! The tools self_info, notify and respond_with_image.

use std::io::Read;
use std::path::Path;

use super::{Said, ToolOutcome, Toolbox, path};
use crate::agent::sessions_of;
use crate::answer::random_id;
use crate::blob::{self, Blobs};
use crate::frame::{self, SessionKey};
use crate::guest_api::GuestApi;
use crate::provider::exchange::chain;
use crate::session::file;

/// Channels that people read, for messages that belong to no conversation.
const CHANNELS: [&str; 3] = ["telegram", "ui", "host"];

pub(super) async fn info(api: &GuestApi) -> Said {
    let info = api.self_info().await.map_err(|error| chain(&error))?;
    Ok(format!("{info:#}"))
}

/// Keeps an image as a blob and attaches it to the answer.
pub(super) fn attach(blobs: &Blobs, workspace: &Path, name: &str) -> ToolOutcome {
    let path = path::readable(workspace, name);
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&path)
        .and_then(|file| file.take(blob::LIMIT + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return ToolOutcome::failed(format!("Cannot read {name}: {error}"));
    }
    match blobs.keep(&bytes) {
        Ok(blob) => ToolOutcome {
            attached: vec![blob],
            ..ToolOutcome::ok(format!("{name} is attached to your answer."))
        },
        Err(error) => ToolOutcome::failed(format!("{name}: {}", chain(&error))),
    }
}

impl Toolbox {
    /// Sends a message apart from the answer.
    pub(super) async fn notify(&self, session: &SessionKey, text: &str) -> Said {
        let known: Vec<SessionKey> = file::sessions(&sessions_of(&self.workspace))
            .into_iter()
            .map(|(session, _)| session)
            .collect();
        let targets = targets(session, &known);
        if targets.is_empty() {
            return Err("Nobody has written yet, so there is nobody to notify.".to_owned());
        }
        let mut names = Vec::new();
        for target in targets {
            // It is in the queue, which goes on until the host has it.
            drop(
                self.outbox
                    .send(frame::message(&target, random_id(), text, &[]))
                    .await,
            );
            names.push(format!("{}/{}", target.channel, target.id));
        }
        Ok(format!("Sent to {}.", names.join(", ")))
    }
}

/// Where a message from a session goes; `known` has the latest session first. Pure.
fn targets(session: &SessionKey, known: &[SessionKey]) -> Vec<SessionKey> {
    if session.channel != "cron" {
        return vec![session.clone()];
    }
    let latest = |channel: &&str| {
        known
            .iter()
            .find(|known| known.channel == **channel)
            .cloned()
    };
    CHANNELS.iter().filter_map(latest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(channel: &str, id: &str) -> SessionKey {
        SessionKey {
            channel: channel.into(),
            id: id.into(),
        }
    }

    #[test]
    fn notify_reaches_the_session_people_talk_on() {
        let known = [
            key("cron", "x"),
            key("telegram", "42"),
            key("telegram", "7"),
            key("host", "a"),
        ];
        assert_eq!(targets(&key("ui", "b"), &known), [key("ui", "b")]);
        assert_eq!(
            targets(&key("cron", "x"), &known),
            [key("telegram", "42"), key("host", "a")]
        );
        assert!(targets(&key("cron", "x"), &[]).is_empty());
    }
}
