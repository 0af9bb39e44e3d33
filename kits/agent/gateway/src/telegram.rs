//! The Telegram channel.
//!
//! ```text
//!  getUpdates ──► session ──► batch ──► incoming ──► aegisd          (in)
//!  frames ──► outgoing ──► a queue and a task for each chat ──► delivery ──► api   (out)
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | [`settings`] | its section of `gateway.json`, the token |
//! | [`api`], [`types`], [`multipart`] | the Bot API |
//! | [`session`], [`batch`] | receiving updates and confirming them |
//! | [`incoming`], [`command`], [`files`], [`shell`] | what becomes of a message |
//! | [`outgoing`], [`chat`], [`queue`], [`run`] | what a chat gets next |
//! | [`delivery`], [`limiter`], [`answer`] | bringing it there |
//! | [`markdown`], [`rich`] | how it looks |
//! | [`memory`], [`progress`] | what is remembered |

pub mod answer;
pub mod api;
pub mod batch;
pub mod chat;
pub mod command;
pub mod delivery;
pub mod files;
pub mod incoming;
pub mod limiter;
pub mod markdown;
pub mod memory;
pub mod multipart;
pub mod outgoing;
pub mod progress;
pub mod queue;
pub mod rich;
pub mod run;
pub mod session;
pub mod settings;
pub mod shell;
pub mod types;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::channel::{Channel, Deps};
use crate::config::ConfigError;
use crate::environment::variable;
use crate::frame::Frame;
use crate::status::Status;
use delivery::{Sending, Shared};
use limiter::Limiter;
use memory::Memory;
use outgoing::Outgoing;
use session::Receiver;
use settings::{Allowed, Settings};
use shell::Shells;

/// The channel's name.
pub const NAME: &str = "telegram";

/// The channel.
#[derive(Debug)]
pub struct Telegram {
    shared: Arc<Shared>,
    outgoing: Arc<Outgoing>,
    shells: Arc<Shells>,
    status: Status,
    receiver: Mutex<Option<JoinHandle<()>>>,
}

impl Telegram {
    pub fn new(deps: Deps) -> Self {
        let nothing = Settings::read(&Value::Object(serde_json::Map::new()), |_| None);
        let memory = Memory::open(deps.record);
        let limiter = Limiter::after_start(Instant::now(), memory.groups().into_iter());
        let shared = Arc::new(Shared {
            aegis: deps.aegis,
            memory,
            limiter: Mutex::new(limiter),
            sending: Sending::default(),
            bot: watch::Sender::new(None),
            // The settings of an empty section, which is one.
            settings: watch::Sender::new(Arc::new(nothing.unwrap_or_else(|_| unreachable!()))),
            stopping: watch::Sender::new(false),
        });
        Self {
            outgoing: Outgoing::new(Arc::clone(&shared)),
            shared,
            shells: Arc::default(),
            status: deps.status,
            receiver: Mutex::default(),
        }
    }

    fn apply(&self, section: &Value) -> Result<(), ConfigError> {
        let settings = Settings::read(section, variable)?;
        match &settings.allowed {
            Allowed::Everybody => tracing::warn!(
                "allowed_chats has \"*\": everybody who finds the bot may talk to the agent{}",
                if settings.shell {
                    " and run commands in its VM"
                } else {
                    ""
                }
            ),
            Allowed::Chats(chats) if chats.is_empty() => tracing::warn!(
                "allowed_chats is empty: nobody may talk to the agent. A chat that writes to the \
                 bot is told its id, which belongs there"
            ),
            Allowed::Chats(_) => {}
        }
        if settings.api.scheme() == "http" && !is_loopback(&settings.api) {
            tracing::warn!("api_base_url is not encrypted: the bot token can be read on its way");
        }
        self.shared.settings.send_replace(Arc::new(settings));
        Ok(())
    }
}

#[async_trait]
impl Channel for Telegram {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&self, section: &Value) -> Result<(), ConfigError> {
        self.apply(section)?;
        let receiver = Receiver {
            shared: Arc::clone(&self.shared),
            outgoing: Arc::clone(&self.outgoing),
            shells: Arc::clone(&self.shells),
            status: self.status.clone(),
            instance: variable("AEGIS_INSTANCE").unwrap_or_default(),
        };
        let task = tokio::spawn(receiver.serve());
        *self.receiver.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(())
    }

    fn reconfigure(&self, section: &Value) -> Result<(), ConfigError> {
        self.apply(section)
    }

    fn cursor(&self, instance: &str) -> Option<u64> {
        self.shared.memory.cursor(instance)
    }

    fn begin_at(&self, instance: &str, seq: u64) {
        self.shared.memory.begin_at(instance, seq);
    }

    async fn frame(&self, frame: Frame) {
        self.outgoing.frame(frame).await;
    }

    fn lost(&self) {
        self.outgoing.lost();
    }

    async fn stop(&self) {
        let receiver = self
            .receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(receiver) = receiver {
            receiver.abort();
        }
        self.shells.stop_all();
        self.shared.stopping.send_replace(true);
        self.outgoing.ended().await;
    }
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let address = |host: &str| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    url.host_str().is_some_and(|host| {
        host == "localhost" || address(host).is_ok_and(|address| address.is_loopback())
    })
}
