//! Moments as people type them.

use std::str::FromStr;
use std::time::Duration;

use aegis_core::duration::Span;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// A text that is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a time: write a duration before now (10m, -1h), a date (2026-02-28), a date with a time \
     (2026-02-28 13:45), RFC 3339 (2026-02-28T13:45:00Z) or seconds since 1970 (@1700000000)"
)]
pub(crate) struct NoMoment;

/// A moment, absolute or before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// In microseconds since 1970.
    At(u64),
    Ago(Duration),
}

impl Moment {
    /// In microseconds since 1970, seen from a now.
    pub(crate) fn at_us(self, now_us: u64) -> u64 {
        match self {
            Self::At(us) => us,
            Self::Ago(ago) => {
                now_us.saturating_sub(u64::try_from(ago.as_micros()).unwrap_or(u64::MAX))
            }
        }
    }
}

impl FromStr for Moment {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Self, NoMoment> {
        if text == "now" {
            return Ok(Self::Ago(Duration::ZERO));
        }
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let looks_like_date = text.contains('-') && !text.starts_with('-');
        if let Some(seconds) = text.strip_prefix('@') {
            let seconds: u64 = seconds.parse().map_err(|_| NoMoment)?;
            return seconds.checked_mul(1_000_000).map(Self::At).ok_or(NoMoment);
        }
        // A bare number could be either; nobody should have to guess.
        if !looks_like_date && unsigned.ends_with(|c: char| c.is_ascii_alphabetic()) {
            let span: Span = unsigned.parse().map_err(|_| NoMoment)?;
            return Ok(Self::Ago(span.0));
        }
        let local = |time: DateTime| {
            time.to_zoned(TimeZone::system())
                .map(|zoned| zoned.timestamp())
        };
        let timestamp = text
            .parse::<Timestamp>()
            .or_else(|_| text.parse::<DateTime>().and_then(local))
            .or_else(|_| text.parse::<Date>().and_then(|date| local(date.into())))
            .map_err(|_| NoMoment)?;
        let micros = u64::try_from(timestamp.as_microsecond());
        micros.map(Self::At).map_err(|_| NoMoment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_absolute_or_before_now() {
        let hour = Moment::Ago(Duration::from_secs(3600));
        assert_eq!("1h".parse(), Ok(hour));
        assert_eq!("-1h".parse(), Ok(hour));
        assert_eq!(hour.at_us(3_600_000_005), 5);
        let at = Moment::At(1_700_000_000_000_000);
        assert_eq!("@1700000000".parse(), Ok(at));
        assert_eq!("2023-11-14T22:13:20Z".parse(), Ok(at));
        assert_eq!("2023-11-14T23:13:20+01:00".parse(), Ok(at));
        for text in ["2023-11-14", "2023-11-14 22:13", "2023-11-14T22:13:20"] {
            assert!(matches!(text.parse(), Ok(Moment::At(_))), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "12",
            "2023-13-01",
            "-2023-11-14",
            "--1h",
            "@x",
        ] {
            assert_eq!(text.parse::<Moment>(), Err(NoMoment), "{text}");
        }
    }
}
