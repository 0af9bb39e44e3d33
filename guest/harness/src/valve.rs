//! Whether output is taken from programs.
//!
//! Before a guest is saved nothing of a program may be on its way: what was taken
//! is handed over, the rest stays in the pipes and terminals, where a restored
//! guest finds it. Who carries output asks the valve before each read and holds
//! it for as long as bytes are in its hands.

use std::sync::Arc;

use tokio::sync::watch;

/// Cheap to clone; all clones are the same valve, open at first.
#[derive(Debug, Clone)]
pub(crate) struct Valve {
    shut: Arc<watch::Sender<bool>>,
    held: Arc<watch::Sender<usize>>,
}

/// Bytes are in somebody's hands.
#[derive(Debug)]
pub(crate) struct Held(Arc<watch::Sender<usize>>);

impl Valve {
    pub(crate) fn new() -> Valve {
        Valve {
            shut: Arc::new(watch::Sender::new(false)),
            held: Arc::new(watch::Sender::new(0)),
        }
    }

    pub(crate) fn shut(&self) {
        self.shut.send_replace(true);
    }

    pub(crate) fn open(&self) {
        self.shut.send_replace(false);
    }

    /// Resolves while it is open.
    pub(crate) async fn opened(&self) {
        self.becomes(false).await;
    }

    /// Resolves while it is shut.
    pub(crate) async fn shutting(&self) {
        self.becomes(true).await;
    }

    pub(crate) fn hold(&self) -> Held {
        self.held.send_modify(|held| *held += 1);
        Held(Arc::clone(&self.held))
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self.held.borrow() == 0
    }

    /// Resolves while nobody holds anything.
    pub(crate) async fn empty(&self) {
        // The sender is a field of this valve, so it lives.
        self.held.subscribe().wait_for(|held| *held == 0).await.ok();
    }

    async fn becomes(&self, wanted: bool) {
        // The sender is a field of this valve, so it lives.
        let mut shut = self.shut.subscribe();
        shut.wait_for(|shut| *shut == wanted).await.ok();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}
