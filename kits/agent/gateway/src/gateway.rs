//! The core: follows the config, and starts, reconfigures and stops the channels by it.
//!
//! A config that is wrong changes nothing; none at all stops all channels. Failures of
//! aegisd and of the services behind channels are waited out by those who meet them, so
//! what ends the core is a failure of this process itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::fault::chain;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::aegis::{Aegis, AegisError};
use crate::channel::{Channel, Deps, KINDS, Kind, Step, steps};
use crate::config::{self, ConfigError, Sections};
use crate::environment::{Environment, MissingVariable};
use crate::record::{Record, RecordError};
use crate::status::{self, Status};
use crate::subscription;
use crate::watch::{Watch, WatchError};

/// Longest end of a channel. Less than the ten seconds that the service manager waits
/// before it kills.
const STOP: Duration = Duration::from_secs(7);

/// Why the gateway cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error(transparent)]
    Environment(#[from] MissingVariable),
    #[error("cannot reach AEGIS_SOCKET at all")]
    Aegis(#[source] AegisError),
    #[error("cannot keep a record")]
    Record(#[source] RecordError),
    #[error("cannot follow the config")]
    Watch(#[source] WatchError),
    #[error("cannot take SIGTERM")]
    Signal(#[source] std::io::Error),
}

/// Serves the instance of the environment, with the config in `folder`, until SIGTERM.
///
/// # Errors
/// The process cannot go on.
pub async fn run(folder: &Path) -> Result<(), GatewayError> {
    let environment = Environment::of_process()?;
    let mut end = signal(SignalKind::terminate()).map_err(GatewayError::Signal)?;
    let mut watch = Watch::new(folder).map_err(GatewayError::Watch)?;
    let deps = Deps {
        aegis: Aegis::new(&environment).map_err(GatewayError::Aegis)?,
        record: Record::open(folder).map_err(GatewayError::Record)?,
        status: Status::default(),
    };
    let mut channels = Channels::new(deps, &KINDS);
    channels.load(folder).await;
    status::ready();
    loop {
        tokio::select! {
            Some(()) = end.recv() => break,
            changed = watch.changed() => {
                changed.map_err(GatewayError::Watch)?;
                channels.load(folder).await;
            }
        }
    }
    status::stopping();
    channels.stop_all().await;
    Ok(())
}

struct Running {
    channel: Arc<dyn Channel>,
    subscription: JoinHandle<()>,
}

/// The channels that run, by the config that counts.
struct Channels {
    deps: Deps,
    kinds: &'static [Kind],
    sections: Sections,
    running: BTreeMap<&'static str, Running>,
    /// Channels that end; each takes [`STOP`] at most.
    ending: BTreeMap<&'static str, JoinHandle<()>>,
}

impl Channels {
    fn new(deps: Deps, kinds: &'static [Kind]) -> Self {
        Self {
            deps,
            kinds,
            sections: Sections::new(),
            running: BTreeMap::new(),
            ending: BTreeMap::new(),
        }
    }

    /// Reads the config and makes the channels be as it says.
    async fn load(&mut self, folder: &Path) {
        match self.read(folder) {
            Ok(Some(sections)) => {
                match sections.is_empty() {
                    true => self.deps.status.set("config", "no channel in it, waiting"),
                    false => self.deps.status.set("config", "applied"),
                }
                self.apply(sections).await;
            }
            Ok(None) => {
                self.deps.status.set(
                    "config",
                    format!("{} is missing, waiting for it", config::FILE),
                );
                self.apply(Sections::new()).await;
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!("{error}");
                let text = format!("not applied, the last good one counts: {error}");
                self.deps.status.set("config", text);
            }
        }
    }

    fn read(&self, folder: &Path) -> Result<Option<Sections>, ConfigError> {
        let Some(text) = config::read(folder)? else {
            return Ok(None);
        };
        let known: Vec<_> = self.kinds.iter().map(|kind| kind.name).collect();
        let (sections, mut unknown) = config::parse(&text, &known)?;
        for kind in self.kinds {
            if let Some(section) = sections.get(kind.name) {
                unknown.append(&mut (kind.check)(section)?);
            }
        }
        for key in unknown {
            tracing::warn!("{}: the key '{key}' is not known, ignoring", config::FILE);
        }
        Ok(Some(sections))
    }

    async fn apply(&mut self, sections: Sections) {
        for step in steps(&self.sections, &sections) {
            let applied = match step {
                Step::Start(name) => self.start(name, &sections[name]).await,
                Step::Reconfigure(name) => match self.running.get(name) {
                    Some(running) => running.channel.reconfigure(&sections[name]),
                    None => self.start(name, &sections[name]).await,
                },
                Step::Stop(name) => {
                    self.stop(name);
                    Ok(())
                }
            };
            if let Err(error) = applied {
                // The check has accepted it, so this is a mistake of ours that is survived.
                tracing::error!("{}, ignoring", chain(&error));
            }
        }
        self.sections = sections;
    }

    async fn start(
        &mut self,
        name: &'static str,
        section: &serde_json::Value,
    ) -> Result<(), ConfigError> {
        let Some(kind) = self.kinds.iter().find(|kind| kind.name == name) else {
            return Ok(());
        };
        // Two of a kind would have one record and one bot.
        if let Some(ending) = self.ending.remove(name) {
            ending.await.ok();
        }
        let channel: Arc<dyn Channel> = Arc::from((kind.make)(self.deps.clone()));
        channel.start(section)?;
        let subscription = tokio::spawn(subscription::follow(
            Arc::clone(&channel),
            self.deps.aegis.clone(),
            self.deps.status.clone(),
        ));
        let running = Running {
            channel,
            subscription,
        };
        self.running.insert(name, running);
        Ok(())
    }

    /// Stops a channel, which goes on beside what the core does next.
    fn stop(&mut self, name: &'static str) {
        let Some(running) = self.running.remove(name) else {
            return;
        };
        running.subscription.abort();
        let status = self.deps.status.clone();
        let ending = tokio::spawn(async move {
            if timeout(STOP, running.channel.stop()).await.is_err() {
                tracing::warn!("the channel '{name}' did not end in time, ignoring");
            }
            status.clear(name);
        });
        self.ending.insert(name, ending);
    }

    async fn stop_all(&mut self) {
        let names: Vec<_> = self.running.keys().copied().collect();
        for name in names {
            self.stop(name);
        }
        for ending in std::mem::take(&mut self.ending).into_values() {
            ending.await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use serde_json::{Value, json};

    use super::*;
    use crate::frame::Frame;

    /// How often the good channel was reconfigured.
    static RECONFIGURED: AtomicUsize = AtomicUsize::new(0);

    /// A channel that does what it is told, and one that hangs wherever it may.
    struct Fake {
        hangs: bool,
    }

    #[async_trait]
    impl Channel for Fake {
        fn name(&self) -> &'static str {
            if self.hangs { "stuck" } else { "good" }
        }

        fn start(&self, _: &Value) -> Result<(), ConfigError> {
            Ok(())
        }

        fn reconfigure(&self, _: &Value) -> Result<(), ConfigError> {
            RECONFIGURED.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        fn cursor(&self, _: &str) -> Option<u64> {
            None
        }

        fn begin_at(&self, _: &str, _: u64) {}

        async fn frame(&self, _: Frame) {
            if self.hangs {
                std::future::pending::<()>().await;
            }
        }

        fn lost(&self) {}

        async fn stop(&self) {
            if self.hangs {
                std::future::pending::<()>().await;
            }
        }
    }

    const FAKES: [Kind; 2] = [
        Kind {
            name: "good",
            check: |_| Ok(Vec::new()),
            make: |_| Box::new(Fake { hangs: false }),
        },
        Kind {
            name: "stuck",
            check: |_| Ok(Vec::new()),
            make: |_| Box::new(Fake { hangs: true }),
        },
    ];

    #[tokio::test(start_paused = true)]
    async fn a_stuck_channel_holds_up_neither_the_core_nor_another() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment {
            instance: "my-agent".into(),
            socket: folder.path().join("nobody.sock"),
        };
        let deps = Deps {
            aegis: Aegis::new(&environment).unwrap(),
            record: Record::open(folder.path()).unwrap(),
            status: Status::default(),
        };
        let mut channels = Channels::new(deps, &FAKES);
        let mut load = async |config: Value| {
            std::fs::write(folder.path().join(config::FILE), config.to_string()).unwrap();
            let start = tokio::time::Instant::now();
            channels.load(folder.path()).await;
            start.elapsed()
        };
        load(json!({"good": 1, "stuck": 1})).await;
        let took = load(json!({"good": 2})).await;
        assert_eq!(RECONFIGURED.load(Ordering::Relaxed), 1);
        assert!(took < Duration::from_millis(100), "{took:?}");
        // Only a new one of its kind waits for its end.
        let took = load(json!({"good": 2, "stuck": 2})).await;
        assert!(took >= STOP, "{took:?}");
        channels.stop_all().await;
    }
}
