//! What is shown of a conversation. Pure: frames in, texts out.

use std::collections::{BTreeSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use aegis_core::tether::{ACK, DELTA, DONE, Frame, USER_MESSAGE};

/// A text for the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// Of the answer, as it is.
    Answer(String),
    /// About it.
    Faint(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Conversation {
    channel: String,
    session: String,
    /// Names of our own messages: they begin with this.
    prefix: String,
    named: u64,
    /// Messages of ours that are not answered, the oldest first.
    open: VecDeque<String>,
    /// Names of answers that were shown.
    answered: BTreeSet<String>,
    /// What of the answer under way was shown.
    begun: String,
    /// What the guest does, as it was said last.
    state: String,
}

impl Conversation {
    pub(super) fn new(channel: &str, session: &str) -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            channel: channel.to_owned(),
            session: session.to_owned(),
            prefix: format!("chat-{}", since.as_nanos()),
            named: 0,
            open: VecDeque::new(),
            answered: BTreeSet::new(),
            begun: String::new(),
            state: String::new(),
        }
    }

    /// A name for a message, which no other has.
    pub(super) fn next_name(&mut self) -> String {
        self.named += 1;
        format!("{}-{}", self.prefix, self.named)
    }

    /// A message of this name is sent.
    pub(super) fn asked(&mut self, msg_id: &str) {
        self.open.push_back(msg_id.to_owned());
    }

    /// Whether an answer is under way.
    pub(super) fn is_answering(&self) -> bool {
        !self.open.is_empty()
    }

    /// No answer is waited for any longer.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// What is shown of a message of before.
    pub(super) fn past(&mut self, frame: &Frame) -> Vec<Show> {
        if let Some(seq) = frame.seq() {
            self.answered.insert(seq.to_string());
        }
        match frame.kind() {
            USER_MESSAGE => vec![Show::Faint(format!("> {}\n", clean(text(frame))))],
            _ => vec![Show::Answer(format!("{}\n", clean(text(frame))))],
        }
    }

    /// What is shown of a message that comes now.
    pub(super) fn hear(&mut self, frame: &Frame) -> Vec<Show> {
        if frame.channel() != self.channel || frame.session() != self.session {
            return Vec::new();
        }
        if let Some(seq) = frame.seq()
            && !self.answered.insert(seq.to_string())
        {
            return Vec::new();
        }
        match frame.kind() {
            USER_MESSAGE => match frame.msg_id() {
                Some(id) if id.starts_with(&self.prefix) => Vec::new(),
                // Somebody else takes part.
                _ => vec![Show::Faint(format!("> {}\n", clean(text(frame))))],
            },
            DELTA => {
                let piece = clean(text(frame));
                self.begun.push_str(&piece);
                vec![Show::Answer(piece)]
            }
            DONE => self.done(frame),
            ACK => self.refused(frame),
            "status.presence" => self.presence(frame),
            _ => Vec::new(),
        }
    }

    fn done(&mut self, frame: &Frame) -> Vec<Show> {
        let whole = clean(text(frame));
        let begun = std::mem::take(&mut self.begun);
        self.state.clear();
        match frame.reply_to() {
            Some(id) => self.open.retain(|open| open != id),
            None => drop(self.open.pop_front()),
        }
        // The whole counts: where a piece was lost, or another try began, it is said anew.
        let mut shown = match whole.strip_prefix(&begun) {
            Some(rest) => vec![Show::Answer(format!("{rest}\n"))],
            None => vec![Show::Answer(format!("\n{whole}\n"))],
        };
        for image in images(frame) {
            shown.push(Show::Faint(format!(
                "[image: .aegis/blobs/{}]\n",
                clean(&image)
            )));
        }
        shown
    }

    fn refused(&mut self, frame: &Frame) -> Vec<Show> {
        let error = frame
            .payload()
            .and_then(|payload| payload["error"].as_str());
        let (Some(error), Some(id)) = (error, frame.msg_id()) else {
            return Vec::new();
        };
        self.open.retain(|open| open != id);
        vec![Show::Answer(format!(
            "the message was refused: {}\n",
            clean(error)
        ))]
    }

    fn presence(&mut self, frame: &Frame) -> Vec<Show> {
        let state = frame
            .payload()
            .and_then(|payload| payload["state"].as_str());
        let state = clean(state.unwrap_or_default());
        if state.is_empty() || state == self.state {
            return Vec::new();
        }
        self.state.clone_from(&state);
        let line = match self.begun.is_empty() || self.begun.ends_with('\n') {
            true => format!("[{state}]\n"),
            false => format!("\n[{state}]\n"),
        };
        vec![Show::Faint(line)]
    }
}

