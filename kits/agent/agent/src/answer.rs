//! One answer: from a message that is in the file to one that the host has.
//!
//! ```text
//!   context ─▶ model ─▶ text, no calls ─▶ answer in the file ─▶ assistant.done ─▶ note "sent"
//!      ▲         │
//!      └─ tools ◀┘ calls         every turn is in the file before the next step
//! ```
//!
//! The answer is in the file before it is sent, and its message id follows from that of
//! the message: whenever the agent ends, the host gets one answer.

mod rounds;
mod streamer;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::agent::Shared;
use crate::blob::Blob;
use crate::frame::{self, Ending, SessionKey};
use crate::provider::exchange::chain;
use crate::session::conversation::{Exchange, SENT};
use crate::session::log::{LogError, SessionLog};
use crate::session::turn::{Content, Role, Turn, Usage};

/// How often an answer is taken up again before it is given up: something in it ends
/// the agent.
const RESUMED: usize = 3;

/// Why there is no answer. The texts are for users.
#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error(transparent)]
    Choice(#[from] crate::provider::choice::ChoiceError),
    #[error(transparent)]
    Ask(#[from] crate::provider::exchange::AskError),
    #[error("The conversation cannot be kept")]
    Log(#[from] LogError),
    #[error("The message is not in the session's file")]
    Missing,
    #[error("The agent ended {RESUMED} times while it answered this message, so it is given up.")]
    GivenUp,
}

/// What is to be said.
#[derive(Clone, Debug, Default)]
struct Outcome {
    /// What the model said last.
    last: String,
    /// All that it said, for the user.
    text: String,
    images: Vec<Blob>,
    usage: Usage,
    /// It was ended before it was complete.
    failed: bool,
    /// The VM is to be restarted once the answer has arrived.
    restart: bool,
}

/// Answers a message. Whatever happens, one `assistant.done` follows.
pub(crate) async fn run(
    shared: Arc<Shared>,
    log: SessionLog,
    session: SessionKey,
    msg_id: String,
    cancel: CancellationToken,
) {
    let held = shared.lease.hold();
    let work = rounds::answer(&shared, &log, &session, &msg_id);
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        result = work => Some(result),
    };
    let (outcome, ending) = match result {
        None => (said("Cancelled."), Ending::Cancelled),
        Some(Ok(outcome)) if outcome.failed => (outcome, Ending::Failed),
        Some(Ok(outcome)) => (outcome, Ending::Complete),
        Some(Err(error)) => {
            let text = chain(&error);
            tracing::error!(error = text, msg_id, "Cannot answer");
            (said(&text), Ending::Failed)
        }
    };
    let turn = Turn {
        is_final: true,
        answer: (outcome.text != outcome.last).then(|| outcome.text.clone()),
        failed: ending == Ending::Failed,
        cancelled: ending == Ending::Cancelled,
        attached: outcome.images.clone(),
        usage: (outcome.usage != Usage::default()).then_some(outcome.usage),
        ..Turn::reply(
            Role::Assistant,
            Content::Text(outcome.last.clone()),
            &msg_id,
        )
    };
    if let Err(error) = log.append(vec![turn]).await {
        // Sent all the same: after a crash it would be made again, and the host knows it
        // by its id.
        tracing::error!(
            error = chain(&error),
            msg_id,
            "Cannot keep an answer, ignoring"
        );
    }
    let restart = outcome.restart.then(|| (session.clone(), msg_id.clone()));
    let frame = frame::done(&session, &msg_id, &outcome.text, &outcome.images, ending);
    let arrived = shared.outbox.send(frame).await;
    // The next message need not wait for the host; the VM must stay awake for it.
    tokio::spawn(async move {
        if arrived.await.is_ok() {
            note_sent(&log, &msg_id).await;
        }
        drop(held);
        if let Some((session, msg_id)) = restart {
            crate::restart::request(&shared, &session, &msg_id).await;
        }
    });
}

/// Sends an answer that is in the file and may not have arrived.
pub(crate) async fn send_again(
    shared: &Arc<Shared>,
    log: &SessionLog,
    session: &SessionKey,
    exchange: &Exchange,
) {
    let (Some(msg_id), Some(turn)) = (exchange.msg_id(), exchange.answer()) else {
        return;
    };
    let text = turn.answer.clone().unwrap_or_else(|| turn.content.text());
    let ending = match (turn.failed, turn.cancelled) {
        (_, true) => Ending::Cancelled,
        (true, false) => Ending::Failed,
        (false, false) => Ending::Complete,
    };
    let held = shared.lease.hold();
    let frame = frame::done(session, msg_id, &text, &turn.attached, ending);
    let arrived = shared.outbox.send(frame).await;
    let (log, msg_id) = (log.clone(), msg_id.to_owned());
    tokio::spawn(async move {
        if arrived.await.is_ok() {
            note_sent(&log, &msg_id).await;
        }
        drop(held);
    });
}

async fn note_sent(log: &SessionLog, msg_id: &str) {
    if let Err(error) = log.note(Turn::note(SENT, Some(msg_id))).await {
        tracing::warn!(
            error = chain(&error),
            "Cannot note that an answer arrived, ignoring"
        );
    }
}

fn said(text: &str) -> Outcome {
    Outcome {
        last: text.to_owned(),
        text: text.to_owned(),
        ..Outcome::default()
    }
}

/// An id that is used once.
#[must_use]
pub(crate) fn random_id() -> String {
    // Where there is no randomness the time has to do.
    let number = getrandom::u64()
        .unwrap_or_else(|_| u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0));
    format!("agent-{number:016x}")
}
