//! Times as people type them: durations and moments.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TimeError {
    #[error("not a duration: write e.g. 90s, 10m, 1h30m, 7d or 2w")]
    Duration,
    #[error(
        "not a time: write a duration before now (10m, -1h), a date (2026-02-28), a date with a time \
         (2026-02-28 13:45), RFC 3339 (2026-02-28T13:45:00Z) or seconds since 1970 (@1700000000)"
    )]
    Moment,
}

/// A duration: numbers with units (s, m, h, d, w), or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let mut rest = text;
        let mut seconds: u64 = 0;
        if rest.is_empty() {
            return Err(TimeError::Duration);
        }
        while !rest.is_empty() {
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let number: u64 = rest[..end].parse().map_err(|_| TimeError::Duration)?;
            let unit_end = rest[end..]
                .find(|c: char| c.is_ascii_digit())
                .map_or(rest.len(), |at| end + at);
            let factor = match &rest[end..unit_end] {
                // A bare number alone is seconds; "1h30" is a slip.
                "" if rest.len() == text.len() => 1,
                "s" => 1,
                "m" | "min" => 60,
                "h" => 3600,
                "d" => 24 * 3600,
                "w" => 7 * 24 * 3600,
                _ => return Err(TimeError::Duration),
            };
            let more = number.checked_mul(factor).ok_or(TimeError::Duration)?;
            seconds = seconds.checked_add(more).ok_or(TimeError::Duration)?;
            rest = &rest[unit_end..];
        }
        Ok(Self(Duration::from_secs(seconds)))
    }
}

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
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        if text == "now" {
            return Ok(Self::Ago(Duration::ZERO));
        }
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let looks_like_date = text.contains('-') && !text.starts_with('-');
        if let Some(seconds) = text.strip_prefix('@') {
            let seconds: u64 = seconds.parse().map_err(|_| TimeError::Moment)?;
            return seconds
                .checked_mul(1_000_000)
                .map(Self::At)
                .ok_or(TimeError::Moment);
        }
        // A bare number could be either; nobody should have to guess.
        if !looks_like_date && unsigned.ends_with(|c: char| c.is_ascii_alphabetic()) {
            let span: Span = unsigned.parse().map_err(|_| TimeError::Moment)?;
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
            .map_err(|_| TimeError::Moment)?;
        let micros = u64::try_from(timestamp.as_microsecond());
        micros.map(Self::At).map_err(|_| TimeError::Moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5400),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("0", 0),
        ] {
            assert_eq!(
                text.parse(),
                Ok(Span(Duration::from_secs(seconds))),
                "{text}"
            );
        }
        for text in [
            "",
            "h",
            "1x",
            "1h30",
            "-5m",
            "1.5h",
            "99999999999999999999s",
            "9999999999999999w",
        ] {
            assert_eq!(text.parse::<Span>(), Err(TimeError::Duration), "{text}");
        }
    }

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
            assert_eq!(text.parse::<Moment>(), Err(TimeError::Moment), "{text}");
        }
    }
}
