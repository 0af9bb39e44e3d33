//! What the service manager shows of this process (`systemctl status`), and what is missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sd_notify::NotifyState;

/// A line for each part of the program; cheap to clone. A change is logged, and sent to the
/// service manager where it asks for such (`NOTIFY_SOCKET`).
#[derive(Clone, Debug, Default)]
pub struct Status {
    parts: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Status {
    /// What a part does, or what it waits for.
    pub fn set(&self, part: &'static str, text: impl Into<String>) {
        let text = text.into();
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.get(part) == Some(&text) {
            return;
        }
        tracing::info!("{part}: {text}");
        parts.insert(part, text);
        tell(&[NotifyState::Status(&line(&parts))]);
    }

    /// The part is no more.
    pub fn clear(&self, part: &'static str) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.remove(part).is_some() {
            tell(&[NotifyState::Status(&line(&parts))]);
        }
    }
}

/// The process has started: it reads its config and follows it.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The process is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn line(parts: &BTreeMap<&'static str, String>) -> String {
    let parts: Vec<_> = parts
        .iter()
        .map(|(part, text)| format!("{part}: {text}"))
        .collect();
    parts.join("; ")
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("cannot notify the service manager, ignoring: {error}");
    }
}
