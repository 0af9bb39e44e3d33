//! Brings messages into a chat, whatever it takes: waits where Telegram asks for it, tries
//! again where it does not answer, leaves out marks that it does not accept.
//!
//! A call whose answer is lost is made again, which may show a message twice: Telegram has
//! no way of saying that it is the same one, and none is ever left out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aegis_core::fault::chain;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::{Step, steps};
use super::api::{ApiError, Bot, Meaning, Text, Upload};
use super::limiter::{Limiter, Purpose};
use super::memory::{Memory, Posted};
use super::queue::Answer;
use super::rich::Part;
use super::settings::Settings;
use crate::aegis::Aegis;
use crate::backoff::Backoff;
use crate::frame::{BLOBS, Image};

/// The waits between two tries of a call.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// How often to try with a token that Telegram refuses; it may be a fault of a proxy.
const REFUSED_TOKEN: Duration = Duration::from_secs(60);
/// How often a file of the workspace is asked for while aegisd does not answer.
const FILE_TRIES: u32 = 8;

/// What all chats share.
#[derive(Debug)]
pub struct Shared {
    pub aegis: Aegis,
    pub memory: Arc<Memory>,
    pub limiter: Mutex<Limiter>,
    /// Held from the sending of a new message until it is recorded: whenever the process
    /// is killed, at most one that Telegram has may be sent again. Edits need it not.
    pub sending: Sending,
    /// The bot, once there is a token.
    pub bot: watch::Sender<Option<Arc<Bot>>>,
    pub settings: watch::Sender<Arc<Settings>>,
    /// What is under way is completed, and nothing else begun.
    pub stopping: watch::Sender<bool>,
}

/// The right to send a new message.
pub type Sending = tokio::sync::Mutex<()>;
/// That right, while somebody has it.
type Alone<'a> = Option<tokio::sync::MutexGuard<'a, ()>>;

/// The process is about to end.
#[derive(Debug)]
pub struct Stopping;

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Sent(i64),
    /// It will not be: the chat is gone, or Telegram does not want it.
    Dropped,
}

