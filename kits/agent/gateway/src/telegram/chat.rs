//! The one task that writes into a chat, so that its messages are in order and its limits
//! are kept in one place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aegis_core::fault::chain;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::api::{Meaning, Text};
use super::delivery::{Shared, Stopping};
use super::limiter::Purpose;
use super::memory::Posted;
use super::queue::{Next, Queue};
use super::run::Change;

/// A chat that is quiet for this long has no task.
const QUIET: Duration = Duration::from_secs(300);

/// A chat's queue, and a bell for its task.
#[derive(Debug)]
pub struct Chat {
    pub id: i64,
    queue: Mutex<Queue>,
    bell: Notify,
}

impl Chat {
    pub fn new(id: i64) -> Arc<Self> {
        Arc::new(Self {
            id,
            queue: Mutex::default(),
            bell: Notify::new(),
        })
    }

    /// Changes the queue and lets the task look at it.
    pub fn put(&self, change: impl FnOnce(&mut Queue)) {
        change(&mut self.queue());
        self.bell.notify_one();
    }

    pub fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the queue says, until the chat is quiet or the process ends.
    pub async fn serve(&self, shared: &Shared) {
        loop {
            if self.step(shared).await.is_err() || *shared.stopping.borrow() {
                return;
            }
            if self.queue().is_idle(Instant::now()) && !self.rung(shared, QUIET).await {
                return;
            }
        }
    }

    /// Whether there is something new within a time.
    async fn rung(&self, shared: &Shared, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = shared.stopped() => true,
            () = self.bell.notified() => true,
            () = tokio::time::sleep(time) => false,
        }
    }

    async fn step(&self, shared: &Shared) -> Result<(), Stopping> {
        let next = self.queue().next(Instant::now());
        match next {
            Next::Answer(answer) => shared.deliver(self.id, &answer).await,
            Next::Change { key, change } => self.show(shared, &key, change).await,
            Next::Typing => self.typing(shared).await,
            Next::Wait(None) if self.queue().is_idle(Instant::now()) => Ok(()),
            Next::Wait(until) => {
                self.wait(shared, until.unwrap_or_else(|| Instant::now() + QUIET))
                    .await;
                Ok(())
            }
        }
    }

    async fn wait(&self, shared: &Shared, until: Instant) {
        tokio::select! {
            biased;
            () = shared.stopped() => {}
            () = self.bell.notified() => {}
            () = sleep_until(until) => {}
        }
    }

    /// Shows a change of an answer that is being written. What fails is shown with the next
    /// one.
    async fn show(&self, shared: &Shared, key: &str, change: Change) -> Result<(), Stopping> {
        let settings = shared.settings();
        if !shared.allows(self.id) {
            self.queue().freeze(key);
            return Ok(());
        }
        let bot = shared.bot().await?;
        // Until it is recorded.
        let alone = match &change {
            Change::Send(_) => Some(shared.sending.lock().await),
            Change::Edit { .. } => None,
        };
        let admitted = shared
            .limiter()
            .admit(self.id, Purpose::Progress, Instant::now());
        if let Err(until) = admitted {
            self.queue().changed(key, None, until);
            return Ok(());
        }
        let result = match &change {
            Change::Send(text) => {
                bot.send_message(self.id, Text::Plain(text), reply_to(self.id, key))
                    .await
            }
            Change::Edit { message, text } => {
                let edited = bot.edit_message(self.id, *message, Text::Plain(text)).await;
                edited.map(|()| *message)
            }
        };
        let result = shared.answered(self.id, result);
        let next = Instant::now() + settings.edit_interval;
        let message = match (result, &change) {
            (Ok(message), _) => message,
            (Err(error), Change::Edit { message, .. }) if error.meaning() == Meaning::Unchanged => {
                *message
            }
            (Err(error), change) => {
                tracing::info!("chat {}: {}, ignoring", self.id, chain(&error));
                let mut queue = self.queue();
                let sent = matches!(change, Change::Send(_));
                match error.meaning() {
                    Meaning::Wait(_) | Meaning::Token | Meaning::Conflict => {}
                    // It may be in the chat all the same; another one would be a double.
                    Meaning::Passing if !sent => {}
                    _ => queue.freeze(key),
                }
                queue.changed(key, None, next);
                return Ok(());
            }
        };
        let is_new = !matches!(&change, Change::Edit { message: old, .. } if *old == message);
        if is_new {
            let mut posted = shared
                .memory
                .posted(self.id, key)
                .unwrap_or_else(|| Posted {
                    reply_to: key.to_owned(),
                    ..Posted::default()
                });
            posted.messages.push(message);
            shared.memory.post(self.id, &posted);
        }
        drop(alone);
        self.queue().changed(key, Some((change, message)), next);
        Ok(())
    }

    async fn typing(&self, shared: &Shared) -> Result<(), Stopping> {
        let now = Instant::now();
        if let Some(until) = shared.limiter().blocked(self.id, now) {
            self.queue().typed(now, Some(until));
            return Ok(());
        }
        if shared.allows(self.id) {
            let bot = shared.bot().await?;
            if let Err(error) = bot.send_typing(self.id).await {
                tracing::debug!("chat {}: {}, ignoring", self.id, chain(&error));
                shared.refused(self.id, &error);
            }
        }
        self.queue().typed(Instant::now(), None);
        Ok(())
    }
}

/// The message of this chat that a key names, to be shown as answered. Only groups need
/// that.
pub fn reply_to(chat: i64, key: &str) -> Option<i64> {
    if chat > 0 {
        return None;
    }
    let message = key.strip_prefix(&format!("tg-{chat}-"))?;
    message.parse().ok()
}

/// The `msg_id` of a message: the same whenever it is read.
pub fn msg_id(chat: i64, message: i64) -> String {
    format!("tg-{chat}-{message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_groups_are_shown_at_their_question() {
        assert_eq!(reply_to(-100, &msg_id(-100, 7)), Some(7));
        assert_eq!(reply_to(-100, &msg_id(-200, 7)), None);
        assert_eq!(reply_to(42, &msg_id(42, 7)), None);
        assert_eq!(reply_to(-100, "-"), None);
    }
}
