//! Frames on their way to the host: one queue, one sender, in order.
//!
//! | frame | when the host does not take it |
//! |---|---|
//! | an answer | it is sent again until it is taken; whoever adds one waits while the queue is full |
//! | presence | the same, but it is not added where much waits already |
//! | deltas | they are sent once; while they wait, later text joins them |
//!
//! So a slow host slows nothing down but what the user sees of it, and never loses an
//! answer. Text that is lost is in the answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::frame::{self, Frame, SessionKey, Stream};
use crate::guest_api::GuestApi;
use crate::provider::exchange::chain;

/// How long text waits for more of it.
const GATHER: Duration = Duration::from_millis(50);
/// Text in one delta, in bytes: well under a frame's limit as JSON.
const DELTA_LIMIT: usize = 64 * 1024;
/// Deltas that wait; beyond that, text is dropped until the answer.
const DELTAS: usize = 16;
/// Answers that wait before whoever makes more has to.
const KEPT: usize = 256;
/// Frames that wait before presence is left out.
const PRESENCE: usize = 32;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

enum Item {
    Kept {
        frame: Frame,
        taken: Option<oneshot::Sender<()>>,
    },
    Delta {
        session: SessionKey,
        reply_to: String,
        stream: Stream,
        text: String,
        since: Instant,
    },
}

/// The queue; clones are the same.
#[derive(Clone)]
pub(crate) struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<VecDeque<Item>>,
    /// Something was added.
    added: Notify,
    /// Something was taken out.
    room: Notify,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Item>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    /// An empty queue. [`Outbox::deliver`] is to be run beside it.
    #[must_use]
    pub(crate) fn new() -> Outbox {
        Outbox {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                added: Notify::new(),
                room: Notify::new(),
            }),
        }
    }

    /// Adds a frame that must arrive. What it returns is told when the host has it.
    pub(crate) async fn send(&self, frame: Frame) -> oneshot::Receiver<()> {
        let (taken, receiver) = oneshot::channel();
        loop {
            let room = self.shared.room.notified();
            if self.shared.queue().len() < KEPT {
                break;
            }
            room.await;
        }
        self.shared.queue().push_back(Item::Kept {
            frame,
            taken: Some(taken),
        });
        self.shared.added.notify_one();
        receiver
    }

    /// Adds a frame that may be left out where much waits.
    pub(crate) fn send_if_quiet(&self, frame: Frame) {
        let mut queue = self.shared.queue();
        if queue.len() < PRESENCE {
            queue.push_back(Item::Kept { frame, taken: None });
            self.shared.added.notify_one();
        }
    }

    /// Adds text that is shown as it comes.
    pub(crate) fn stream(&self, session: &SessionKey, reply_to: &str, stream: Stream, text: &str) {
        let mut queue = self.shared.queue();
        if let Some(Item::Delta {
            session: last,
            reply_to: of,
            stream: kind,
            text: known,
            ..
        }) = queue.back_mut()
            && (&*last, of.as_str(), *kind) == (session, reply_to, stream)
            && known.len() + text.len() <= DELTA_LIMIT
        {
            known.push_str(text);
            return;
        }
        let waiting = queue
            .iter()
            .filter(|item| matches!(item, Item::Delta { .. }))
            .count();
        if waiting < DELTAS {
            queue.push_back(Item::Delta {
                session: session.clone(),
                reply_to: reply_to.to_owned(),
                stream,
                text: text.to_owned(),
                since: Instant::now(),
            });
            self.shared.added.notify_one();
        }
    }

    /// Delivers for as long as it is polled.
    pub(crate) async fn deliver(&self, api: &GuestApi) -> std::convert::Infallible {
        loop {
            match self.next().await {
                Item::Kept { frame, taken } => {
                    keep_sending(api, &frame).await;
                    if let Some(taken) = taken {
                        // Nobody has to wait for it.
                        taken.send(()).ok();
                    }
                }
                Item::Delta {
                    session,
                    reply_to,
                    stream,
                    text,
                    ..
                } => {
                    let frame = frame::delta(&session, &reply_to, stream, &text);
                    if let Err(error) = api.send(&frame).await {
                        tracing::debug!(error = chain(&error), "Cannot stream text, ignoring");
                    }
                }
            }
        }
    }

    /// The first item, once it has waited for text that joins it.
    async fn next(&self) -> Item {
        loop {
            let added = self.shared.added.notified();
            let until = {
                let mut queue = self.shared.queue();
                let alone = queue.len() == 1;
                match queue.front() {
                    None => None,
                    Some(Item::Delta { since, .. }) if alone && since.elapsed() < GATHER => {
                        Some(*since + GATHER)
                    }
                    Some(_) => {
                        if let Some(item) = queue.pop_front() {
                            self.shared.room.notify_waiters();
                            return item;
                        }
                        None
                    }
                }
            };
            match until {
                None => added.await,
                Some(until) => {
                    tokio::select! {
                        () = added => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                }
            }
        }
    }
}

/// Sends until the host takes it, or says that it never will.
async fn keep_sending(api: &GuestApi, frame: &Frame) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Err(error) = api.send(frame).await else {
            return;
        };
        let error_text = chain(&error);
        if error.is_final() {
            tracing::error!(
                error = error_text,
                kind = frame.kind,
                "The host refuses a frame"
            );
            return;
        }
        tracing::warn!(
            error = error_text,
            kind = frame.kind,
            "Cannot send, trying again"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SessionKey {
        SessionKey {
            channel: "host".into(),
            id: "a".into(),
        }
    }

    fn text(item: &Item) -> &str {
        match item {
            Item::Delta { text, .. } => text,
            Item::Kept { frame, .. } => &frame.kind,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn text_is_gathered_and_never_joins_text_before_another_frame() {
        let outbox = Outbox::new();
        outbox.stream(&key(), "m", Stream::Answer, "a");
        outbox.stream(&key(), "m", Stream::Answer, "b");
        outbox.send_if_quiet(frame::new(&key(), "status.presence", None));
        outbox.stream(&key(), "m", Stream::Answer, "c");
        assert_eq!(text(&outbox.next().await), "ab");
        assert_eq!(text(&outbox.next().await), "status.presence");
        let start = Instant::now();
        assert_eq!(text(&outbox.next().await), "c");
        assert_eq!(start.elapsed(), GATHER);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded() {
        let outbox = Outbox::new();
        for _ in 0..100 {
            outbox.stream(&key(), "m", Stream::Answer, &"x".repeat(DELTA_LIMIT));
            outbox.send_if_quiet(frame::new(&key(), "status.presence", None));
        }
        assert!(outbox.shared.queue().len() <= PRESENCE + DELTAS);
        let mut sent = 0;
        while tokio::time::timeout(GATHER, outbox.send(frame::new(&key(), "x", None)))
            .await
            .is_ok()
        {
            sent += 1;
        }
        assert!(sent < KEPT);
        outbox.next().await;
        outbox.send(frame::new(&key(), "x", None)).await;
    }
}
