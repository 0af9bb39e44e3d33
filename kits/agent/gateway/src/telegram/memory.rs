//! What the Telegram channel must remember over an end of the process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_core::fault::chain;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::NAME;
use super::progress::Progress;
use crate::record::Record;

/// Most chats that nobody knows and that were told so today.
const MAX_STRANGERS: usize = 1000;
/// Most streamed answers of a chat that are remembered.
const MAX_RUNS: usize = 8;
/// For how long Telegram counts messages of a group.
const MINUTE: Duration = Duration::from_secs(60);

/// The section of the record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Section {
    /// When the instance was made whose frames are counted.
    instance: Option<String>,
    cursor: u64,
    done: BTreeSet<u64>,
    /// The bot whose updates are counted.
    bot: Option<i64>,
    offset: i64,
    chats: BTreeMap<i64, Chat>,
    /// Chats that may not talk to the agent, and the day they were told so.
    strangers: BTreeMap<i64, String>,
    last_chat: Option<i64>,
    /// When messages were sent to groups, in milliseconds since 1970, of the last minute.
    groups: BTreeMap<i64, VecDeque<u64>>,
    /// The supergroups that groups have become.
    moved: BTreeMap<i64, i64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Chat {
    runs: Vec<Posted>,
    shell: bool,
}

/// What of an answer is in the chat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Posted {
    /// `msg_id` of the message that is answered.
    pub reply_to: String,
    /// The messages of the streamed text, which the final one takes the place of.
    pub messages: Vec<i64>,
    /// How many steps of the final answer are done.
    pub steps: usize,
}

/// The section and its place on the disk; the one owner of both.
#[derive(Debug)]
pub struct Memory {
    record: Record,
    inner: Mutex<Inner>,
    known: watch::Sender<bool>,
}

#[derive(Debug)]
struct Inner {
    section: Section,
    progress: Progress,
}

impl Memory {
    pub fn open(record: Record) -> Arc<Self> {
        let section: Section = record.section(NAME);
        let progress = Progress::new(section.cursor, section.done.iter().copied());
        Arc::new(Self {
            record,
            inner: Mutex::new(Inner { section, progress }),
            known: watch::Sender::new(false),
        })
    }

    /// The cursor, where it is one of this instance's frames.
    pub fn cursor(&self, instance: &str) -> Option<u64> {
        let cursor = self.look(|inner| {
            let same = inner.section.instance.as_deref() == Some(instance);
            same.then(|| inner.progress.cursor())
        });
        if cursor.is_some() {
            self.known.send_replace(true);
        }
        cursor
    }

    /// Another instance, whose frames up to `seq` are nothing to us.
    pub fn begin_at(&self, instance: &str, seq: u64) {
        self.change(|inner| {
            inner.section.instance = Some(instance.to_owned());
            inner.progress = Progress::new(seq, []);
            for chat in inner.section.chats.values_mut() {
                chat.runs.clear();
            }
        });
        self.known.send_replace(true);
    }

    /// Waits until it is known which frames are new.
    pub async fn known(&self) {
        // The sender lives as long as this does.
        self.known.subscribe().wait_for(|known| *known).await.ok();
    }

