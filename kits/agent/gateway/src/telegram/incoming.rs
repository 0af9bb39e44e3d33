//! From Telegram to the instance: what becomes of a message.
//!
//! ```text
//!  chat allowed? ─no─► told its id, once a day
//!   └ yes ─ for the bot? ─no─► nothing
//!            └ yes ─ command? ──► answered here
//!                     └ shell mode? ──► exec
//!                        └ attachments kept, frame handed to aegisd (202)
//! ```

use std::sync::Arc;

use aegis_core::fault::chain;
use serde_json::{Value, json};

use super::NAME;
use super::api::Bot;
use super::batch::Group;
use super::chat::msg_id;
use super::command::{self, Command, addresses, words_for};
use super::delivery::Shared;
use super::files::{self, wait_out};
use super::outgoing::Outgoing;
use super::shell::Shells;
use super::types::{Message, User};
use crate::frame::to_guest;

/// Deals with messages; `me` is the bot.
#[derive(Debug)]
pub struct Incoming {
    pub shared: Arc<Shared>,
    pub outgoing: Arc<Outgoing>,
    pub shells: Arc<Shells>,
    pub bot: Arc<Bot>,
    pub me: User,
    pub instance: String,
}

/// What is done once the update is confirmed, so that it is never done twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    pub chat: i64,
    pub message: i64,
    pub command: String,
}

impl Incoming {
    /// Deals with messages that belong together. Returns when aegisd has them, or when they
    /// are deliberately skipped.
    pub async fn handle(&self, group: &Group) -> Option<Exec> {
        let first = &group.messages[0];
        let chat = first.chat.id;
        let settings = self.shared.settings();
        if !self.shared.allows(chat) {
            self.stranger(first);
            return None;
        }
        if let Some(new) = first.migrate_to_chat_id {
            tracing::warn!("the group {chat} is now {new}: put that into allowed_chats too");
            self.shared.memory.move_group(chat, new);
            return None;
        }
        if !group
            .messages
            .iter()
            .any(|message| addresses(message, &self.me))
        {
            return None;
        }
        self.shared.memory.set_last_chat(chat);
        let spoken = group
            .messages
            .iter()
            .find(|message| !message.words().is_empty());
        let words = spoken.map_or("", |message| words_for(message, &self.me));
        let name = self.me.username.as_deref().unwrap_or_default();
        if first.text.is_some()
            && let Some(command) = Command::read(words, name, settings.shell)
        {
            return self.command(first, command).await;
        }
        if settings.shell && first.text.is_some() && self.shared.memory.shell(chat) {
            return Some(Exec {
                chat,
                message: first.message_id,
                command: words.to_owned(),
            });
        }
        if let Some(kind) = first.unsupported() {
            let text = format!("I cannot read {kind}. Please send text, photos or files.");
            self.notice(first, &text);
            return None;
        }
        self.pass_on(group, words).await;
        None
    }

    async fn pass_on(&self, group: &Group, words: &str) {
        let first = &group.messages[0];
        let attached = match files::take(&self.bot, &self.shared.aegis, &group.messages).await {
            Ok(attached) => attached,
            Err(refusal) => {
                self.notice(first, &refusal.to_string());
                return;
            }
        };
        if words.trim().is_empty() && attached.images.is_empty() && attached.files.is_empty() {
            // Somebody joined, a title was changed and the like.
            return;
        }
        let mut payload = json!({"text": words});
        if !attached.images.is_empty() {
            payload["images"] = attached.images.into();
        }
        if !attached.files.is_empty() {
            payload["files"] = attached.files.into();
        }
        if let Some(user) = &first.from {
            payload["user"] = user_of(user);
        }
        if self.hand_over(first, "user.message", payload).await {
            let key = msg_id(first.chat.id, first.message_id);
            self.outgoing.alive(first.chat.id, &key);
        }
    }

    async fn command(&self, message: &Message, command: Command) -> Option<Exec> {
        let chat = message.chat.id;
        match command {
            Command::Start | Command::Help => self.notice(message, &self.help()),
            Command::Status => {
                let text = self.status(chat).await;
                self.notice(message, &text);
            }
            Command::Cancel => {
                let stopped = self.shells.stop(chat);
                if stopped {
                    self.notice(message, "The command is stopped.");
                } else if self.hand_over(message, "control.cancel", Value::Null).await {
                    self.notice(message, "Cancelled.");
                }
            }
            Command::New => {
                if self.hand_over(message, "control.new", Value::Null).await {
                    self.notice(message, "A new conversation begins.");
                }
            }
            Command::Exec(None) => {
                self.shared.memory.set_shell(chat, true);
                let text = "Shell mode: what you write is run in the VM. /exit leaves it.";
                self.notice(message, text);
            }
            Command::Exec(Some(command)) => {
                return Some(Exec {
                    chat,
                    message: message.message_id,
                    command,
                });
            }
            Command::Exit => {
                self.shared.memory.set_shell(chat, false);
                self.notice(message, "You talk to the agent again.");
            }
        }
        None
    }

