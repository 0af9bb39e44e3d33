//! The lease that keeps the VM awake while answers are being made.

use std::time::Duration;

use tokio::sync::watch;

use crate::guest_api::{GuestApi, LEASE_TTL};
use crate::provider::exchange::chain;

/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(20);
// One renewal may fail without the VM going to sleep.
const _: () = assert!(RENEW.as_secs() * 2 < LEASE_TTL.as_secs());

/// Counts the answers that are being made.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    holders: watch::Sender<usize>,
}

/// Holds the lease until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    holders: watch::Sender<usize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holders.send_modify(|count| *count -= 1);
    }
}

impl Lease {
    /// A lease that nobody holds. [`Lease::keep`] is to be run beside it.
    #[must_use]
    pub(crate) fn new() -> Lease {
        Lease {
            holders: watch::Sender::new(0),
        }
    }

    /// Holds the lease.
    #[must_use]
    pub(crate) fn hold(&self) -> Held {
        self.holders.send_modify(|count| *count += 1);
        Held {
            holders: self.holders.clone(),
        }
    }

    /// Takes, renews and gives back the lease for as long as it is polled.
    pub(crate) async fn keep(&self, api: &GuestApi) -> std::convert::Infallible {
        let mut holders = self.holders.subscribe();
        loop {
            // The sender lives in self.
            drop(holders.wait_for(|count| *count > 0).await);
            loop {
                if let Err(error) = api.keep_alive().await {
                    tracing::warn!(error = chain(&error), "Cannot hold the VM awake, ignoring");
                }
                tokio::select! {
                    _ = holders.wait_for(|count| *count == 0) => break,
                    () = tokio::time::sleep(RENEW) => {}
                }
            }
            if let Err(error) = api.let_sleep().await {
                tracing::warn!(error = chain(&error), "Cannot release the VM, ignoring");
            }
        }
    }
}