    /// A stored frame has come. `false` if it is done or being done already.
    pub fn arrived(&self, seq: u64) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.progress.arrived(seq)
    }

    /// A frame that leaves no trace is done with. It may come again after a restart.
    pub fn pass(&self, seq: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.progress.finish(seq);
    }

    /// An answer is done with: it is on record that it is, and its run is over.
    pub fn finish(&self, seq: u64, chat: i64, reply_to: &str) {
        self.change(|inner| {
            inner.progress.finish(seq);
            inner.section.sent(chat, now());
            if let Some(chat) = inner.section.chats.get_mut(&chat) {
                chat.runs.retain(|run| run.reply_to != reply_to);
            }
        });
    }

    /// A message of the gateway's own is sent; nothing of it is to be remembered.
    pub fn forget(&self, chat: i64, key: &str) {
        if self.posted(chat, key).is_some() {
            self.change(|inner| {
                if let Some(chat) = inner.section.chats.get_mut(&chat) {
                    chat.runs.retain(|run| run.reply_to != key);
                }
            });
        }
    }

    /// What of an answer is in the chat.
    pub fn posted(&self, chat: i64, reply_to: &str) -> Option<Posted> {
        self.look(|inner| {
            let runs = &inner.section.chats.get(&chat)?.runs;
            runs.iter().find(|run| run.reply_to == reply_to).cloned()
        })
    }

    /// Records what of an answer is in the chat.
    pub fn post(&self, chat: i64, posted: &Posted) {
        self.change(|inner| {
            inner.section.sent(chat, now());
            let runs = &mut inner.section.chats.entry(chat).or_default().runs;
            match runs.iter_mut().find(|run| run.reply_to == posted.reply_to) {
                Some(run) => *run = posted.clone(),
                None => runs.push(posted.clone()),
            }
            let more = runs.len().saturating_sub(MAX_RUNS);
            runs.drain(..more);
        });
    }

    /// What to ask this bot's updates from.
    pub fn offset(&self, bot: i64) -> i64 {
        self.look(|inner| match inner.section.bot == Some(bot) {
            true => inner.section.offset,
            false => 0,
        })
    }

    /// All updates of the bot before this one are dealt with.
    pub fn set_offset(&self, bot: i64, offset: i64) {
        self.change(|inner| {
            inner.section.bot = Some(bot);
            inner.section.offset = offset;
        });
    }

    /// Whether a chat is in shell mode.
    pub fn shell(&self, chat: i64) -> bool {
        self.look(|inner| {
            inner
                .section
                .chats
                .get(&chat)
                .is_some_and(|chat| chat.shell)
        })
    }

    pub fn set_shell(&self, chat: i64, shell: bool) {
        if self.shell(chat) != shell {
            self.change(|inner| inner.section.chats.entry(chat).or_default().shell = shell);
        }
    }

    /// The groups that were sent something within the last minute, or are shown an answer
    /// that is not whole, and how long ago each message of that minute was sent.
    pub fn groups(&self) -> Vec<(i64, Vec<Duration>)> {
        let now = now();
        self.look(|inner| {
            let section = &inner.section;
            let shown = section.chats.iter();
            let shown = shown.filter(|(id, chat)| **id < 0 && !chat.runs.is_empty());
            let mut groups: BTreeMap<i64, Vec<Duration>> =
                shown.map(|(id, _)| (*id, Vec::new())).collect();
            for (group, sent) in &section.groups {
                let ago = sent.iter().map(|at| now.saturating_sub(*at));
                let ago = ago.map(Duration::from_millis);
                let ago: Vec<Duration> = ago.filter(|ago| *ago < MINUTE).collect();
                if !ago.is_empty() {
                    groups.entry(*group).or_default().extend(ago);
                }
            }
            groups.into_iter().collect()
        })
    }

    /// A group has become a supergroup of another id: what is known of it moves along.
    pub fn move_group(&self, old: i64, new: i64) {
        self.change(|inner| {
            let section = &mut inner.section;
            section.moved.insert(old, new);
            if let Some(chat) = section.chats.remove(&old) {
                let shell = chat.shell;
                section.chats.entry(new).or_default().shell |= shell;
            }
            if section.last_chat == Some(old) {
                section.last_chat = Some(new);
            }
        });
    }

    /// The chat that a chat has become, which for nearly all is itself.
    pub fn now_is(&self, chat: i64) -> i64 {
        self.look(|inner| *inner.section.moved.get(&chat).unwrap_or(&chat))
    }

    /// The chat that a chat was before, where it was another one.
    pub fn was(&self, chat: i64) -> Option<i64> {
        self.look(|inner| {
            let mut moved = inner.section.moved.iter();
            moved.find(|(_, new)| **new == chat).map(|(old, _)| *old)
        })
    }

    /// The chat that wrote last.
    pub fn last_chat(&self) -> Option<i64> {
        self.look(|inner| inner.section.last_chat)
    }

    pub fn set_last_chat(&self, chat: i64) {
        if self.last_chat() != Some(chat) {
            self.change(|inner| inner.section.last_chat = Some(chat));
        }
    }

    /// Whether a chat that may not talk to the agent is to be told so: once a day, and
    /// not without end.
    pub fn tell_stranger(&self, chat: i64, today: &str) -> bool {
        let told = self.look(|inner| {
            let strangers = &inner.section.strangers;
            let of_today = strangers.values().filter(|day| *day == today).count();
            strangers.get(&chat).is_some_and(|day| day == today) || of_today >= MAX_STRANGERS
        });
        if !told {
            self.change(|inner| {
                inner.section.strangers.retain(|_, day| day == today);
                inner.section.strangers.insert(chat, today.to_owned());
            });
        }
        !told
    }

    fn look<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut inner);
        inner.section.cursor = inner.progress.cursor();
        inner.section.done = inner.progress.done().collect();
        inner
            .section
            .chats
            .retain(|_, chat| chat.shell || !chat.runs.is_empty());
        if let Err(error) = self.record.keep(NAME, &inner.section) {
            // It counts while the process lives; what a crash then repeats is the lesser evil.
            tracing::error!("{}, ignoring", chain(&error));
        }
    }
}

