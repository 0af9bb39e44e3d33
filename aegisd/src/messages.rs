//! Messages between the host and the guests of instances ([`aegis_core::tether`]).
//!
//! ```text
//!  host ──► Messages ──► registry ──► delivery ──dial──► program in the guest
//!              │  a message is kept before anybody is told of it
//!              └──► line ──► who follows ◄── Messages ◄── registry ◄── guest
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`line`] | telling those who follow an instance, in order |
//! | [`follow`] | a follower as a stream of lines |
//! | [`delivery`] | bringing an instance's messages to its guest |
//! | [`post`] | one message on a connection to the guest |

pub mod delivery;
pub mod follow;
pub mod line;
pub mod post;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_core::fault::{Fault, Symbol};
use aegis_core::handle::Handle;
use aegis_core::tether::{
    Direction, Frame, FrameError, MAX_KEPT, MAX_KEPT_BYTES, MAX_UNDELIVERED, MAX_UNDELIVERED_BYTES,
};
use jiff::Timestamp;

use crate::instance::now_us;
use crate::registry::{Bounds, Kept, MessageQuery, Registry, RegistryError};
use line::{Follower, Line};

/// Most messages in one answer.
pub const MAX_ANSWER: u32 = 1000;
/// Most bytes of messages in one answer.
pub const MAX_ANSWER_BYTES: usize = 4 << 20;
/// How much is kept of an instance.
pub const BOUNDS: Bounds = Bounds {
    kept: (MAX_KEPT, MAX_KEPT_BYTES),
    waiting: (MAX_UNDELIVERED, MAX_UNDELIVERED_BYTES),
};

/// Why messages are refused.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error("line {line} is no message")]
    Frame {
        line: usize,
        #[source]
        source: FrameError,
    },
    #[error("the message of line {0} has no number 'seq' from 1 on")]
    Number(usize),
    #[error("it is no message")]
    Form(#[from] FrameError),
    /// The guest sent what only the host sends, or the other way round.
    #[error("a message of type '{kind}' goes to the {goes_to}", goes_to = match .direction {
        Direction::ToGuest => "guest",
        Direction::ToHost => "host",
    })]
    WrongWay { kind: String, direction: Direction },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl MessageError {
    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Frame { .. } | Self::Number(_) | Self::Form(_) | Self::WrongWay { .. } => {
                Fault::from_error(Symbol::InvalidArgument, self)
            }
            Self::Registry(error) => error.fault(),
        }
    }
}

/// The messages of all instances. What is kept of them the registry has.
#[derive(Debug)]
pub struct Messages {
    registry: Registry,
    /// By folded handle.
    lines: Mutex<BTreeMap<String, Arc<Line>>>,
}

impl Messages {
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            lines: Mutex::default(),
        }
    }

    /// Takes a message that goes this way: keeps it, and tells those who follow. One that
    /// its sender sent before is told to nobody.
    ///
    /// # Errors
    /// It goes the other way, or cannot be kept.
    pub async fn take(
        &self,
        instance: &Handle,
        mut frame: Frame,
        way: Direction,
    ) -> Result<Taken, MessageError> {
        let direction = frame.direction();
        if direction != way {
            let kind = frame.kind().to_owned();
            return Err(MessageError::WrongWay { kind, direction });
        }
        frame.unnumber();
        frame.date_it(|| Timestamp::now().to_string());
        let line = self.line(instance);
        let mut order = line.order().await;
        if frame.is_passing() {
            let last = order.last(&self.registry, instance).await?;
            line.pass(&frame, last);
            return Ok(Taken::Passed);
        }
        let sender = match way {
            Direction::ToGuest => "host",
            Direction::ToHost => "guest",
        };
        frame.name_it(|| format!("{sender}-{}", Timestamp::now().as_nanosecond()));
        let handle = instance.clone();
        let came_at = now_us();
        let added = self.registry.add_message(handle, frame, came_at, BOUNDS);
        let kept = added.await?;
        if kept.is_new {
            order.tell(&line, &kept);
        }
        drop(order);
        if kept.is_new && way == Direction::ToGuest {
            line.wants_delivery(came_at);
        }
        Ok(Taken::Kept(kept))
    }

    /// Notes that the guest is done with a message, and tells so.
    ///
    /// # Errors
    /// It cannot be noted.
    async fn is_done(&self, instance: &Handle, seq: u64, told: Frame) -> Result<(), MessageError> {
        let line = self.line(instance);
        let mut order = line.order().await;
        let handle = instance.clone();
        let kept = self.registry.message_is_taken(handle, seq, told).await?;
        if let Some(kept) = kept {
            order.tell(&line, &kept);
        }
        Ok(())
    }

    /// Follows an instance: what is kept behind a number and then what comes, or what
    /// comes alone.
    pub async fn follow(
        &self,
        instance: &Handle,
        after: Option<u64>,
        channel: Option<String>,
    ) -> Result<Follower, MessageError> {
        let line = self.line(instance);
        Ok(Follower::new(
            &line,
            self.registry.clone(),
            instance.clone(),
            after,
            channel,
        )
        .await?)
    }

    /// Messages of an instance in the order of their numbers, as JSON texts: no more
    /// than one answer holds.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn read(
        &self,
        instance: &Handle,
        query: MessageQuery,
    ) -> Result<Vec<String>, MessageError> {
        let query = MessageQuery {
            limit: query.limit.min(MAX_ANSWER),
            bytes: MAX_ANSWER_BYTES,
            ..query
        };
        Ok(self.registry.messages(instance.clone(), query).await?)
    }

    /// Keeps messages under the numbers they have, a line each; those whose numbers
    /// there are already stay as they are. Returns how many came.
    ///
    /// # Errors
    /// A line is no numbered message: none is kept then.
    pub async fn import(&self, instance: &Handle, lines: &str) -> Result<usize, MessageError> {
        let frames = numbered(lines)?;
        let handle = instance.clone();
        let added = self.registry.add_messages(handle, frames, BOUNDS.kept);
        Ok(added.await?)
    }

    /// Forgets an instance that is gone: whoever follows it is at the end.
    pub fn forget(&self, instance: &Handle) {
        if let Some(line) = self.lock().remove(&instance.folded()) {
            line.end();
        }
    }

    fn line(&self, instance: &Handle) -> Arc<Line> {
        self.lock().entry(instance.folded()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    Kept(Kept),
    /// It was told to those who listen, and is not kept.
    Passed,
}

/// Numbered frames, a line each.
///
/// # Errors
/// The first line that is none.
pub fn numbered(text: &str) -> Result<Vec<(u64, Frame)>, MessageError> {
    let lines = text.lines().enumerate();
    let lines = lines.map(|(index, text)| (index + 1, text));
    let frame = |(line, text)| {
        let frame = Frame::parse(text).map_err(|source| MessageError::Frame { line, source })?;
        let seq = frame.seq().filter(|seq| *seq > 0);
        Ok((seq.ok_or(MessageError::Number(line))?, frame))
    };
    lines.map(frame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_numbered_frame() {
        let good = r#"{"v":1,"type":"t","seq":3,"session":{"channel":"a","id":"b"}}"#;
        let read = numbered(&format!("{good}\n{good}\n")).unwrap();
        assert_eq!(read.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [3, 3]);
        let odd = numbered(&format!("{good}\n{{}}")).unwrap_err();
        assert!(matches!(odd, MessageError::Frame { line: 2, .. }), "{odd}");
        let zero = numbered(&good.replace(":3,", ":0,")).unwrap_err();
        assert!(matches!(zero, MessageError::Number(1)), "{zero}");
    }
}