impl Shared {
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    pub fn limiter(&self) -> std::sync::MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bot, when there is one.
    pub async fn bot(&self) -> Result<Arc<Bot>, Stopping> {
        let mut bots = self.bot.subscribe();
        let there = async {
            // The sender lives as long as this does.
            bots.wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|bot| bot.clone())
        };
        tokio::select! {
            biased;
            () = self.stopped() => Err(Stopping),
            bot = there => bot.ok_or(Stopping),
        }
    }

    /// Waits until the process is about to end.
    pub async fn stopped(&self) {
        self.stopping
            .subscribe()
            .wait_for(|stopping| *stopping)
            .await
            .ok();
    }

    pub async fn pause(&self, time: Duration) -> Result<(), Stopping> {
        tokio::select! {
            biased;
            () = self.stopped() => Err(Stopping),
            () = sleep(time) => Ok(()),
        }
    }

    /// Whether a chat may talk to the agent. A group that has become a supergroup may do
    /// so by its old id too.
    pub fn allows(&self, chat: i64) -> bool {
        let settings = self.settings();
        let old = || self.memory.was(chat);
        settings.allows(chat) || old().is_some_and(|old| settings.allows(old))
    }

    /// Waits until a message may be sent, which counts it.
    ///
    /// # Errors
    /// The process ends before.
    pub async fn admitted(&self, chat: i64) -> Result<(), Stopping> {
        loop {
            if *self.stopping.borrow() {
                return Err(Stopping);
            }
            let admitted = self.limiter().admit(chat, Purpose::Final, Instant::now());
            let Err(until) = admitted else { return Ok(()) };
            tokio::select! {
                biased;
                () = self.stopped() => return Err(Stopping),
                () = sleep_until(until) => {}
            }
        }
    }

    /// Sends an answer, from the step on that an earlier process stopped at, and records
    /// each step.
    ///
    /// # Errors
    /// The process ends before all of it is sent.
    pub async fn deliver(&self, chat: i64, answer: &Answer) -> Result<(), Stopping> {
        if !self.allows(chat) {
            tracing::warn!("an answer to chat {chat}, which is not in allowed_chats, is dropped");
            self.finish(chat, answer);
            return Ok(());
        }
        let mut posted = self
            .memory
            .posted(chat, &answer.key)
            .unwrap_or_else(|| Posted {
                reply_to: answer.key.clone(),
                ..Posted::default()
            });
        let steps = steps(&answer.text, &answer.images, !posted.messages.is_empty());
        let texts = steps
            .iter()
            .filter(|step| matches!(step, Step::Text(_)))
            .count();
        let mut unrecorded: Alone<'_> = None;
        for (index, step) in steps.iter().enumerate().skip(posted.steps) {
            // In a group people see which question is answered.
            let reply_to = answer.reply_to.filter(|_| index == 0);
            let (outcome, alone) = match step {
                Step::Text(part) => {
                    let existing = posted.messages.get(index).copied();
                    self.text(chat, part, existing, reply_to).await?
                }
                Step::Image { image, caption } => {
                    self.image(chat, image, caption.as_ref(), reply_to).await?
                }
            };
            // The last step is recorded with the whole.
            unrecorded = alone;
            if outcome == Outcome::Dropped {
                break;
            }
            posted.steps = index + 1;
            if posted.steps < steps.len() {
                if answer.seq.is_some() {
                    self.memory.post(chat, &posted);
                }
                unrecorded = None;
            }
        }
        if texts > 0 {
            let more = posted.messages.get(texts..).unwrap_or_default();
            self.remove(chat, more).await?;
        }
        self.finish(chat, answer);
        drop(unrecorded);
        Ok(())
    }

    fn finish(&self, chat: i64, answer: &Answer) {
        match answer.seq {
            Some(seq) => self.memory.finish(seq, chat, &answer.key),
            None => self.memory.forget(chat, &answer.key),
        }
    }

    /// Shows a text, in a message that is there or in a new one.
    async fn text(
        &self,
        chat: i64,
        part: &Part,
        mut existing: Option<i64>,
        reply_to: Option<i64>,
    ) -> Result<(Outcome, Alone<'_>), Stopping> {
        let mut marks = true;
        let mut backoff = Backoff::new(FIRST, LONGEST);
        loop {
            let bot = self.bot().await?;
            self.admitted(chat).await?;
            let to = self.memory.now_is(chat);
            let alone = match existing {
                Some(_) => None,
                None => Some(self.sending.lock().await),
            };
            let text = match marks {
                true => Text::Html(&part.html),
                false => Text::Plain(&part.plain),
            };
            let result = match existing {
                Some(message) => bot.edit_message(to, message, text).await.map(|()| message),
                None => bot.send_message(to, text, reply_to).await,
            };
            let error = match self.answered(chat, result) {
                Ok(message) => return Ok((Outcome::Sent(message), alone)),
                Err(error) => error,
            };
            drop(alone);
            match (error.meaning(), existing) {
                (Meaning::Unchanged, Some(message)) => return Ok((Outcome::Sent(message), None)),
                (Meaning::MessageGone, Some(_)) => existing = None,
                (Meaning::Marks | Meaning::Refused, _) if marks => marks = false,
                (Meaning::Refused, Some(_)) => existing = None,
                _ => {
                    if let Some(outcome) = self.survive(chat, &error, &mut backoff).await? {
                        return Ok((outcome, None));
                    }
                }
            }
        }
    }

    /// Shows an image: as a photo, else as a document.
    async fn image(
        &self,
        chat: i64,
        image: &Image,
        caption: Option<&Part>,
        reply_to: Option<i64>,
    ) -> Result<(Outcome, Alone<'_>), Stopping> {
        let Some(bytes) = self.read(image).await? else {
            let mut lost = caption.cloned().unwrap_or(Part {
                html: String::new(),
                plain: String::new(),
            });
            for text in [&mut lost.html, &mut lost.plain] {
                text.push_str("\n(An image of this answer could not be read.)");
            }
            return self.text(chat, &lost, None, reply_to).await;
        };
        let name = format!("image.{}", image.extension());
        let mut marks = true;
        // A GIF that is sent as a photo does not move.
        let mut as_photo = image.extension() != "gif";
        let mut backoff = Backoff::new(FIRST, LONGEST);
        loop {
            let bot = self.bot().await?;
            self.admitted(chat).await?;
            let to = self.memory.now_is(chat);
            let alone = self.sending.lock().await;
            let caption = caption.map(|caption| match marks {
                true => Text::Html(&caption.html),
                false => Text::Plain(&caption.plain),
            });
            let upload = Upload {
                as_photo,
                name: &name,
                media_type: image.media_type(),
                bytes: &bytes,
                caption,
                reply_to,
            };
            let result = bot.send_file(to, &upload).await;
            let error = match self.answered(chat, result) {
                Ok(message) => return Ok((Outcome::Sent(message), Some(alone))),
                Err(error) => error,
            };
            drop(alone);
            match error.meaning() {
                Meaning::Marks if marks => marks = false,
                Meaning::Refused if as_photo => as_photo = false,
                Meaning::Refused if marks && caption.is_some() => marks = false,
                _ => {
                    if let Some(outcome) = self.survive(chat, &error, &mut backoff).await? {
                        return Ok((outcome, None));
                    }
                }
            }
        }
    }

    /// The bytes of an image; `None` where they cannot be had.
    async fn read(&self, image: &Image) -> Result<Option<Vec<u8>>, Stopping> {
        let path = format!("{BLOBS}/{}", image.blob);
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for _ in 0..FILE_TRIES {
            match self.aegis.read_file(&path).await {
                Ok(bytes) => return Ok(Some(bytes)),
                // Not there, or a link that the guest has planted.
                Err(error) if !error.is_passing() || matches!(error.status(), Some(404 | 409)) => {
                    tracing::warn!("cannot read the image {}: {}", image.blob, chain(&error));
                    return Ok(None);
                }
                Err(error) => {
                    tracing::warn!("{}, trying again", chain(&error));
                    self.pause(backoff.wait()).await?;
                }
            }
        }
        Ok(None)
    }

    /// Removes messages that show what is no longer said. One that stays is no harm.
    async fn remove(&self, chat: i64, messages: &[i64]) -> Result<(), Stopping> {
        for message in messages {
            let bot = self.bot().await?;
            if let Err(error) = bot.delete_message(chat, *message).await {
                tracing::warn!("{}, ignoring", chain(&error));
            }
        }
        Ok(())
    }

    /// Tells the limiter what Telegram said to a message.
    pub fn answered<T>(&self, chat: i64, result: Result<T, ApiError>) -> Result<T, ApiError> {
        self.limiter().answered(chat, Instant::now());
        if let Err(error) = &result {
            self.refused(chat, error);
        }
        result
    }

    /// Tells the limiter what Telegram said to anything else.
    pub fn refused(&self, chat: i64, error: &ApiError) {
        if let ApiError::TooMany { after, .. } = error {
            let now = Instant::now();
            self.limiter().refuse(chat, now + *after, now);
        }
    }

    /// Waits out what passes; an outcome for what does not.
    async fn survive(
        &self,
        chat: i64,
        error: &ApiError,
        backoff: &mut Backoff,
    ) -> Result<Option<Outcome>, Stopping> {
        let text = chain(error);
        match error.meaning() {
            // The limiter knows.
            Meaning::Wait(_) => tracing::info!("chat {chat}: {text}"),
            Meaning::Passing => {
                tracing::warn!("chat {chat}: {text}, trying again");
                self.pause(backoff.wait()).await?;
            }
            Meaning::Moved(new) => self.memory.move_group(chat, new),
            Meaning::Token | Meaning::Conflict => {
                tracing::error!("{text}, waiting");
                let mut bots = self.bot.subscribe();
                bots.mark_unchanged();
                tokio::select! {
                    paused = self.pause(REFUSED_TOKEN) => paused?,
                    _ = bots.changed() => {}
                }
            }
            Meaning::ChatGone => {
                tracing::warn!("chat {chat} cannot be written to, its message is dropped: {text}");
                return Ok(Some(Outcome::Dropped));
            }
            _ => {
                tracing::error!("chat {chat}: a message is dropped: {text}");
                return Ok(Some(Outcome::Dropped));
            }
        }
        Ok(None)
    }
}
