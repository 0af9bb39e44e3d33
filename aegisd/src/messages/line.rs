//! The line of an instance: whoever follows it hears each message once, in the order
//! of the numbers, and those that are not kept in their place between.
//!
//! A follower that is slower than the line holds, or comes later, reads from the
//! registry until it is where the line is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aegis_core::handle::Handle;
use aegis_core::tether::Frame;
use tokio::sync::{Mutex, MutexGuard, Notify, broadcast};

use super::{MAX_ANSWER, MAX_ANSWER_BYTES};
use crate::registry::{Kept, MessageQuery, Registry, RegistryError};

/// Messages that a slow follower may be behind before it reads from the registry.
const HELD: usize = 256;

/// A message on the line.
#[derive(Clone, Debug)]
struct Told {
    channel: String,
    text: Arc<str>,
    /// Its number; for one that is not kept, that of the last before it.
    seq: u64,
    is_kept: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Line {
    told: broadcast::Sender<Told>,
    /// Held from the moment a message gets its number until it was told. It has the
    /// number of the last one, once that is known.
    order: Mutex<Option<u64>>,
    /// There is something for the guest.
    waits: Notify,
    /// When the newest of what is for the guest came, in microseconds since 1970.
    wanted_at: AtomicU64,
    /// Somebody brings messages.
    is_served: AtomicBool,
    is_over: AtomicBool,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            told: broadcast::Sender::new(HELD),
            order: Mutex::default(),
            waits: Notify::new(),
            wanted_at: AtomicU64::default(),
            is_served: AtomicBool::default(),
            is_over: AtomicBool::default(),
        }
    }
}

impl Line {
    /// Waits until nobody else gives out numbers.
    pub(super) async fn order(&self) -> Order<'_> {
        Order(self.order.lock().await)
    }

    /// Tells of a message that is not kept; `last` is the number of the last one.
    pub(super) fn pass(&self, frame: &Frame, last: u64) {
        self.send(frame, last, false);
    }

    fn send(&self, frame: &Frame, seq: u64, is_kept: bool) {
        // Without followers there is nobody to tell.
        drop(self.told.send(Told {
            channel: frame.channel().to_owned(),
            text: frame.to_text().into(),
            seq,
            is_kept,
        }));
    }

    /// There is something for the guest that came then, in microseconds since 1970.
    pub(super) fn wants_delivery(&self, came_at: u64) {
        self.wanted_at.fetch_max(came_at, Ordering::Relaxed);
        self.waits.notify_one();
    }

    /// Resolves when there is something for the guest, or the line is at its end.
    pub(super) async fn wanted(&self) {
        self.waits.notified().await;
    }

    /// When the newest of what is for the guest came, in microseconds since 1970.
    pub(super) fn wanted_at(&self) -> u64 {
        self.wanted_at.load(Ordering::Relaxed)
    }

    /// Whether the caller is the first who wants to bring messages.
    pub(super) fn begin_service(&self) -> bool {
        !self.is_served.swap(true, Ordering::AcqRel)
    }

    /// The instance is gone.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.waits.notify_one();
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// The right to give out the next number.
#[derive(Debug)]
pub(super) struct Order<'a>(MutexGuard<'a, Option<u64>>);

impl Order<'_> {
    /// The number of the last message.
    pub(super) async fn last(
        &mut self,
        registry: &Registry,
        instance: &Handle,
    ) -> Result<u64, RegistryError> {
        if let Some(last) = *self.0 {
            return Ok(last);
        }
        let last = registry.last_message(instance.clone()).await?;
        *self.0 = Some(last);
        Ok(last)
    }

    /// Tells of a message that is kept from now on.
    pub(super) fn tell(&mut self, line: &Line, kept: &Kept) {
        *self.0 = Some(kept.seq);
        line.send(&kept.frame, kept.seq, true);
    }
}

/// Somebody who follows an instance.
#[derive(Debug)]
pub struct Follower {
    registry: Registry,
    instance: Handle,
    channel: Option<String>,
    line: broadcast::Receiver<Told>,
    /// The number of the last message that it has, or passed over.
    last: u64,
    /// Read from the registry and not given yet.
    behind: VecDeque<String>,
    is_behind: bool,
}

impl Follower {
    pub(super) async fn new(
        line: &Line,
        registry: Registry,
        instance: Handle,
        after: Option<u64>,
        channel: Option<String>,
    ) -> Result<Self, RegistryError> {
        let mut order = line.order().await;
        let told = line.told.subscribe();
        let newest = order.last(&registry, &instance).await?;
        drop(order);
        Ok(Self {
            registry,
            instance,
            channel,
            line: told,
            last: after.unwrap_or(newest),
            behind: VecDeque::new(),
            is_behind: after.is_some_and(|after| after < newest),
        })
    }

    /// The next message as a JSON text; `None` where the instance is gone.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub async fn next(&mut self) -> Result<Option<String>, RegistryError> {
        loop {
            if let Some(text) = self.behind.pop_front() {
                return Ok(Some(text));
            }
            if self.is_behind {
                self.catch_up().await?;
                continue;
            }
            let told = match self.line.recv().await {
                Ok(told) => told,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.is_behind = true;
                    continue;
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(None),
            };
            let is_known = match told.is_kept {
                true => told.seq <= self.last,
                // What was said before a message that it has already is old.
                false => told.seq < self.last,
            };
            if is_known {
                continue;
            }
            if told.is_kept {
                self.last = told.seq;
            }
            if self
                .channel
                .as_ref()
                .is_none_or(|channel| *channel == told.channel)
            {
                return Ok(Some(told.text.to_string()));
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), RegistryError> {
        let query = MessageQuery {
            after: self.last,
            channel: self.channel.clone(),
            limit: MAX_ANSWER,
            bytes: MAX_ANSWER_BYTES,
            ..MessageQuery::default()
        };
        let read = self.registry.messages(self.instance.clone(), query).await?;
        let last = read.last().and_then(|text| Frame::parse(text).ok()?.seq());
        match last {
            Some(last) => self.last = last,
            None => self.is_behind = false,
        }
        self.behind.extend(read);
        Ok(())
    }
}
