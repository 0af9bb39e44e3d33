//! How often a bot may send (<https://core.telegram.org/bots/faq>, "My bot is hitting
//! limits"): about one message a second in a chat, 20 a minute in a group, 30 a second in
//! all. Pure: the time is an argument.
//!
//! Edits count as messages. What only shows progress leaves room for what must arrive. A
//! message counts from the moment that it was answered: nobody knows when before that it
//! arrived, and a slow answer must not let others catch up with it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// Between two messages of a chat. A little more than a second, since what was sent a
/// second apart may arrive closer together.
const APART: Duration = Duration::from_millis(1100);
/// Between two edits that show progress in a group: three seconds are 20 a minute.
const APART_IN_GROUP: Duration = Duration::from_secs(4);
const MINUTE: Duration = Duration::from_secs(61);
/// Of the 20 a minute, what may be used, and what of that may show progress.
const GROUP_MINUTE: usize = 19;
const GROUP_PROGRESS: usize = 12;
/// Of the 30 a second in all, what may be used; likewise.
const SECOND: Duration = Duration::from_millis(1100);
const ALL_SECOND: usize = 26;
const ALL_PROGRESS: usize = 16;
/// A message that was not answered for so long never will be.
const LOST: Duration = Duration::from_secs(90);
/// Before it is asked again whether messages under way were answered.
const AGAIN: Duration = Duration::from_millis(100);

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It must arrive.
    Final,
    /// It shows progress; a later one will do.
    Progress,
}

/// What was sent, and until when nothing may be.
#[derive(Debug, Default)]
pub struct Limiter {
    all: Vec<Message>,
    blocked: Option<Instant>,
    chats: HashMap<i64, Chat>,
    /// When it began, where another one may have sent until then.
    begun: Option<Instant>,
}

/// A message that counts among all.
#[derive(Clone, Copy, Debug)]
struct Message {
    chat: i64,
    /// When it was answered, or admitted if it is not yet.
    at: Instant,
    is_answered: bool,
}

#[derive(Debug, Default)]
struct Chat {
    /// When messages were sent, of the last minute.
    sent: VecDeque<Instant>,
    blocked: Option<Instant>,
}

impl Limiter {
    /// A limiter that begins where another one may just have ended, which sent as much as
    /// may be; to `groups` it sent messages so long ago, and all the progress that may be,
    /// of which there is no record.
    pub fn after_start(now: Instant, groups: impl Iterator<Item = (i64, Vec<Duration>)>) -> Self {
        let message = Message {
            chat: 0,
            at: now,
            is_answered: true,
        };
        let chats = groups.map(|(group, ago)| {
            let sent = ago.into_iter().filter_map(|ago| now.checked_sub(ago));
            let mut sent: Vec<Instant> = sent.chain([now; GROUP_PROGRESS]).collect();
            sent.sort_unstable();
            let chat = Chat {
                sent: sent.into(),
                blocked: None,
            };
            (group, chat)
        });
        Self {
            all: vec![message; ALL_SECOND],
            begun: Some(now),
            chats: chats.collect(),
            ..Self::default()
        }
    }

    /// Whether a message may be sent now, which counts it; else when to ask again.
    ///
    /// # Errors
    /// The time to ask again.
    pub fn admit(&mut self, chat: i64, purpose: Purpose, now: Instant) -> Result<(), Instant> {
        self.forget(now);
        let wait = self.wait(chat, purpose, now);
        if let Some(until) = wait {
            return Err(until);
        }
        self.all.push(Message {
            chat,
            at: now,
            is_answered: false,
        });
        self.chats.entry(chat).or_default().sent.push_back(now);
        Ok(())
    }

    /// A message has been answered at `now`: the next is as far from there.
    pub fn answered(&mut self, chat: i64, now: Instant) {
        let under_way = |message: &&mut Message| message.chat == chat && !message.is_answered;
        if let Some(message) = self.all.iter_mut().find(under_way) {
            message.at = now;
            message.is_answered = true;
        }
        if let Some(last) = self
            .chats
            .get_mut(&chat)
            .and_then(|chat| chat.sent.back_mut())
        {
            *last = now;
        }
    }

