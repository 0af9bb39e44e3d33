//! An answer while it is written: its text so far, and what of it the chat shows. Pure.

use tokio::time::Instant;

use super::rich::{MESSAGE, Rich};

/// Longest text that is shown while it is written, in bytes; the final one comes whole.
const MAX_STREAMED: usize = 64 << 10;

/// A run of the agent that answers one message.
#[derive(Clone, Debug)]
pub struct Run {
    /// `msg_id` of the message that is answered.
    pub reply_to: String,
    text: String,
    /// What each message shows, in order.
    shown: Vec<Shown>,
    /// Live-only frames were lost: the text would have a hole, so nothing more is shown.
    frozen: bool,
    /// When the agent gave a sign of life.
    pub seen: Instant,
    /// Not before this time is the next change shown.
    pub next: Instant,
}

#[derive(Clone, Debug)]
struct Shown {
    message: i64,
    /// `None` where another process has shown it.
    text: Option<String>,
}

/// What is to be changed in the chat so that it shows the text so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Send(String),
    Edit { message: i64, text: String },
}

impl Run {
    /// A run that is known by a frame of it. `messages` are in the chat already.
    pub fn new(reply_to: String, messages: &[i64], now: Instant) -> Self {
        let shown = messages.iter().map(|message| Shown {
            message: *message,
            text: None,
        });
        Self {
            reply_to,
            text: String::new(),
            shown: shown.collect(),
            // The beginning of the text is not known where another process has shown it.
            frozen: !messages.is_empty(),
            seen: now,
            next: now,
        }
    }

    /// More text. `false` where it will not be shown.
    pub fn add(&mut self, text: &str, now: Instant) {
        self.seen = now;
        if self.frozen {
            return;
        }
        self.text.push_str(text);
        self.frozen = self.text.len() > MAX_STREAMED;
    }

    /// Frames may be missing from now on.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    /// The first thing to change, if there is any.
    pub fn change(&self) -> Option<Change> {
        if self.frozen {
            return None;
        }
        let parts = Rich::plain(&self.text).parts(MESSAGE);
        for (index, part) in parts.into_iter().enumerate() {
            match self.shown.get(index) {
                None => return Some(Change::Send(part.plain)),
                Some(shown) if shown.text.as_ref() != Some(&part.plain) => {
                    return Some(Change::Edit {
                        message: shown.message,
                        text: part.plain,
                    });
                }
                Some(_) => {}
            }
        }
        None
    }

    /// A change was made; `message` is the one that shows it.
    pub fn changed(&mut self, change: Change, message: i64) {
        let (old, text) = match change {
            Change::Send(text) => (None, text),
            Change::Edit { message, text } => (Some(message), text),
        };
        let shown = Shown {
            message,
            text: Some(text),
        };
        let place = self
            .shown
            .iter_mut()
            .find(|shown| Some(shown.message) == old);
        match place {
            Some(place) => *place = shown,
            None => self.shown.push(shown),
        }
    }

    /// The messages that show the text, in order.
    pub fn messages(&self) -> Vec<i64> {
        self.shown.iter().map(|shown| shown.message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_sent_once_and_then_edited() {
        let now = Instant::now();
        let mut run = Run::new("tg-1-2".into(), &[], now);
        assert_eq!(run.change(), None);
        run.add("\n", now);
        assert_eq!(run.change(), None, "a blank text is no message");
        run.add("Hello", now);
        let change = run.change().unwrap();
        assert_eq!(change, Change::Send("Hello".into()));
        run.changed(change, 70);
        assert_eq!(run.change(), None);
        run.add(" you", now);
        let change = run.change().unwrap();
        assert_eq!(
            change,
            Change::Edit {
                message: 70,
                text: "Hello you".into()
            }
        );
        // The message had gone, and another one was sent.
        run.changed(change, 71);
        assert_eq!((run.change(), run.messages()), (None, vec![71]));
    }

    #[test]
    fn a_long_text_goes_on_in_a_further_message() {
        let now = Instant::now();
        let mut run = Run::new("tg-1-2".into(), &[], now);
        run.add(&"word ".repeat(1000), now);
        let mut sent = Vec::new();
        while let Some(change) = run.change() {
            assert!(matches!(change, Change::Send(_)));
            run.changed(change.clone(), 70 + sent.len() as i64);
            sent.push(change);
        }
        assert_eq!((sent.len(), run.messages()), (2, vec![70, 71]));
    }

    #[test]
    fn a_text_with_a_hole_is_not_shown() {
        let now = Instant::now();
        let mut run = Run::new("tg-1-2".into(), &[], now);
        run.add("Hel", now);
        run.freeze();
        run.add(" you", now);
        assert_eq!(run.change(), None);
        let mut taken_over = Run::new("tg-1-2".into(), &[70], now);
        taken_over.add("lo", now);
        assert_eq!(
            (taken_over.change(), taken_over.messages()),
            (None, vec![70])
        );
    }
}