    /// Hands a frame to aegisd, however long that takes. `false` if aegisd does not want it.
    async fn hand_over(&self, message: &Message, kind: &str, payload: Value) -> bool {
        let chat = message.chat.id;
        let id = msg_id(chat, message.message_id);
        // The conversation goes on in what a group has become.
        let session = self.shared.memory.was(chat).unwrap_or(chat);
        let frame = to_guest(kind, NAME, &session.to_string(), &id, payload);
        match wait_out(|| self.shared.aegis.post_frame(&frame)).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!("the message {id} is skipped: {}", chain(&error));
                self.notice(message, "This message could not be passed on to the agent.");
                false
            }
        }
    }

    fn stranger(&self, message: &Message) {
        let chat = message.chat.id;
        if !addresses(message, &self.me) {
            return;
        }
        let today = jiff::Zoned::now().date().to_string();
        if !self.shared.memory.tell_stranger(chat, &today) {
            return;
        }
        tracing::warn!(
            "chat {chat} ({}) is not in allowed_chats, its messages are ignored",
            message.chat.kind
        );
        let text = format!(
            "This chat may not talk to this bot. Its owner can allow it by adding \"{chat}\" to \
             \"allowed_chats\" in gateway.json."
        );
        let (bot, shared) = (Arc::clone(&self.bot), Arc::clone(&self.shared));
        self.shells.spawn(async move {
            // Told once or not at all: an answer to strangers is not worth a second try.
            if shared.admitted(chat).await.is_err() {
                return;
            }
            let sent = bot
                .send_message(chat, super::api::Text::Plain(&text), None)
                .await;
            if let Err(error) = shared.answered(chat, sent) {
                tracing::info!("chat {chat}: {}, ignoring", chain(&error));
            }
        });
    }

    async fn status(&self, chat: i64) -> String {
        let aegis = &self.shared.aegis;
        let (state, held) = match aegis.instance().await {
            Ok(instance) => (instance.state, instance.lease_held),
            Err(error) => {
                tracing::warn!("{}", chain(&error));
                ("unknown, since aegisd does not answer".to_owned(), false)
            }
        };
        let agent = match (self.outgoing.is_busy(chat), held) {
            (true, _) => "answering you",
            (false, true) => "busy",
            (false, false) => "idle",
        };
        let model = aegis.read_file(".aegis/agent.json").await.ok();
        let model = model.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let model = model
            .as_ref()
            .and_then(|config| config.get("model")?.as_str());
        let mode = match self.shared.memory.shell(chat) {
            true => "\nShell mode is on; /exit leaves it.",
            false => "",
        };
        format!(
            "Instance: `{}`\nVM: {}\nAgent: {agent}\nModel: {}{mode}",
            self.instance,
            match state.as_str() {
                "paused" | "stopped" => format!("{state} (a message wakes it)"),
                _ => state,
            },
            model.map_or("unknown".to_owned(), |model| format!(
                "`{}`",
                model.replace('`', "")
            )),
        )
    }

    fn help(&self) -> String {
        let mut text = "I pass what you write to an agent in a VM, and its answers to you. Photos \
            and files are passed on too.\n"
            .to_owned();
        for (command, description) in self.commands() {
            text.push_str(&format!("\n/{command} – {description}"));
        }
        // Markdown makes one line of these without a mark at their ends.
        text.replace('_', "\\_")
    }

    /// The commands there are.
    pub fn commands(&self) -> Vec<(&'static str, &'static str)> {
        let mut commands = command::OFFERED.to_vec();
        if self.shared.settings().shell {
            commands.extend(command::OFFERED_WITH_SHELL);
        }
        commands
    }

    fn notice(&self, message: &Message, text: &str) {
        let reply_to = (!message.chat.is_private()).then_some(message.message_id);
        self.outgoing.notice(message.chat.id, text, reply_to);
    }
}

fn user_of(user: &User) -> Value {
    let mut value = json!({"id": user.id.to_string(), "name": user.name()});
    if let Some(username) = &user.username {
        value["username"] = username.as_str().into();
    }
    value
}