    /// Telegram asks to wait. A second chat that is told so while another one waits means
    /// that all are meant.
    pub fn refuse(&mut self, chat: i64, until: Instant, now: Instant) {
        let others = self.chats.iter().filter(|(other, _)| **other != chat);
        let waiting = others
            .filter_map(|(_, other)| other.blocked)
            .any(|until| until > now);
        if waiting {
            self.blocked = self.blocked.max(Some(until));
        }
        let chat = self.chats.entry(chat).or_default();
        chat.blocked = chat.blocked.max(Some(until));
    }

    /// Until when a chat may get nothing at all, not even a sign of typing.
    pub fn blocked(&self, chat: i64, now: Instant) -> Option<Instant> {
        let own = self.chats.get(&chat).and_then(|chat| chat.blocked);
        own.max(self.blocked).filter(|until| *until > now)
    }

    fn wait(&self, chat: i64, purpose: Purpose, now: Instant) -> Option<Instant> {
        let most = match purpose {
            Purpose::Final => ALL_SECOND,
            Purpose::Progress => ALL_PROGRESS,
        };
        let all = self.all_are_full(most, now);
        let begun = self.begun.map(|begun| begun + APART);
        let begun = begun.filter(|until| *until > now);
        let blocked = self.blocked(chat, now);
        let Some(state) = self.chats.get(&chat) else {
            return all.max(blocked).max(begun);
        };
        // Groups, supergroups and channels have ids below zero.
        let group = chat < 0;
        let apart = match group && purpose == Purpose::Progress {
            true => APART_IN_GROUP,
            false => APART,
        };
        let last = state.sent.back().map(|last| *last + apart);
        let last = last.filter(|until| *until > now);
        let minute = group.then_some(match purpose {
            Purpose::Final => GROUP_MINUTE,
            Purpose::Progress => GROUP_PROGRESS,
        });
        let minute = minute.and_then(|most| full(&state.sent, most, MINUTE, now));
        all.max(blocked).max(last).max(minute)
    }

    /// When there is room again among all messages; `None` where there is.
    fn all_are_full(&self, most: usize, now: Instant) -> Option<Instant> {
        let too_many = self.all.len().checked_sub(most)?;
        let answered = self.all.iter().filter(|message| message.is_answered);
        let mut answered: Vec<Instant> = answered.map(|message| message.at).collect();
        answered.sort_unstable();
        let leaves = answered.get(too_many).map(|at| *at + SECOND);
        Some(leaves.unwrap_or(now + AGAIN))
    }

    /// Drops what no longer counts, so that chats that were quiet cost nothing.
    fn forget(&mut self, now: Instant) {
        let old = |sent: &mut VecDeque<Instant>, age: Duration| {
            while sent.front().is_some_and(|first| *first + age <= now) {
                sent.pop_front();
            }
        };
        self.all.retain(|message| {
            let counts = if message.is_answered { SECOND } else { LOST };
            message.at + counts > now
        });
        for chat in self.chats.values_mut() {
            old(&mut chat.sent, MINUTE);
            chat.blocked = chat.blocked.filter(|until| *until > now);
        }
        self.chats
            .retain(|_, chat| !chat.sent.is_empty() || chat.blocked.is_some());
        self.blocked = self.blocked.filter(|until| *until > now);
    }
}