/// The text of a message.
pub(super) fn text(frame: &Frame) -> &str {
    let text = frame.payload().and_then(|payload| payload["text"].as_str());
    text.unwrap_or_default()
}

fn images(frame: &Frame) -> Vec<String> {
    let images = frame
        .payload()
        .and_then(|payload| payload["images"].as_array());
    let blobs = images.into_iter().flatten();
    blobs
        .filter_map(|image| image["blob"].as_str().map(str::to_owned))
        .collect()
}

/// A guest's text without what a terminal would act on; its lines stay.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn frame(kind: &str, seq: Option<u64>, reply_to: Option<&str>, payload: &Value) -> Frame {
        let mut value = json!({
            "v": 1, "type": kind, "session": {"channel": "host", "id": "a"}, "payload": payload,
        });
        if let Some(seq) = seq {
            value["seq"] = seq.into();
        }
        if let Some(reply_to) = reply_to {
            value["reply_to_msg_id"] = reply_to.into();
        }
        Frame::parse(&value.to_string()).unwrap()
    }

    fn said(text: &str) -> Value {
        json!({"text": text})
    }

    fn answer(text: &str) -> Vec<Show> {
        vec![Show::Answer(text.to_owned())]
    }

    #[test]
    fn pieces_are_shown_as_they_come_and_the_whole_only_where_it_differs() {
        let mut chat = Conversation::new("host", "a");
        let id = chat.next_name();
        chat.asked(&id);
        assert_eq!(
            chat.hear(&frame(DELTA, None, Some(&id), &said("Hel"))),
            answer("Hel")
        );
        let done = frame(DONE, Some(4), Some(&id), &said("Hello"));
        assert_eq!(chat.hear(&done), answer("lo\n"));
        assert!(!chat.is_answering());
        assert!(chat.hear(&done).is_empty(), "it was heard");
        chat.hear(&frame(DELTA, None, None, &said("Wro")));
        let other = frame(DONE, Some(5), None, &said("Right"));
        assert_eq!(chat.hear(&other), answer("\nRight\n"));
    }

    #[test]
    fn answers_end_the_messages_they_are_for() {
        let mut chat = Conversation::new("host", "a");
        for id in ["1", "2", "3"] {
            chat.asked(id);
        }
        chat.hear(&frame(DONE, Some(1), Some("2"), &said("")));
        chat.hear(&frame(DONE, Some(2), None, &said("")));
        assert!(chat.is_answering());
        let mut third = frame(USER_MESSAGE, Some(3), None, &said(""));
        third.name_it(|| "3".to_owned());
        let refused = chat.hear(&third.acknowledged(Some("too long")));
        assert_eq!(refused, answer("the message was refused: too long\n"));
        assert!(!chat.is_answering());
    }

    #[test]
    fn our_own_messages_are_not_shown_again_and_those_of_others_are() {
        let mut chat = Conversation::new("host", "a");
        let mut own = frame(USER_MESSAGE, Some(1), None, &said("mine"));
        let name = chat.next_name();
        own.name_it(|| name);
        assert!(chat.hear(&own).is_empty());
        let other = frame(USER_MESSAGE, Some(2), None, &said("theirs\x1b[2J"));
        let shown = vec![Show::Faint("> theirs\u{fffd}[2J\n".to_owned())];
        assert_eq!(chat.hear(&other), shown);
    }

    #[test]
    fn what_the_guest_does_is_said_once() {
        let mut chat = Conversation::new("host", "a");
        let thinks = |seq| {
            frame(
                "status.presence",
                Some(seq),
                None,
                &json!({"state": "thinking"}),
            )
        };
        assert_eq!(
            chat.hear(&thinks(1)),
            [Show::Faint("[thinking]\n".to_owned())]
        );
        assert!(chat.hear(&thinks(2)).is_empty());
    }
}
