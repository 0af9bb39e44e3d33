//! What a model is told before the conversation. Pure.

use crate::frame::SessionKey;

/// The built-in prompt, for which `system_prompt` of the settings stands in.
const DEFAULT: &str = "\
You are the agent of an AegisVM instance: a Linux microVM of your own, where you may run \
commands and change files freely. /workspace is kept; everything else may be gone after a \
restart. People write to you through chat channels; a name in brackets before a message says \
who wrote it.

Use the tools instead of guessing, and say briefly what you did. Your last message of a turn is \
the answer that people see; write Markdown. Show an image with respond_with_image; people \
cannot see your files otherwise. Messages on the channel \"cron\" are scheduled: nobody reads \
the answer there, so use notify where somebody should know. Keep lasting facts and preferences \
with memory_store, never secrets.";

/// The whole prompt.
#[must_use]
pub(crate) fn system(
    own: Option<&str>,
    session: &SessionKey,
    now: &str,
    memories: &str,
    summary: Option<&str>,
) -> String {
    let mut text = own.unwrap_or(DEFAULT).trim().to_owned();
    // To the day: a prompt that changes with each request defeats providers' caches.
    let day = now.get(..10).unwrap_or(now);
    text.push_str(&format!(
        "\n\nChannel: {}. Date (UTC): {day}.",
        session.channel
    ));
    if !memories.is_empty() {
        text.push_str("\n\nWhat you have remembered:\n");
        text.push_str(memories);
    }
    if let Some(summary) = summary.filter(|summary| !summary.is_empty()) {
        text.push_str("\n\nSummary of the conversation so far:\n");
        text.push_str(summary);
    }
    text
}

/// What a model is told to summarise a conversation.
pub(crate) const SUMMARISE: &str = "\
Summarise the conversation that follows, for yourself to go on with it later. Keep: what people \
want and decided, names, paths, commands and values that may be needed again, what was done, \
what is open. Leave out pleasantries. Write at most 300 words, as plain text.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_has_what_is_there_and_nothing_else() {
        let session = SessionKey {
            channel: "ui".into(),
            id: "a".into(),
        };
        let own = system(Some("Be kind."), &session, "2026-01-02T03:04:05Z", "", None);
        assert_eq!(own, "Be kind.\n\nChannel: ui. Date (UTC): 2026-01-02.");
        let full = system(
            None,
            &session,
            "2026-01-02",
            "- likes tea",
            Some("They met."),
        );
        assert!(full.contains("likes tea") && full.ends_with("They met."));
    }
}
