//! The operation that an actor has under way.

use std::future::Future;

use tokio::task::JoinHandle;

use super::work::Conclusion;

/// An operation, in a task of its own. As a part of the actor's it would stand still
/// whenever the actor waits for something else, and with it the lock on the bus
/// connection that it may hold while it sends: every actor would wait for ever.
/// Dropped, it is given up.
pub(super) struct Running(JoinHandle<Conclusion>);

impl Running {
    /// Begins once the operation that was given up before it is at rest.
    pub(super) fn begin(
        given_up: Option<Self>,
        work: impl Future<Output = Conclusion> + Send + 'static,
    ) -> Self {
        Self(tokio::spawn(async move {
            if let Some(mut before) = given_up {
                before.0.abort();
                // How it ended concerns nobody any more.
                drop((&mut before.0).await);
            }
            work.await
        }))
    }

    pub(super) async fn conclusion(&mut self) -> Conclusion {
        match (&mut self.0).await {
            Ok(conclusion) => conclusion,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only the end of the runtime gives up what is awaited here.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
