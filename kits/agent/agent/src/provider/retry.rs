//! Whether a request is made again, and when. Pure.
//!
//! | what failed | again |
//! |---|---|
//! | 408, 409, 425, 429, all from 500 on (529 is Anthropic's "overloaded") | yes, after `Retry-After` where it is said |
//! | the connection, the time, a stream that is cut or malformed | yes |
//! | an error within the stream | by its kind |
//! | any other status: the key, the model, the request | no |

use std::time::Duration;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(500);
/// The longest pause of our own.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that is waited for: a user waits too.
const OBEYED: Duration = Duration::from_secs(120);

/// What failed, as far as it matters for trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Status(u16),
    Connection,
    Stream,
    /// An error of the provider within a stream that says it will not get better.
    Final,
}

/// How long to wait before the next attempt; `None` means to give up.
///
/// `attempt` counts from 0. `jitter` is random, 0 to 1: clients that fail together must
/// not come back together.
#[must_use]
pub(crate) fn pause(
    failure: Failure,
    retry_after: Option<Duration>,
    attempt: u32,
    most: u32,
    jitter: f64,
) -> Option<Duration> {
    let again = match failure {
        Failure::Status(status) => matches!(status, 408 | 409 | 425 | 429 | 500..),
        Failure::Connection | Failure::Stream => true,
        Failure::Final => false,
    };
    if !again || attempt >= most {
        return None;
    }
    if let Some(told) = retry_after {
        return (told <= OBEYED).then(|| told + FIRST.mul_f64(jitter.clamp(0.0, 1.0)));
    }
    let doubled = FIRST.saturating_mul(1 << attempt.min(16)).min(LONGEST);
    Some(doubled.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0))
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), or OpenAI's and Anthropic's
/// `retry-after-ms`.
#[must_use]
pub(crate) fn retry_after(
    seconds_or_date: Option<&str>,
    milliseconds: Option<&str>,
    now: jiff::Timestamp,
) -> Option<Duration> {
    let number = |text: &str| {
        text.trim()
            .parse::<f64>()
            .ok()
            .filter(|n| n.is_finite() && *n >= 0.0)
    };
    if let Some(milliseconds) = milliseconds.and_then(number) {
        return Duration::try_from_secs_f64(milliseconds / 1000.0).ok();
    }
    let text = seconds_or_date?;
    if let Some(seconds) = number(text) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_get_better_is_tried_again_with_growing_pauses() {
        for failure in [
            Failure::Status(429),
            Failure::Status(500),
            Failure::Status(529),
            Failure::Connection,
            Failure::Stream,
        ] {
            let pauses: Vec<_> = (0..4).map(|n| pause(failure, None, n, 4, 1.0)).collect();
            let told = [500, 1000, 2000, 4000].map(|ms| Some(Duration::from_millis(ms)));
            assert_eq!(pauses, told);
            assert_eq!(pause(failure, None, 4, 4, 1.0), None);
        }
    }

    #[test]
    fn what_stays_wrong_is_not_tried_again() {
        for status in [400, 401, 403, 404, 413, 422] {
            assert_eq!(pause(Failure::Status(status), None, 0, 4, 0.0), None);
        }
    }

    #[test]
    fn retry_after_is_obeyed_unless_it_is_too_long() {
        let told = |seconds| {
            pause(
                Failure::Status(429),
                Some(Duration::from_secs(seconds)),
                0,
                4,
                0.0,
            )
        };
        assert_eq!(told(7), Some(Duration::from_secs(7)));
        assert_eq!(told(3600), None);
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let read = |text, ms| retry_after(text, ms, now);
        assert_eq!(read(Some("2"), None), Some(Duration::from_secs(2)));
        assert_eq!(
            read(Some("2"), Some("150")),
            Some(Duration::from_millis(150))
        );
        let date = Some("Thu, 01 Jan 2026 00:00:05 GMT");
        assert_eq!(read(date, None), Some(Duration::from_secs(5)));
        assert_eq!(read(Some("-1"), None), None);
        assert_eq!(read(None, None), None);
    }
}
