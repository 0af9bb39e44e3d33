//! A restart that the agent asked for: after its answer, with a message once it is back.
//!
//! `restart-pending.json` names the session that is waiting for that message.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::agent::Shared;
use crate::frame::{self, SessionKey};
use crate::provider::exchange::chain;

/// Upstream's file, with the id of the message that led to the restart.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    #[serde(flatten)]
    session: SessionKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    msg_id: Option<String>,
}

fn marker(workspace: &Path) -> PathBuf {
    workspace.join(".aegis/restart-pending.json")
}

/// Asks the host for the restart.
pub(crate) async fn request(shared: &Shared, session: &SessionKey, msg_id: &str) {
    let path = marker(&shared.workspace);
    let pending = Pending {
        session: session.clone(),
        msg_id: Some(msg_id.to_owned()),
    };
    let text = serde_json::to_string(&pending).unwrap_or_default();
    if let Err(error) = std::fs::write(&path, text) {
        tracing::warn!(%error, "Cannot note the restart, ignoring");
    }
    if let Err(error) = shared.api.restart().await {
        tracing::error!(error = chain(&error), "Cannot restart");
        remove(&path);
        let id = frame::derived_id("restart-", msg_id);
        let text = format!("The restart failed: {}", chain(&error));
        drop(
            shared
                .outbox
                .send(frame::message(session, id, &text, &[]))
                .await,
        );
    }
}

/// Tells whoever waits for it that the restart is over.
pub(crate) async fn announce(shared: &Shared) {
    let path = marker(&shared.workspace);
    let Ok(text) = std::fs::read_to_string(&path) else {
        return;
    };
    match serde_json::from_str::<Pending>(&text) {
        Ok(Pending { session, msg_id }) => {
            // The same after a crash in between, so that it is said once.
            let of = msg_id.unwrap_or_else(|| text.clone());
            let id = frame::derived_id("restart-", &frame::answer_id(&of));
            let frame = frame::message(&session, id, "Restart complete.", &[]);
            // An error would be the outbox's end, which is the agent's.
            drop(shared.outbox.send(frame).await.await);
        }
        Err(_) => tracing::warn!("restart-pending.json is not valid, ignoring it"),
    }
    remove(&path);
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(%error, "Cannot remove restart-pending.json, ignoring");
    }
}
