//! Bringing the messages of an instance to its guest: one task for each instance that
//! ever had one, for as long as it is there.
//!
//! ```text
//!  something waits ──► enabled, and not stopped since ──► dial (wakes the VM) ──► post
//!        ▲                                                   │ failed                │
//!        └──── pause, growing ◄──────────────────────────────┘        taken: noted ◄─┘
//! ```
//!
//! In order, and one at a time: the next goes when the guest has the one before. One
//! that could not be brought stays and is tried again, so the guest may get it twice
//! where the word that it has it was lost.

use std::sync::Arc;
use std::time::Duration;

use aegis_core::fault::chain;
use aegis_core::tether::{Frame, GUEST_PORT};

use super::line::Line;
use super::post::{Answer, Post, PostError};
use super::{MAX_ANSWER_BYTES, MessageError, Messages};
use crate::instance::{Instance, InstanceError, Shared};
use crate::registry::MessageQuery;

/// How long a program in a guest that runs may take to listen, with the VM kept awake.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two tries, growing from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// Messages that are read at a time.
const BATCH: u32 = 32;

/// Why messages are not delivered now.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("the guest cannot be reached")]
    Reach(#[source] Box<InstanceError>),
    #[error(transparent)]
    Post(#[from] PostError),
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl Messages {
    /// Goes on with messages of another aegisd's time, the newest of which came then, in
    /// microseconds since 1970.
    pub fn go_on_delivering(&self, shared: &Arc<Shared>, instance: &Instance, came_at: u64) {
        self.line(instance.handle()).wants_delivery(came_at);
        self.deliver(shared, instance);
    }

    /// Sees to it that an instance's messages are brought to its guest.
    pub fn deliver(&self, shared: &Arc<Shared>, instance: &Instance) {
        let line = self.line(instance.handle());
        if line.begin_service() {
            let (shared, instance) = (shared.clone(), instance.clone());
            tokio::spawn(async move { serve(&shared.messages, &line, &instance).await });
        }
    }
}

async fn serve(messages: &Messages, line: &Line, instance: &Instance) {
    let mut pause = FIRST_PAUSE;
    while !line.is_over() {
        match deliver(messages, line, instance).await {
            Ok(()) => {
                pause = FIRST_PAUSE;
                line.wanted().await;
            }
            Err(error) => {
                let (handle, words) = (instance.handle(), chain(&error));
                tracing::warn!(
                    instance = %handle,
                    "{handle}: its messages wait: {words}; trying again in {} s",
                    pause.as_secs()
                );
                // A VM that has just come up is worth a try, and so is another message.
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = LAST_PAUSE.min(pause * 2),
                    () = instance.comes_up() => tokio::time::sleep(FIRST_PAUSE).await,
                    () = line.wanted() => tokio::time::sleep(FIRST_PAUSE).await,
                }
            }
        }
    }
}

/// Brings all that waits.
async fn deliver(
    messages: &Messages,
    line: &Line,
    instance: &Instance,
) -> Result<(), DeliveryError> {
    let mut post: Option<Post> = None;
    loop {
        let query = MessageQuery {
            waiting: true,
            limit: BATCH,
            bytes: MAX_ANSWER_BYTES,
            ..MessageQuery::default()
        };
        let waiting = messages.read(instance.handle(), query).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        for text in waiting {
            // What is kept was checked.
            let Ok(frame) = Frame::parse(&text) else {
                continue;
            };
            let Some(seq) = frame.seq() else { continue };
            instance.wants_messages(|| line.wanted_at()).await;
            if line.is_over() {
                return Ok(());
            }
            let is_open = match &mut post {
                Some(post) => post.is_open().await,
                None => false,
            };
            if !is_open {
                post = Some(dial(instance).await?);
            }
            if let Some(post) = &mut post {
                let refusal = match post.post(text).await? {
                    Answer::Taken => None,
                    Answer::Refused(why) => {
                        let handle = instance.handle();
                        tracing::warn!(instance = %handle, "{handle}: its guest refuses message {seq}: {why}");
                        Some(why)
                    }
                };
                let told = frame.acknowledged(refusal.as_deref());
                messages.is_done(instance.handle(), seq, told).await?;
            }
        }
    }
}

async fn dial(instance: &Instance) -> Result<Post, DeliveryError> {
    let dialed = instance.dial(GUEST_PORT, PATIENCE).await;
    let stream = dialed.map_err(|error| DeliveryError::Reach(Box::new(error)))?;
    Ok(Post::new(stream).await?)
}
