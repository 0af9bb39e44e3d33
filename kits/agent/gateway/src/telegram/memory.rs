//! What the Telegram channel must remember over an end of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

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
    fn a_stranger_is_told_once_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(Record::open(folder.path()).unwrap());
        assert!(memory.tell_stranger(7, "2026-01-01"));
        assert!(!memory.tell_stranger(7, "2026-01-01"));
        assert!(memory.tell_stranger(8, "2026-01-01"));
        assert!(memory.tell_stranger(7, "2026-01-02"));
    }
}
