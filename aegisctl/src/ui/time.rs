//! Times as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_core::duration::Span;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A moment, given in microseconds since 1970, in local time with how far it is; empty
/// for 0.
pub(crate) fn moment(unix_us: u64) -> String {
    let timestamp = i64::try_from(unix_us)
        .ok()
        .filter(|&us| us > 0)
        .and_then(|us| Timestamp::from_microsecond(us).ok());
    match timestamp {
        None => String::new(),
        Some(timestamp) => {
            let local = timestamp.to_zoned(TimeZone::system());
            format!(
                "{} ({})",
                local.strftime("%Y-%m-%d %H:%M:%S %Z"),
                distance(unix_us)
            )
        }
    }
}

/// A moment, given in microseconds since 1970, in local time to the microsecond
/// (RFC 3339).
pub(crate) fn local(unix_us: u64) -> String {
    let timestamp = i64::try_from(unix_us)
        .ok()
        .and_then(|us| Timestamp::from_microsecond(us).ok());
    timestamp.map_or_else(String::new, |timestamp| {
        let local = timestamp.to_zoned(TimeZone::system());
        local.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string()
    })
}

/// A span as people read it, in its largest unit.
pub(crate) fn span_words(elapsed: Duration) -> String {
    span(elapsed)
}

/// How long ago a moment, given in microseconds since 1970, was; empty for 0.
pub(crate) fn age(unix_us: u64) -> String {
    if unix_us == 0 {
        return String::new();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let elapsed = now
        .unwrap_or_default()
        .saturating_sub(Duration::from_micros(unix_us));
    format!("{} ago", span(elapsed))
}

/// How far ahead a moment, given in microseconds since 1970, is.
pub(crate) fn ahead(unix_us: u64) -> String {
    left_to(unix_us).unwrap_or_else(|| "now".to_owned())
}

fn distance(unix_us: u64) -> String {
    left_to(unix_us).unwrap_or_else(|| age(unix_us))
}

fn left_to(unix_us: u64) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let left = Duration::from_micros(unix_us).checked_sub(now.unwrap_or_default())?;
    let seconds = left.as_secs();
    (seconds > 0).then(|| format!("in {}", Span(Duration::from_secs(seconds))))
}

fn span(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_one_unit() {
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (60, "1 minute"),
            (7_200, "2 hours"),
            (200_000, "2 days"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn moments_carry_their_zone_and_age() {
        let text = moment(1_700_000_000_000_000);
        assert!(text.starts_with("2023-11-1"), "{text}");
        assert!(text.ends_with("days ago)"), "{text}");
        assert_eq!(moment(0), "");
    }
}
