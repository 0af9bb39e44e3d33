//! What the turns of a file mean. Pure.
//!
//! A message is written when it comes, maybe while the answer to an earlier one is being
//! made, so the file's order is not the conversation's. A conversation is a list of
//! exchanges: a message with everything that belongs to it, in the order of messages.
//!
//! ```text
//!   file:  user A · user B · assistant(A) · tool(A) · assistant(A, final) · assistant(B, final)
//!   here:  [A: assistant, tool, assistant]  [B: assistant]
//! ```

use std::collections::{HashSet, VecDeque};

use super::turn::{Role, Turn};

/// What happened, as notes name it.
pub(crate) const SENT: &str = "sent";
pub(crate) const RESUMED: &str = "resumed";
pub(crate) const NEW: &str = "new";

/// A message and what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exchange {
    pub user: Turn,
    /// Turns of the assistant and of tools.
    pub turns: Vec<Turn>,
    /// The host has the answer.
    pub sent: bool,
    /// How often its answer was taken up again after the agent had ended.
    pub resumed: usize,
}

impl Exchange {
    /// The message's id; turns of upstream have none.
    #[must_use]
    pub(crate) fn msg_id(&self) -> Option<&str> {
        self.user.msg_id.as_deref()
    }

    /// The answer, if it was made.
    #[must_use]
    pub(crate) fn answer(&self) -> Option<&Turn> {
        self.turns.iter().find(|turn| turn.is_final)
    }

    /// Whether an answer is due. Messages without id are of upstream, which answered
    /// them or never will.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.msg_id().is_some() && self.answer().is_none()
    }

    /// Characters of all its turns.
    #[must_use]
    pub(crate) fn chars(&self) -> usize {
        self.user.chars() + self.turns.iter().map(Turn::chars).sum::<usize>()
    }
}

/// What there is in the order it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Exchange(Box<Exchange>),
    /// Here the conversation starts afresh; what was before has yet to be archived.
    New {
        msg_id: Option<String>,
    },
}

/// All of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Conversation {
    /// What came before the first item, told by a model.
    pub summary: Option<Turn>,
    /// How many messages of the file are not among the items, since the summary stands
    /// for them.
    pub covered: usize,
    pub items: VecDeque<Item>,
    /// Ids of messages that were there, oldest first, the items' among them.
    pub seen: Vec<String>,
    known: HashSet<String>,
}

impl Conversation {
    /// Takes the next turn of a file.
    pub(crate) fn push(&mut self, turn: Turn) {
        match turn.role {
            Role::User => {
                // Written twice where the first time was not known to be on the disk.
                if !self.see(turn.msg_id.as_ref()) {
                    return;
                }
                self.items.push_back(Item::Exchange(Box::new(Exchange {
                    user: turn,
                    turns: Vec::new(),
                    sent: false,
                    resumed: 0,
                })));
            }
            Role::Assistant | Role::Tool => {
                if let Some(exchange) = self.of(turn.reply_to.as_deref()) {
                    exchange.turns.push(turn);
                }
            }
            Role::Summary => self.cover(turn),
            Role::Note => self.note(&turn),
        }
    }

    /// Whether an id is seen for the first time; a message without id always is.
    fn see(&mut self, msg_id: Option<&String>) -> bool {
        let Some(id) = msg_id else { return true };
        let first = self.known.insert(id.clone());
        if first {
            self.seen.push(id.clone());
        }
        first
    }

    /// The exchange that a turn belongs to: the named one, or the last.
    fn of(&mut self, msg_id: Option<&str>) -> Option<&mut Exchange> {
        self.exchanges_mut()
            .rev()
            .find(|exchange| msg_id.is_none() || exchange.msg_id() == msg_id)
    }

