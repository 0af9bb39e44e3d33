//! What a chat is to get next. Pure: the time is an argument.
//!
//! ```text
//!  taken ──► run ──delta──► run with text ──answer──► job ──► over
//!             └── typing is shown until the answer, or until the agent is silent for long
//! ```
//! Answers go first, in order; then changes of streamed text; then the sign of typing.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::run::{Change, Run};
use crate::frame::Image;

/// Telegram shows "typing" for five seconds.
const TYPING: Duration = Duration::from_millis(4500);
/// An agent that gives no sign of life for this long is not said to be typing.
const SILENCE: Duration = Duration::from_secs(120);
/// So many ended runs are remembered, so that late frames of theirs begin none.
const MAX_OVER: usize = 16;
/// The key of what the agent says unasked.
pub const UNASKED: &str = "-";
/// The key of what the gateway says itself.
pub const NOTICE: &str = ".";

/// A message to a chat, which may become several.
#[derive(Debug)]
pub struct Answer {
    /// The number of its frame; `None` where it is the gateway's own.
    pub seq: Option<u64>,
    /// `msg_id` of the message that it answers, [`UNASKED`] or [`NOTICE`].
    pub key: String,
    /// Markdown.
    pub text: String,
    pub images: Vec<Image>,
    /// The message that it is shown as an answer to.
    pub reply_to: Option<i64>,
    /// Its share of the memory for waiting answers.
    pub room: Option<OwnedSemaphorePermit>,
}

/// What a chat waits for.
#[derive(Debug, Default)]
pub struct Queue {
    answers: VecDeque<Answer>,
    runs: Vec<Run>,
    over: VecDeque<String>,
    typing: Option<Instant>,
}

/// What is to be done now.
#[derive(Debug)]
pub enum Next {
    Answer(Answer),
    Change {
        key: String,
        change: Change,
    },
    Typing,
    /// Nothing before this time, or before there is something new.
    Wait(Option<Instant>),
}

impl Queue {
    /// An answer is to be sent; its run is over.
    pub fn push(&mut self, answer: Answer) {
        self.end(&answer.key);
        self.answers.push_back(answer);
    }

    /// Its run is over.
    pub fn end(&mut self, key: &str) {
        self.runs.retain(|run| run.reply_to != key);
        if key != UNASKED && key != NOTICE && !self.over.iter().any(|over| over == key) {
            self.over.push_back(key.to_owned());
            if self.over.len() > MAX_OVER {
                self.over.pop_front();
            }
        }
        if self.runs.is_empty() {
            self.typing = None;
        }
    }

    /// The agent works on a message. `messages` show its answer already.
    pub fn alive(&mut self, key: &str, messages: &[i64], now: Instant) {
        if let Some(run) = self.run(key, messages, now) {
            run.seen = now;
            self.typing.get_or_insert(now);
        }
    }

    /// A piece of an answer.
    pub fn delta(&mut self, key: &str, messages: &[i64], text: &str, now: Instant) {
        if let Some(run) = self.run(key, messages, now) {
            run.add(text, now);
            self.typing.get_or_insert(now);
        }
    }

    /// Whether a run is known.
    pub fn knows(&self, key: &str) -> bool {
        self.runs.iter().any(|run| run.reply_to == key)
    }

    /// Pieces of the answers may be missing.
    pub fn lost(&mut self) {
        for run in &mut self.runs {
            run.freeze();
        }
    }

    /// A change was made, or could not be; the next of its run is not before `next`.
    pub fn changed(&mut self, key: &str, change: Option<(Change, i64)>, next: Instant) {
        if let Some(run) = self.runs.iter_mut().find(|run| run.reply_to == key) {
            run.next = next;
            if let Some((change, message)) = change {
                run.changed(change, message);
            }
        }
    }

    /// The messages that show a run's text.
    pub fn messages(&self, key: &str) -> Vec<i64> {
        let run = self.runs.iter().find(|run| run.reply_to == key);
        run.map(Run::messages).unwrap_or_default()
    }