impl Section {
    /// A message was sent to a chat. Only those to groups are counted by the minute.
    fn sent(&mut self, chat: i64, now: u64) {
        if chat >= 0 {
            return;
        }
        self.groups.entry(chat).or_default().push_back(now);
        let minute = u64::try_from(MINUTE.as_millis()).unwrap_or(u64::MAX);
        for sent in self.groups.values_mut() {
            sent.retain(|at| at + minute > now && *at <= now);
        }
        self.groups.retain(|_, sent| !sent.is_empty());
    }
}

/// Milliseconds since 1970: a process that begins knows no other clock of the one before.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_done_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Memory::open(Record::open(folder.path()).unwrap());
        let memory = open();
        assert_eq!(memory.cursor("monday"), None);
        memory.begin_at("monday", 4);
        assert!(memory.arrived(5) && memory.arrived(6));
        let posted = Posted {
            reply_to: "tg-1-2".into(),
            messages: vec![70, 71],
            steps: 1,
        };
        memory.post(1, &posted);
        memory.finish(6, 1, "tg-1-3");
        memory.set_offset(9, 100);
        memory.set_shell(1, true);

        let memory = open();
        assert_eq!(memory.cursor("monday"), Some(4));
        memory.known().await;
        assert!(memory.arrived(5) && !memory.arrived(6));
        assert_eq!(memory.posted(1, "tg-1-2"), Some(posted));
        assert_eq!((memory.offset(9), memory.offset(8)), (100, 0));
        memory.finish(5, 1, "tg-1-2");
        assert_eq!(
            (memory.cursor("monday"), memory.posted(1, "tg-1-2")),
            (Some(6), None)
        );
        assert!(memory.shell(1));
        // An instance that was made anew counts anew.
        assert_eq!(open().cursor("tuesday"), None);
    }

    #[test]
    fn what_was_sent_to_groups_and_what_became_of_them_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Memory::open(Record::open(folder.path()).unwrap());
        let memory = open();
        memory.post(-1, &Posted::default());
        memory.finish(1, -1, "");
        memory.finish(2, 1, "");
        memory.post(-2, &Posted::default());
        memory.set_shell(-1, true);
        memory.move_group(-1, -100);
        let memory = open();
        let groups = memory.groups();
        let ids: Vec<i64> = groups.iter().map(|(group, _)| *group).collect();
        assert_eq!(ids, [-2, -1], "{groups:?}");
        assert_eq!(groups[1].1.len(), 2, "{groups:?}");
        assert_eq!((memory.now_is(-1), memory.now_is(5)), (-100, 5));
        assert_eq!((memory.was(-100), memory.was(5)), (Some(-1), None));
        assert!(memory.shell(-100));
    }

    #[test]
    fn a_stranger_is_told_once_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(Record::open(folder.path()).unwrap());
        assert!(memory.tell_stranger(7, "2026-01-01"));
        assert!(!memory.tell_stranger(7, "2026-01-01"));
        assert!(memory.tell_stranger(8, "2026-01-01"));
        assert!(memory.tell_stranger(7, "2026-01-02"));
    }
}
