//! Text on its way to the user while a model speaks.
//!
//! A request that is made again starts its text again. What was shown is not shown
//! twice: the new text is shown from where it goes beyond the old one. Where it differs,
//! no more is shown; the answer has all of it.

use crate::frame::{self, SessionKey, Stream};
use crate::outbox::Outbox;
use crate::provider::Event;
use crate::provider::exchange::Sink;

/// One answer's text.
pub(crate) struct Streamer {
    outbox: Outbox,
    session: SessionKey,
    reply_to: String,
    shown: Shown,
    reasoning: bool,
    /// Frames of this answer that have no other name.
    count: u32,
    /// Tells this run of the answer from one before a crash.
    salt: String,
}

impl Streamer {
    /// For the answer to a message.
    #[must_use]
    pub(crate) fn new(outbox: Outbox, session: SessionKey, reply_to: String) -> Streamer {
        Streamer {
            outbox,
            session,
            reply_to,
            shown: Shown::default(),
            reasoning: false,
            count: 0,
            salt: super::random_id(),
        }
    }

    /// Says what is being done.
    pub(crate) fn presence(&mut self, state: &str) {
        let mut frame = self.kept("status.presence");
        frame.payload = Some(serde_json::json!({ "state": state }));
        self.outbox.send_if_quiet(frame);
    }

    pub(crate) fn next_text(&mut self) {
        self.end_reasoning();
        if self.shown.next_text() {
            self.outbox
                .stream(&self.session, &self.reply_to, Stream::Answer, "\n\n");
        }
    }

    /// Ends reasoning, if there was some.
    pub(crate) fn end_reasoning(&mut self) {
        if std::mem::take(&mut self.reasoning) {
            let frame = self.kept("reasoning.done");
            self.outbox.send_if_quiet(frame);
        }
    }

    fn kept(&mut self, kind: &str) -> frame::Frame {
        self.count += 1;
        let mut frame = frame::new(&self.session, kind, Some(&self.reply_to));
        frame.msg_id = Some(format!("{}-{}", self.salt, self.count));
        frame
    }
}

impl Sink for Streamer {
    fn event(&mut self, event: Event) {
        let (stream, text) = match &event {
            Event::Text(text) => {
                self.end_reasoning();
                (Stream::Answer, self.shown.take(text))
            }
            Event::Reasoning(text) => {
                self.reasoning = true;
                (Stream::Reasoning, text.as_str())
            }
        };
        if !text.is_empty() {
            self.outbox
                .stream(&self.session, &self.reply_to, stream, text);
        }
    }

    fn restart(&mut self) {
        self.shown.restart();
    }
}

/// What was shown of the current text.
#[derive(Debug, Default)]
struct Shown {
    text: String,
    /// How much of it the current request has said again.
    said: usize,
    differs: bool,
}

impl Shown {
    /// The part of a text that is new.
    fn take<'t>(&mut self, text: &'t str) -> &'t str {
        if self.differs {
            return "";
        }
        let known = &self.text.as_bytes()[self.said..];
        let overlap = known.len().min(text.len());
        if known[..overlap] != text.as_bytes()[..overlap] || !text.is_char_boundary(overlap) {
            self.differs = true;
            return "";
        }
        let new = &text[overlap..];
        self.text.push_str(new);
        self.said += text.len();
        new
    }

    fn restart(&mut self) {
        self.said = 0;
    }

    /// Whether a gap is to be shown before the next text.
    fn next_text(&mut self) -> bool {
        let gap = !self.text.is_empty() && !self.differs;
        self.text.clear();
        self.said = 0;
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_said_again_is_shown_once() {
        let mut shown = Shown::default();
        assert_eq!(shown.take("Hello "), "Hello ");
        shown.restart();
        assert_eq!(shown.take("Hel"), "");
        assert_eq!(shown.take("lo world"), "world");
        assert_eq!(shown.take("!"), "!");
    }

    #[test]
    fn text_that_differs_is_not_shown_any_more() {
        let mut shown = Shown::default();
        shown.take("Hello");
        shown.restart();
        assert_eq!(shown.take("Help"), "");
        assert_eq!(shown.take("more"), "");
        assert!(!shown.next_text());
    }
}