    fn cover(&mut self, mut turn: Turn) {
        let covers = turn.covers.unwrap_or_default();
        while self.covered < covers {
            match self.items.pop_front() {
                Some(Item::Exchange(_)) => self.covered += 1,
                Some(Item::New { .. }) => {}
                None => break,
            }
        }
        let mut seen = std::mem::take(&mut turn.seen);
        seen.retain(|id| self.known.insert(id.clone()));
        seen.append(&mut self.seen);
        self.seen = seen;
        self.summary = Some(turn);
    }

    fn note(&mut self, turn: &Turn) {
        match turn.content.text().as_str() {
            SENT => {
                if let Some(exchange) = self.of(turn.reply_to.as_deref()) {
                    exchange.sent = true;
                }
            }
            RESUMED => {
                if let Some(exchange) = self.of(turn.reply_to.as_deref()) {
                    exchange.resumed += 1;
                }
            }
            NEW if self.see(turn.msg_id.as_ref()) => {
                self.items.push_back(Item::New {
                    msg_id: turn.msg_id.clone(),
                });
            }
            _ => {}
        }
    }

    /// The exchanges, oldest first.
    pub(crate) fn exchanges(&self) -> impl DoubleEndedIterator<Item = &Exchange> {
        self.items.iter().filter_map(|item| match item {
            Item::Exchange(exchange) => Some(&**exchange),
            Item::New { .. } => None,
        })
    }

    fn exchanges_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Exchange> {
        self.items.iter_mut().filter_map(|item| match item {
            Item::Exchange(exchange) => Some(&mut **exchange),
            Item::New { .. } => None,
        })
    }

    /// The exchanges up to the one of a message, that one last, since the conversation
    /// last started afresh before it. `None` where there is no such message.
    #[must_use]
    pub(crate) fn up_to(mut self, msg_id: &str) -> Option<Self> {
        let of = |item: &Item| matches!(item, Item::Exchange(e) if e.msg_id() == Some(msg_id));
        let at = self.items.iter().position(of)?;
        self.items.truncate(at + 1);
        let new = |item: &Item| matches!(item, Item::New { .. });
        if let Some(start) = self.items.iter().rposition(new) {
            let before = self.items.drain(..=start);
            self.covered += before.filter(|item| !new(item)).count();
            self.summary = None;
        }
        Some(self)
    }

    /// Takes away everything before the first `New` and that itself; the rest stays.
    /// `None` where there is no `New`.
    #[must_use]
    pub(crate) fn split_at_new(mut self) -> Option<(Conversation, Conversation)> {
        let new = |item: &Item| matches!(item, Item::New { .. });
        let at = self.items.iter().position(new)?;
        let rest = self.items.split_off(at + 1);
        self.items.pop_back();
        let after = Conversation {
            summary: None,
            covered: 0,
            items: rest,
            seen: self.seen.clone(),
            known: self.known.clone(),
        };
        Some((self, after))
    }