/// When there is room again in a window of time that holds `most`; `None` where there is.
fn full(sent: &VecDeque<Instant>, most: usize, window: Duration, now: Instant) -> Option<Instant> {
    let oldest = sent
        .len()
        .checked_sub(most)
        .and_then(|index| sent.get(index))?;
    Some(*oldest + window).filter(|until| *until > now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn messages_under_way_count_until_a_second_after_their_answer() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        let many = i64::try_from(ALL_SECOND).unwrap();
        for chat in 1..=many {
            limiter.admit(chat, Purpose::Final, start).unwrap();
        }
        // Long after they were sent, and nobody knows when they arrived.
        let late = start + ms(5000);
        let again = limiter.admit(100, Purpose::Final, late).unwrap_err();
        assert_eq!(again, late + AGAIN);
        limiter.answered(3, late);
        let again = limiter.admit(100, Purpose::Final, late).unwrap_err();
        assert_eq!(again, late + SECOND);
        limiter.admit(100, Purpose::Final, again).unwrap();
        let lost = start + LOST;
        limiter.admit(101, Purpose::Final, lost).unwrap();
    }

    #[test]
    fn one_that_begins_waits_for_what_another_may_have_sent() {
        let start = Instant::now();
        let mut limiter = Limiter::after_start(start, std::iter::empty());
        let until = limiter.admit(1, Purpose::Final, start).unwrap_err();
        assert_eq!(until, start + SECOND);
        limiter.admit(1, Purpose::Final, until).unwrap();
    }

    #[test]
    fn one_that_begins_knows_the_last_minute_of_groups() {
        let start = Instant::now() + Duration::from_secs(3600);
        let answers = GROUP_MINUTE - GROUP_PROGRESS;
        let groups = [(-1, vec![ms(30_000); answers]), (-2, Vec::new())];
        let mut limiter = Limiter::after_start(start, groups.into_iter());
        let later = start + APART;
        let until = limiter.admit(-1, Purpose::Final, later).unwrap_err();
        assert_eq!(until, start - ms(30_000) + MINUTE);
        limiter.admit(-1, Purpose::Final, until).unwrap();
        limiter.admit(-2, Purpose::Final, later).unwrap();
        let until = limiter
            .admit(-2, Purpose::Progress, later + ms(5000))
            .unwrap_err();
        assert_eq!(until, start + MINUTE);
        // A group that was sent nothing is free.
        limiter.admit(-3, Purpose::Progress, later).unwrap();
    }

    #[test]
    fn a_chat_gets_one_message_a_second_from_the_answer_on() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        limiter.admit(1, Purpose::Final, start).unwrap();
        let until = limiter
            .admit(1, Purpose::Final, start + ms(500))
            .unwrap_err();
        assert_eq!(until, start + APART);
        limiter.admit(2, Purpose::Final, start + ms(500)).unwrap();
        limiter.answered(1, start + ms(700));
        assert_eq!(
            limiter.admit(1, Purpose::Final, until).unwrap_err(),
            start + ms(700) + APART
        );
        limiter
            .admit(1, Purpose::Final, start + ms(700) + APART)
            .unwrap();
    }

    #[test]
    fn progress_in_a_group_leaves_room_for_answers() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        let mut now = start;
        let mut progress = 0;
        while now < start + Duration::from_secs(59) {
            progress += usize::from(limiter.admit(-1, Purpose::Progress, now).is_ok());
            now += ms(100);
        }
        assert_eq!(progress, GROUP_PROGRESS);
        limiter.admit(-1, Purpose::Final, now).unwrap();
    }

    #[test]
    fn what_telegram_asks_for_is_obeyed() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        limiter.refuse(1, start + ms(5000), start);
        assert_eq!(
            limiter.admit(1, Purpose::Final, start),
            Err(start + ms(5000))
        );
        limiter.admit(2, Purpose::Final, start).unwrap();
        assert_eq!(limiter.blocked(1, start), Some(start + ms(5000)));
        // A second chat is told to wait: all are meant.
        limiter.refuse(2, start + ms(3000), start);
        assert_eq!(
            limiter.admit(3, Purpose::Final, start),
            Err(start + ms(3000))
        );
        limiter.admit(3, Purpose::Final, start + ms(3000)).unwrap();
        limiter.admit(1, Purpose::Final, start + ms(5000)).unwrap();
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_telegram_allows(
            steps in proptest::collection::vec((0_u64..400, -3_i64..20, any::<bool>()), 1..300),
        ) {
            let start = Instant::now();
            let mut limiter = Limiter::default();
            let mut now = start;
            let mut sent: Vec<(Instant, i64)> = Vec::new();
            for (pause, chat, last) in steps {
                now += ms(pause);
                let purpose = if last { Purpose::Final } else { Purpose::Progress };
                match limiter.admit(chat, purpose, now) {
                    Ok(()) => {
                        sent.push((now, chat));
                        limiter.answered(chat, now);
                    }
                    Err(until) => prop_assert!(until > now),
                }
            }
            for (at, chat) in &sent {
                let within = |span: Duration, only: Option<i64>| sent.iter().filter(|(other, to)| {
                    *other >= *at && *other < *at + span && only.is_none_or(|only| only == *to)
                }).count();
                prop_assert!(within(ms(1000), Some(*chat)) <= 1);
                prop_assert!(within(ms(1000), None) <= 30);
                if *chat < 0 {
                    prop_assert!(within(ms(60_000), Some(*chat)) <= 20);
                }
            }
        }
    }
}
