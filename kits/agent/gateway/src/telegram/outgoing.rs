//! From the instance to Telegram: each frame to the task of its chat.
//!
//! | frame | what happens |
//! |---|---|
//! | `assistant.done` | is sent; done with when it is, or when it cannot be |
//! | `assistant.delta` | is shown while it is written |
//! | `status.presence`, `reasoning.delta` | "typing" |
//! | others | nothing |

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::chat::{Chat, reply_to};
use super::delivery::Shared;
use super::queue::{Answer, NOTICE, UNASKED};
use crate::frame::Frame;

/// Room for answers that wait to be sent, in KiB. When it is used up the stream of frames is
/// read no further; aegisd keeps them.
const ROOM: u32 = 8 << 10;

/// The tasks of the chats.
#[derive(Debug)]
pub struct Outgoing {
    shared: Arc<Shared>,
    chats: Mutex<HashMap<i64, Arc<Chat>>>,
    tasks: Mutex<JoinSet<()>>,
    room: Arc<Semaphore>,
}

impl Outgoing {
    pub fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            chats: Mutex::default(),
            tasks: Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
        })
    }

    /// Takes a frame; waits where too many answers wait already.
    pub async fn frame(self: &Arc<Self>, frame: Frame) {
        let key = frame.reply_to_msg_id.as_deref().unwrap_or(UNASKED);
        let now = Instant::now();
        match frame.kind.as_str() {
            "assistant.done" => self.answer(&frame, key).await,
            "assistant.delta" => {
                if let Some(chat) = self.chat_of(&frame) {
                    self.stream(chat, key, frame.text(), now);
                }
            }
            "status.presence" | "reasoning.delta" => {
                if let Some(chat) = self.chat_of(&frame) {
                    self.alive(chat, key);
                }
            }
            _ => {}
        }
        if frame.kind != "assistant.done"
            && let Some(seq) = frame.seq
            && self.shared.memory.arrived(seq)
        {
            self.shared.memory.pass(seq);
        }
    }

    async fn answer(self: &Arc<Self>, frame: &Frame, key: &str) {
        let memory = &self.shared.memory;
        let chat = self.chat_of(frame);
        if let Some(seq) = frame.seq
            && !memory.arrived(seq)
        {
            // Done already: whoever waits for it, waits no longer.
            if let Some(chat) = chat {
                self.put(chat, |queue| queue.end(key));
            }
            return;
        }
        let Some(chat) = chat else {
            tracing::warn!(
                "an answer is for '{}', which is no chat, and allowed_chats names none: dropped",
                frame.session.id
            );
            if let Some(seq) = frame.seq {
                memory.pass(seq);
            }
            return;
        };
        let size = u32::try_from(frame.text().len() >> 10)
            .unwrap_or(ROOM)
            .saturating_add(1);
        // The semaphore is never closed.
        let room = Arc::clone(&self.room)
            .acquire_many_owned(size.min(ROOM))
            .await
            .ok();
        let answer = Answer {
            seq: frame.seq,
            key: key.to_owned(),
            text: frame.text().to_owned(),
            images: frame.images(),
            reply_to: reply_to(chat, key),
            room,
        };
        self.put(chat, |queue| queue.push(answer));
    }

    /// The gateway itself says something.
    pub fn notice(self: &Arc<Self>, chat: i64, text: &str, reply_to: Option<i64>) {
        self.say(chat, NOTICE, text, reply_to);
    }

    /// The gateway ends a run of its own by saying something.
    pub fn say(self: &Arc<Self>, chat: i64, key: &str, text: &str, reply_to: Option<i64>) {
        let answer = Answer {
            seq: None,
            key: key.to_owned(),
            text: text.to_owned(),
            images: Vec::new(),
            reply_to,
            room: None,
        };
        self.put(chat, |queue| queue.push(answer));
    }

    /// Something works on the message of this key.
    pub fn alive(self: &Arc<Self>, chat: i64, key: &str) {
        let messages = self.messages(chat, key);
        self.put(chat, |queue| queue.alive(key, &messages, Instant::now()));
    }

    /// A piece of what is being written.
    pub fn stream(self: &Arc<Self>, chat: i64, key: &str, text: &str, now: Instant) {
        let messages = self.messages(chat, key);
        self.put(chat, |queue| queue.delta(key, &messages, text, now));
    }

    /// Nothing works on the message of this key any more.
    pub fn end(self: &Arc<Self>, chat: i64, key: &str) {
        self.put(chat, |queue| queue.end(key));
    }

    /// Whether the agent works on a message of this chat.
    pub fn is_busy(&self, chat: i64) -> bool {
        let chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
        chats
            .get(&chat)
            .is_some_and(|chat| chat.queue().is_busy(Instant::now()))
    }

    /// Pieces of the answers may be missing.
    pub fn lost(&self) {
        let chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
        for chat in chats.values() {
            chat.queue().lost();
        }
    }

    /// Waits for the tasks, which end by [`Shared::stopping`].
    pub async fn ended(&self) {
        let mut tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        while tasks.join_next().await.is_some() {}
    }

    /// The chat of a frame: that of its session, and else that of the owner.
    fn chat_of(&self, frame: &Frame) -> Option<i64> {
        let owner = || {
            let settings = self.shared.settings();
            settings.owner().or_else(|| self.shared.memory.last_chat())
        };
        let chat = frame.session.id.parse().ok().or_else(owner);
        chat.map(|chat| self.shared.memory.now_is(chat))
    }

    /// The messages of an answer that another process has begun to show.
    fn messages(&self, chat: i64, key: &str) -> Vec<i64> {
        let known = {
            let chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
            chats.get(&chat).is_some_and(|chat| chat.queue().knows(key))
        };
        match known {
            true => Vec::new(),
            false => {
                let posted = self.shared.memory.posted(chat, key);
                posted.map(|posted| posted.messages).unwrap_or_default()
            }
        }
    }

    /// Changes the queue of a chat, which gets a task if it has none.
    fn put(self: &Arc<Self>, id: i64, change: impl FnOnce(&mut super::queue::Queue)) {
        let mut chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chat) = chats.get(&id) {
            chat.put(change);
            return;
        }
        let chat = Chat::new(id);
        chat.put(change);
        chats.insert(id, Arc::clone(&chat));
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended are let go.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(Arc::clone(self).serve(chat));
    }

    async fn serve(self: Arc<Self>, chat: Arc<Chat>) {
        loop {
            chat.serve(&self.shared).await;
            let mut chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
            // What was put in meanwhile is not left behind: it is put in under this lock.
            let idle = chat.queue().is_idle(Instant::now());
            if idle || *self.shared.stopping.borrow() {
                chats.remove(&chat.id);
                return;
            }
        }
    }
}