    /// Nothing more is shown of a run before its answer.
    pub fn freeze(&mut self, key: &str) {
        if let Some(run) = self.runs.iter_mut().find(|run| run.reply_to == key) {
            run.freeze();
        }
    }

    /// Typing was shown, and is not shown anew before `next`.
    pub fn typed(&mut self, now: Instant, next: Option<Instant>) {
        if self.typing.is_some() {
            self.typing = Some((now + TYPING).max(next.unwrap_or(now)));
        }
    }

    /// Whether the agent works on something.
    pub fn is_busy(&self, now: Instant) -> bool {
        self.runs.iter().any(|run| run.seen + SILENCE > now)
    }

    /// Whether there is nothing to remember.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.answers.is_empty() && !self.is_busy(now)
    }

    /// What is to be done now.
    pub fn next(&mut self, now: Instant) -> Next {
        if let Some(answer) = self.answers.pop_front() {
            return Next::Answer(answer);
        }
        self.runs
            .retain(|run| run.seen + SILENCE > now || run.change().is_some());
        let mut wait: Option<Instant> = None;
        for run in &self.runs {
            let Some(change) = run.change() else { continue };
            if run.next <= now {
                let key = run.reply_to.clone();
                return Next::Change { key, change };
            }
            wait = Some(wait.map_or(run.next, |wait| wait.min(run.next)));
        }
        if !self.is_busy(now) {
            self.typing = None;
        }
        match self.typing {
            Some(at) if at <= now => return Next::Typing,
            Some(at) => wait = Some(wait.map_or(at, |wait| wait.min(at))),
            None => {}
        }
        Next::Wait(wait)
    }

    fn run(&mut self, key: &str, messages: &[i64], now: Instant) -> Option<&mut Run> {
        if self.over.iter().any(|over| over == key) {
            return None;
        }
        if !self.knows(key) {
            self.runs.push(Run::new(key.to_owned(), messages, now));
        }
        self.runs.iter_mut().find(|run| run.reply_to == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(key: &str) -> Answer {
        Answer {
            seq: Some(1),
            key: key.to_owned(),
            text: "hi".into(),
            images: Vec::new(),
            reply_to: None,
            room: None,
        }
    }

    #[test]
    fn a_fast_answer_is_not_followed_by_typing() {
        let now = Instant::now();
        let mut queue = Queue::default();
        // The answer is there before the gateway knows that its message was taken.
        queue.delta("m1", &[], "h", now);
        queue.push(answer("m1"));
        queue.alive("m1", &[], now);
        queue.delta("m1", &[], "late", now);
        assert!(matches!(queue.next(now), Next::Answer(_)));
        assert!(matches!(queue.next(now), Next::Wait(None)));
        assert!(queue.is_idle(now));
    }

    #[test]
    fn typing_is_shown_while_the_agent_lives_and_no_longer() {
        let mut now = Instant::now();
        let mut queue = Queue::default();
        queue.alive("m1", &[], now);
        let mut shown = 0;
        loop {
            match queue.next(now) {
                Next::Typing => {
                    shown += 1;
                    queue.typed(now, None);
                }
                Next::Wait(Some(at)) => now = at,
                Next::Wait(None) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(shown, 27);
    }

    #[test]
    fn answers_go_before_progress_and_progress_waits_for_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut queue = Queue::default();
        queue.delta("m1", &[], "a", now);
        queue.push(answer(UNASKED));
        assert!(matches!(queue.next(now), Next::Answer(_)));
        let Next::Change { key, change } = queue.next(now) else {
            panic!("no change");
        };
        queue.changed(&key, Some((change, 70)), later);
        queue.delta("m1", &[], "b", now);
        queue.typed(now, None);
        let Next::Wait(Some(at)) = queue.next(now) else {
            panic!("no wait");
        };
        assert_eq!(at, later);
        assert!(matches!(queue.next(later), Next::Change { .. }));
        assert_eq!(queue.messages("m1"), [70]);
    }
}
