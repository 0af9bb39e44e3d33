//! When to try again.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::error::SourceError;

/// How often in a row a request may fail before it is given up: with the waits
/// between them 10 to 20 s, which outlasts the restart of a registry.
const FAILURES: u32 = 6;
/// How often it may fail in all, if something comes each time.
const FAILURES_IN_ALL: u32 = 100;
/// The first wait; each later one is twice as long.
const FIRST: Duration = Duration::from_millis(300);
/// Longest wait that a registry may ask for.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: SourceError,
    pub(super) again: Again,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug)]
pub(super) enum Again {
    Never,
    /// After the wait the registry asked for, or one of our own.
    After(Option<Duration>),
}

impl Failure {
    pub(super) fn last(error: SourceError) -> Self {
        Self {
            error,
            again: Again::Never,
        }
    }

    pub(super) fn passing(error: SourceError) -> Self {
        Self {
            error,
            again: Again::After(None),
        }
    }
}

/// The tries of one request.
#[derive(Debug, Default)]
pub(super) struct Pace {
    in_row: u32,
    in_all: u32,
}

impl Pace {
    /// Something came: failures in a row begin anew.
    pub(super) fn progress(&mut self) {
        self.in_row = 0;
    }

    /// Waits for the next try.
    ///
    /// # Errors
    /// There should be none.
    pub(super) async fn after(&mut self, failure: Failure) -> Result<(), SourceError> {
        match self.wait(failure.again, random()) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(failure.error),
        }
    }

    /// How long to wait. `random` is from 0 to 255 and keeps clients that failed
    /// together from coming back together.
    fn wait(&mut self, again: Again, random: u8) -> Option<Duration> {
        let Again::After(asked) = again else {
            return None;
        };
        self.in_row += 1;
        self.in_all += 1;
        if self.in_row >= FAILURES || self.in_all >= FAILURES_IN_ALL {
            return None;
        }
        let own = FIRST * 2u32.pow(self.in_row - 1);
        let jitter = own * u32::from(random) / 255;
        match asked {
            // Coming back sooner would be refused again.
            Some(asked) if asked > LONGEST => None,
            Some(asked) => Some(asked + jitter / 4),
            None => Some(own + jitter),
        }
    }
}

fn random() -> u8 {
    let mut byte = [0];
    // Without randomness the wait is the shortest; that breaks nothing.
    getrandom::fill(&mut byte).ok();
    byte[0]
}

/// The `Retry-After` header: seconds or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = header.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new()
        .parse_timestamp(header)
        .ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let mut pace = Pace::default();
        let waits: Vec<_> = std::iter::from_fn(|| pace.wait(Again::After(None), 0)).collect();
        assert_eq!(waits.len(), 5);
        assert!(waits.windows(2).all(|pair| pair[1] == pair[0] * 2));
        pace.progress();
        assert_eq!(pace.wait(Again::After(None), 255), Some(FIRST * 2));
        assert_eq!(Pace::default().wait(Again::Never, 0), None);
    }

    #[test]
    fn progress_does_not_make_tries_endless() {
        let mut pace = Pace::default();
        let tries = std::iter::from_fn(|| {
            pace.progress();
            pace.wait(Again::After(None), 0)
        });
        assert_eq!(tries.count() + 1, FAILURES_IN_ALL as usize);
    }

    #[test]
    fn what_the_registry_asks_for_is_obeyed_within_bounds() {
        let asked = |seconds| Again::After(Some(Duration::from_secs(seconds)));
        assert!(Pace::default().wait(asked(7), 0) >= Some(Duration::from_secs(7)));
        assert_eq!(Pace::default().wait(asked(3600), 0), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:30Z".parse().unwrap();
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(retry_after("12", now), Some(Duration::from_secs(12)));
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(7)));
        let later: Timestamp = "1995-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(retry_after(date, later), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
