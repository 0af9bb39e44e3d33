//! What the service manager is told: sd_notify(3).
//!
//! Readiness, the state in words and the beginning of the end follow the status.
//! The sign of life for the watchdog comes from the owner's own loop and from
//! nowhere else: it proves that requests are still taken. The guest does not
//! count; a busy one is slow and no reason to kill it.

use std::time::Duration;

use aegis_core::lifecycle::VmState;
use sd_notify::NotifyState;
use tokio::time::{Interval, interval};
use tracing::warn;

use crate::status::StatusWatch;

/// The manager's own limit for a start is for the part of it that is not ours: it
/// asks for the unit's credential. From here on the deadlines of the boot count,
/// and a start that fails is tried again for as long as it takes.
const PATIENCE: NotifyState<'static> = NotifyState::Custom("EXTEND_TIMEOUT_USEC=86400000000");

/// Tells the service manager what the status says, until the owner has ended.
pub async fn follow(mut status: StatusWatch) {
    let mut ready = false;
    loop {
        let (state, words) = {
            let status = status.borrow_and_update();
            (status.state, status.words.clone())
        };
        let mut news = vec![NotifyState::Status(&words)];
        if !ready {
            news.push(PATIENCE);
        }
        if state == VmState::Running && !ready {
            ready = true;
            news.push(NotifyState::Ready);
        }
        if state == VmState::Stopping {
            news.push(NotifyState::Stopping);
        }
        send(&news);
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// The pace of a loop where no watchdog sets it.
const BEAT: Duration = Duration::from_secs(30);

/// When [`alive`] is to be said: at half of the manager's patience, as
/// sd_watchdog_enabled(3) recommends.
pub fn heartbeat() -> Interval {
    let watched = sd_notify::watchdog_enabled().map(|patience| patience / 2);
    interval(watched.unwrap_or(BEAT))
}

/// The owner's loop turns.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

fn send(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        warn!("cannot notify the service manager: {error}, ignoring");
    }
}