    /// The turns of a file that means the same.
    #[must_use]
    pub(crate) fn into_turns(self) -> Vec<Turn> {
        const REMEMBERED: usize = 200;
        let mut turns = Vec::new();
        let here: Vec<&str> = self.exchanges().filter_map(Exchange::msg_id).collect();
        let mut seen: Vec<String> = self
            .seen
            .iter()
            .filter(|id| !here.contains(&id.as_str()))
            .cloned()
            .collect();
        seen.drain(..seen.len().saturating_sub(REMEMBERED));
        match self.summary {
            Some(summary) => turns.push(Turn {
                covers: Some(0),
                seen,
                ..summary
            }),
            None if !seen.is_empty() => turns.push(Turn {
                covers: Some(0),
                seen,
                ..Turn::new(Role::Summary, super::turn::Content::default())
            }),
            None => {}
        }
        for item in self.items {
            match item {
                Item::New { msg_id } => turns.push(Turn {
                    msg_id,
                    ..Turn::note(NEW, None)
                }),
                Item::Exchange(exchange) => {
                    let id = exchange.msg_id().map(str::to_owned);
                    turns.push(exchange.user);
                    turns.extend(exchange.turns);
                    let notes = std::iter::repeat_n(RESUMED, exchange.resumed)
                        .chain(exchange.sent.then_some(SENT));
                    turns.extend(notes.map(|note| Turn::note(note, id.as_deref())));
                }
            }
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::super::turn::Content;
    use super::*;

    fn user(id: &str) -> Turn {
        Turn {
            msg_id: Some(id.into()),
            ..Turn::new(Role::User, Content::Text(format!("text of {id}")))
        }
    }

    fn answer(id: &str) -> Turn {
        Turn {
            is_final: true,
            ..Turn::reply(Role::Assistant, Content::Text(format!("re {id}")), id)
        }
    }

    fn summary(covers: usize) -> Turn {
        Turn {
            covers: Some(covers),
            ..Turn::new(Role::Summary, Content::Text("long ago".into()))
        }
    }

    fn read(turns: Vec<Turn>) -> Conversation {
        let mut conversation = Conversation::default();
        for turn in turns {
            conversation.push(turn);
        }
        conversation
    }

    #[test]
    fn a_message_that_came_during_an_answer_follows_that_answer() {
        let conversation = read(vec![user("a"), user("b"), answer("a")]);
        let exchanges: Vec<_> = conversation.exchanges().collect();
        assert_eq!(exchanges[0].answer().unwrap().content.text(), "re a");
        assert!(!exchanges[0].is_open());
        assert!(exchanges[1].is_open());
    }

    #[test]
    fn turns_of_upstream_belong_to_the_message_before_and_are_never_open() {
        let plain = |role| Turn::new(role, Content::Text("x".into()));
        let conversation = read(vec![
            plain(Role::User),
            plain(Role::Assistant),
            plain(Role::User),
        ]);
        let exchanges: Vec<_> = conversation.exchanges().collect();
        assert_eq!(exchanges[0].turns.len(), 1);
        assert!(!exchanges[1].is_open());
    }

    #[test]
    fn a_summary_stands_for_the_first_messages_and_their_ids_stay_known() {
        let turns = vec![
            user("a"),
            answer("a"),
            user("b"),
            user("c"),
            summary(2),
            user("d"),
        ];
        let conversation = read(turns);
        let ids: Vec<_> = conversation.exchanges().map(Exchange::msg_id).collect();
        assert_eq!(ids, [Some("c"), Some("d")]);
        assert_eq!(conversation.seen, ["a", "b", "c", "d"]);
        let again = read(conversation.clone().into_turns());
        assert_eq!(again.seen, ["a", "b", "c", "d"]);
        assert_eq!(again.exchanges().count(), 2);
        assert_eq!(again.summary.unwrap().content.text(), "long ago");
    }

    #[test]
    fn after_new_nothing_of_before_is_in_the_context() {
        let new = || Turn::note(NEW, None);
        let turns = vec![user("a"), answer("a"), new(), user("b")];
        let context = read(turns.clone()).up_to("b").unwrap();
        assert_eq!(context.exchanges().count(), 1);
        let before = read(turns.clone()).up_to("a").unwrap();
        assert_eq!(before.exchanges().count(), 1);
        let (archived, rest) = read(turns).split_at_new().unwrap();
        assert_eq!(archived.exchanges().count(), 1);
        assert_eq!(rest.exchanges().next().unwrap().msg_id(), Some("b"));
        assert_eq!(rest.seen, ["a", "b"]);
    }

    #[test]
    fn a_message_that_was_written_twice_is_there_once() {
        let conversation = read(vec![user("a"), user("a"), answer("a")]);
        assert_eq!(conversation.exchanges().count(), 1);
    }

    #[test]
    fn notes_say_what_was_sent_and_resumed() {
        let turns = vec![
            user("a"),
            Turn::note(RESUMED, Some("a")),
            answer("a"),
            Turn::note(SENT, Some("a")),
        ];
        let conversation = read(turns);
        let again = read(conversation.into_turns());
        let exchange = again.exchanges().next().unwrap();
        assert!(exchange.sent);
        assert_eq!(exchange.resumed, 1);
    }
}
