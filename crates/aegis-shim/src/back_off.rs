//! How long a daemon that fails waits before its next run. Pure: time is an
//! argument.
//!
//! ```text
//!   failure ──► failures + 1 ──► 100 ms · 2^(failures-1), at most the longest
//!   failure after a healthy run ──► 1 failure
//!   ended as wanted ──► no failures
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The delay after one failure. The manager itself waits this long
/// (`RestartSec=`), so the shim waits only what goes beyond it.
pub(crate) const FIRST_DELAY: Duration = Duration::from_millis(100);

/// What is known of a daemon's runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackOff {
    /// Failures in a row.
    pub(crate) failures: u32,
    /// When the last run began, in milliseconds since the boot `boot`.
    pub(crate) began: u64,
    /// The boot in which this was written; in another boot it says nothing.
    pub(crate) boot: String,
    /// Milliseconds after which that run is healthy: the failure that ends it then is
    /// the first.
    #[serde(default)]
    pub(crate) healthy_after: u64,
}

impl BackOff {
    /// What is known after a run that failed at `now` (milliseconds since boot).
    pub(crate) fn failed(self, now: u64) -> Self {
        let lasted = now.saturating_sub(self.began);
        let failures = if lasted >= self.healthy_after {
            1
        } else {
            self.failures.saturating_add(1)
        };
        Self { failures, ..self }
    }

    /// How long the shim waits before the next run.
    pub(crate) fn wait(&self, longest: Duration) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 2u32.checked_pow(doublings).unwrap_or(u32::MAX);
        let delay = FIRST_DELAY
            .checked_mul(factor)
            .unwrap_or(longest)
            .min(longest);
        delay.saturating_sub(FIRST_DELAY)
    }

    /// What people and aegisd read while the shim waits.
    pub(crate) fn words(&self, wait: Duration) -> String {
        let plural = if self.failures == 1 { "" } else { "s" };
        format!(
            "waiting {:.3} s after {} failure{plural}",
            wait.as_secs_f64(),
            self.failures
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(60);

    fn after(failures: u32) -> BackOff {
        BackOff {
            failures,
            ..BackOff::default()
        }
    }

    #[test]
    fn the_wait_doubles_up_to_the_longest() {
        let waits: Vec<u128> = (0..=12)
            .map(|failures| after(failures).wait(LONGEST).as_millis())
            .collect();
        assert_eq!(
            waits,
            [
                0, 0, 100, 300, 700, 1500, 3100, 6300, 12_700, 25_500, 51_100, 59_900, 59_900
            ]
        );
        assert_eq!(after(u32::MAX).wait(LONGEST), LONGEST - FIRST_DELAY);
        assert_eq!(after(5).wait(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn failures_add_up_until_a_healthy_run() {
        let short = BackOff {
            failures: 4,
            began: 1000,
            boot: String::new(),
            healthy_after: 3000,
        };
        assert_eq!(short.clone().failed(3999).failures, 5);
        assert_eq!(short.failed(4000).failures, 1);
    }

    #[test]
    fn the_words_tell_how_long_and_why() {
        assert_eq!(
            after(6).words(Duration::from_millis(3100)),
            "waiting 3.100 s after 6 failures"
        );
        assert_eq!(
            after(1).words(Duration::ZERO),
            "waiting 0.000 s after 1 failure"
        );
    }
}
