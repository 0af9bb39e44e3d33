//! The updates of one bot after the other: who the bot is, then one question for updates
//! after the other, each of which confirms what is dealt with.

use std::sync::Arc;
use std::time::Duration;

use aegis_core::fault::chain;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::sleep;

use super::NAME;
use super::api::{ApiError, Bot, Meaning};
use super::batch::{Batch, Group};
use super::delivery::Shared;
use super::incoming::{Exec, Incoming};
use super::outgoing::Outgoing;
use super::settings::Settings;
use super::shell::Shells;
use super::types::User;
use crate::backoff::Backoff;
use crate::status::Status;

/// The waits between two tries.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// With a token that Telegram refuses, or while another program receives the updates.
const REFUSED: Duration = Duration::from_secs(60);
const CONFLICT: Duration = Duration::from_secs(10);
/// How long the further photos of an album may take.
const ALBUM: Duration = Duration::from_millis(700);

/// What receives messages.
#[derive(Debug)]
pub struct Receiver {
    pub shared: Arc<Shared>,
    pub outgoing: Arc<Outgoing>,
    pub shells: Arc<Shells>,
    pub status: Status,
    pub instance: String,
}

impl Receiver {
    /// Receives messages by the settings of the time, until the task is dropped.
    pub async fn serve(self) {
        let mut settings = self.shared.settings.subscribe();
        loop {
            let now = Arc::clone(&settings.borrow_and_update());
            tokio::select! {
                biased;
                () = changed(&mut settings, &now) => {}
                () = self.receive(&now) => {}
            }
            self.shared.bot.send_replace(None);
        }
    }

    /// Receives the messages of one bot; returns when it makes no sense to go on.
    async fn receive(&self, settings: &Settings) {
        let token = match &settings.token {
            Ok(token) => token,
            Err(missing) => {
                self.status.set(NAME, format!("waiting: {missing}"));
                return std::future::pending().await;
            }
        };
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let bot = loop {
            match Bot::new(&settings.api, token) {
                Ok(bot) => break Arc::new(bot),
                Err(error) => {
                    self.status.set(NAME, format!("waiting: {}", chain(&error)));
                    sleep(backoff.wait()).await;
                }
            }
        };
        let me = self.introduce(&bot).await;
        self.shared.bot.send_replace(Some(Arc::clone(&bot)));
        let name = me.username.clone().unwrap_or_default();
        let incoming = Incoming {
            shared: Arc::clone(&self.shared),
            outgoing: Arc::clone(&self.outgoing),
            shells: Arc::clone(&self.shells),
            bot,
            me,
            instance: self.instance.clone(),
        };
        // Where frames begin that are for this bot must be known before the first message.
        self.shared.memory.known().await;
        tokio::join!(self.poll(&incoming, &name), offer(&incoming));
    }

    /// Asks who the bot is, until there is an answer.
    async fn introduce(&self, bot: &Bot) -> User {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        loop {
            match bot.get_me().await {
                Ok(me) => return me,
                Err(error) => self.wait_out(&error, &mut backoff).await,
            }
        }
    }

    async fn poll(&self, incoming: &Incoming, name: &str) {
        let memory = &self.shared.memory;
        let mut batch = Batch::new(memory.offset(incoming.me.id));
        let mut backoff = Backoff::new(FIRST, LONGEST);
        loop {
            let asked = incoming
                .bot
                .get_updates(batch.offset(), !batch.is_waiting())
                .await;
            let updates = match asked {
                Ok(updates) => updates,
                Err(error) => {
                    self.wait_out(&error, &mut backoff).await;
                    continue;
                }
            };
            backoff.reset();
            self.status.set(NAME, format!("connected as @{name}"));
            let groups = batch.plan(&updates);
            let execs = deal_with(incoming, &groups).await;
            let dealt_with: Vec<_> = groups
                .iter()
                .flat_map(|group| group.updates.clone())
                .collect();
            batch.finish(&dealt_with, &updates);
            if batch.offset() != memory.offset(incoming.me.id) {
                memory.set_offset(incoming.me.id, batch.offset());
            }
            for exec in execs {
                let (shared, outgoing) = (Arc::clone(&self.shared), Arc::clone(&self.outgoing));
                self.shells.run(shared, outgoing, exec);
            }
            if batch.is_waiting() {
                sleep(ALBUM).await;
            }
        }
    }

    async fn wait_out(&self, error: &ApiError, backoff: &mut Backoff) {
        let text = chain(error);
        let (what, wait) = match error.meaning() {
            Meaning::Token => ("Telegram refuses the bot token", REFUSED),
            Meaning::Conflict => (
                "another program receives the messages of this bot, or it has a webhook",
                CONFLICT,
            ),
            Meaning::Wait(time) => ("waiting", time),
            _ => ("waiting for Telegram", backoff.wait()),
        };
        self.status.set(NAME, format!("{what}: {text}"));
        sleep(wait).await;
    }
}

/// Deals with groups: those of a chat in order, chats beside each other.
async fn deal_with(incoming: &Incoming, groups: &[Group]) -> Vec<Exec> {
    let mut chats: Vec<(i64, Vec<&Group>)> = Vec::new();
    for group in groups {
        let id = group.messages[0].chat.id;
        match chats.iter_mut().find(|(chat, _)| *chat == id) {
            Some((_, groups)) => groups.push(group),
            None => chats.push((id, vec![group])),
        }
    }
    let chats = chats.into_iter().map(|(_, groups)| async move {
        let mut execs = Vec::new();
        for group in groups {
            execs.extend(incoming.handle(group).await);
        }
        execs
    });
    join_all(chats).await.concat()
}

/// Tells Telegram the commands that there are, also when that changes. Only a convenience.
async fn offer(incoming: &Incoming) {
    let mut settings = incoming.shared.settings.subscribe();
    loop {
        let shell = settings.borrow_and_update().shell;
        let mut backoff = Backoff::new(FIRST, LONGEST * 20);
        while let Err(error) = incoming.bot.set_my_commands(&incoming.commands()).await {
            tracing::info!("{}, trying again", chain(&error));
            sleep(backoff.wait()).await;
        }
        while settings.borrow_and_update().shell == shell {
            // The sender lives as long as the channel does.
            settings.changed().await.ok();
        }
    }
}

/// Waits until the settings are those of another bot or another server.
async fn changed(settings: &mut watch::Receiver<Arc<Settings>>, now: &Settings) {
    let other = |next: &Arc<Settings>| next.token != now.token || next.api != now.api;
    // The sender lives as long as the channel does.
    settings.wait_for(other).await.ok();
}
