//! Channels: where people write. The core knows them by this trait alone.
//!
//! ```text
//!            start                reconfigure*               stop
//!  (made) ─────────► running ────────────────────► running ───────► (dropped)
//!                       ▲ │
//!          frame, lost ─┘ └─ cursor
//! ```

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use crate::aegis::Aegis;
use crate::config::ConfigError;
use crate::frame::Frame;
use crate::record::Record;
use crate::status::Status;
use crate::telegram::Telegram;

/// What a channel is given.
#[derive(Clone, Debug)]
pub struct Deps {
    pub aegis: Aegis,
    pub record: Record,
    pub status: Status,
}

/// A channel. All calls but `frame` and `stop` return at once: what takes time is done by
/// tasks of the channel's own, so that none holds up the core or another channel.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Its key in `gateway.json`, and its `session.channel` in frames.
    fn name(&self) -> &'static str;

    /// Begins to work. Called once, with settings that [`Kind::check`] has accepted.
    fn start(&self, section: &Value) -> Result<(), ConfigError>;

    /// Works by other settings from now on.
    fn reconfigure(&self, section: &Value) -> Result<(), ConfigError>;

    /// The number up to which it is done with all frames of the instance that was made at
    /// `instance`; `None` where it has not met that instance.
    fn cursor(&self, instance: &str) -> Option<u64>;

    /// Frames of this instance up to `seq` do not concern it. It takes no message in before
    /// it knows its instance.
    fn begin_at(&self, instance: &str, seq: u64);

    /// Takes a frame. It may wait while the channel has much to do; that holds up the
    /// frames of this channel alone. Stored frames may come again.
    async fn frame(&self, frame: Frame);

    /// The stream of frames was interrupted: live-only frames may be missing.
    fn lost(&self);

    /// Ends, within a few seconds: what is under way is completed and recorded.
    async fn stop(&self);
}

/// A kind of channel that there is.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    /// The keys that nobody knows, or what is wrong.
    pub check: fn(&Value) -> Result<Vec<String>, ConfigError>,
    pub make: fn(Deps) -> Box<dyn Channel>,
}

/// All kinds there are.
pub const KINDS: [Kind; 1] = [Kind {
    name: crate::telegram::NAME,
    check: crate::telegram::settings::check,
    make: |deps| Box::new(Telegram::new(deps)),
}];

/// What is to be done so that the channels that run are those of a config.
#[derive(Debug, PartialEq)]
pub enum Step {
    Start(&'static str),
    Reconfigure(&'static str),
    Stop(&'static str),
}

/// The steps from the sections that count now to those that shall.
pub fn steps(
    now: &BTreeMap<&'static str, Value>,
    wanted: &BTreeMap<&'static str, Value>,
) -> Vec<Step> {
    let gone = now.keys().filter(|name| !wanted.contains_key(*name));
    let mut steps: Vec<_> = gone.map(|name| Step::Stop(name)).collect();
    for (name, section) in wanted {
        match now.get(name) {
            None => steps.push(Step::Start(name)),
            Some(before) if before != section => steps.push(Step::Reconfigure(name)),
            Some(_) => {}
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_between_two_configs_is_done() {
        let config = |sections: &[(&'static str, u8)]| {
            let sections = sections.iter();
            sections
                .map(|(name, value)| (*name, Value::from(*value)))
                .collect::<BTreeMap<_, _>>()
        };
        let now = config(&[("gone", 1), ("same", 1), ("other", 1)]);
        let wanted = config(&[("same", 1), ("other", 2), ("new", 1)]);
        let expected = [
            Step::Stop("gone"),
            Step::Start("new"),
            Step::Reconfigure("other"),
        ];
        assert_eq!(steps(&now, &wanted), expected);
        assert_eq!(steps(&wanted, &wanted), []);
    }
}
