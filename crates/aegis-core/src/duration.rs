//! Durations as people type and read them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration in whole seconds: numbers with units (s, m, h, d, w), as in `1h30m`, or
/// a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A text that is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: write e.g. 90s, 10m, 1h30m, 7d or 2w")]
pub struct NoSpan;

/// Seconds of the units that durations are shown in, the largest first. Weeks are read
/// and not shown: nobody counts 100 days in them.
const UNITS: [(u64, &str); 4] = [(24 * 3600, "d"), (3600, "h"), (60, "m"), (1, "s")];

impl FromStr for Span {
    type Err = NoSpan;

    fn from_str(text: &str) -> Result<Self, NoSpan> {
        let mut rest = text;
        let mut seconds: u64 = 0;
        if rest.is_empty() {
            return Err(NoSpan);
        }
        while !rest.is_empty() {
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let number: u64 = rest[..end].parse().map_err(|_| NoSpan)?;
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
                _ => return Err(NoSpan),
            };
            let more = number.checked_mul(factor).ok_or(NoSpan)?;
            seconds = seconds.checked_add(more).ok_or(NoSpan)?;
            rest = &rest[unit_end..];
        }
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_secs();
        if left == 0 {
            return f.write_str("0s");
        }
        for (seconds, unit) in UNITS {
            if left >= seconds {
                write!(f, "{}{unit}", left / seconds)?;
                left %= seconds;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds, shown) in [
            ("90", 90, "1m30s"),
            ("90s", 90, "1m30s"),
            ("10m", 600, "10m"),
            ("1h30m", 5400, "1h30m"),
            ("7d", 604_800, "7d"),
            ("2w", 1_209_600, "14d"),
            ("0", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span, Span(Duration::from_secs(seconds)), "{text}");
            assert_eq!(span.to_string(), shown);
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
            assert_eq!(text.parse::<Span>(), Err(NoSpan), "{text}");
        }
    }
}
