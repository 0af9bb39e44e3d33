//! What a snapshot depends on: it is of use only where all of it is the same again.
//!
//! A stamp is a list of named facts, so that a difference can say what differs.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Longest fact that a difference repeats, in characters.
const TOLD: usize = 100;

/// How far two measurements of one counter may be apart, in parts of a million. Each
/// is right to 20; the guest's clock is set after a restore, and what is left makes
/// it drift by no more than an ordinary crystal does over a day.
const TSC_TOLERANCE_PPM: u64 = 200;

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    what: String,
    is: String,
    /// May be told to people and logs.
    told: bool,
}

/// The facts of one kind, in an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    marks: Vec<Mark>,
    /// Of the guest's time stamp counter, where it is the host's.
    tsc_khz: Option<u32>,
}

impl Stamp {
    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, what: impl Into<String>, is: impl fmt::Display) -> Self {
        self.marks.push(Mark {
            what: what.into(),
            is: is.to_string(),
            told: true,
        });
        self
    }

    /// Adds a fact whose value stays where it is.
    #[must_use]
    pub fn with_quiet(mut self, what: impl Into<String>, is: &impl fmt::Debug) -> Self {
        self.marks.push(Mark {
            what: what.into(),
            is: format!("{is:?}"),
            told: false,
        });
        self
    }

    /// Adds what tells one state of a file from another.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn with_file(self, what: impl Into<String>, path: &Path) -> io::Result<Self> {
        Ok(self.with(what, FileMark::of(path)?))
    }

    /// Adds all facts of another stamp.
    #[must_use]
    pub fn and(mut self, other: Stamp) -> Self {
        self.marks.extend(other.marks);
        self.tsc_khz = self.tsc_khz.or(other.tsc_khz);
        self
    }

    /// Adds the frequency of the guest's time stamp counter.
    #[must_use]
    pub fn with_tsc(mut self, khz: Option<u32>) -> Self {
        self.tsc_khz = khz;
        self
    }

    /// What is first not the same in `now`.
    pub fn difference(&self, now: &Stamp) -> Option<Difference> {
        let differs = |what: &str, was: Option<&Mark>, now: Option<&Mark>| Difference {
            what: what.to_owned(),
            was: Told::of(was),
            now: Told::of(now),
        };
        for mark in &self.marks {
            let other = now.marks.iter().find(|other| other.what == mark.what);
            if other.is_none_or(|other| other.is != mark.is) {
                return Some(differs(&mark.what, Some(mark), other));
            }
        }
        let known = |mark: &&Mark| self.marks.iter().any(|other| other.what == mark.what);
        if let Some(new) = now.marks.iter().find(|mark| !known(mark)) {
            return Some(differs(&new.what, None, Some(new)));
        }
        let tsc = |khz: Option<u32>| match khz {
            Some(khz) => Told::Words(format!("{khz} kHz")),
            None => Told::Words("not known".to_owned()),
        };
        (!same_frequency(self.tsc_khz, now.tsc_khz)).then(|| Difference {
            what: "the frequency of the host's time stamp counter".to_owned(),
            was: tsc(self.tsc_khz),
            now: tsc(now.tsc_khz),
        })
    }
}

fn same_frequency(was: Option<u32>, now: Option<u32>) -> bool {
    match (was, now) {
        (None, None) => true,
        (Some(was), Some(now)) => {
            u64::from(was.abs_diff(now)) * 1_000_000 <= u64::from(was) * TSC_TOLERANCE_PPM
        }
        _ => false,
    }
}

/// What tells one state of a file from another: its place, size, and when it was
/// last written.
#[derive(Debug)]
struct FileMark {
    path: String,
    size: u64,
    /// Nanoseconds since 1970.
    written_ns: i128,
}

impl FileMark {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = path.metadata()?;
        Ok(Self {
            path: path.display().to_string(),
            size: meta.size(),
            written_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        })
    }
}

impl fmt::Display for FileMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            size,
            written_ns,
        } = self;
        write!(f, "{path} of {size} bytes, written at {written_ns} ns")
    }
}

/// What is not the same any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    what: String,
    was: Told,
    now: Told,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Words(String),
    /// Too long, or nobody's business.
    Untold,
    Absent,
}

impl Told {
    fn of(mark: Option<&Mark>) -> Self {
        match mark {
            None => Self::Absent,
            Some(mark) if mark.told && mark.is.len() <= TOLD => Self::Words(mark.is.clone()),
            Some(_) => Self::Untold,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = &self.what;
        match (&self.was, &self.now) {
            (Told::Words(was), Told::Words(now)) => write!(f, "{what} is now {now}, it was {was}"),
            (Told::Absent, Told::Words(now)) => write!(f, "{what} is new: {now}"),
            (Told::Absent, _) => write!(f, "{what} is new"),
            (Told::Words(was), Told::Absent) => write!(f, "{what} is gone, it was {was}"),
            (_, Told::Absent) => write!(f, "{what} is gone"),
            _ => write!(f, "{what} has changed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(was: &Stamp, now: &Stamp) -> Option<String> {
        was.difference(now).map(|difference| difference.to_string())
    }

    #[test]
    fn a_difference_says_what_differs() {
        let was = Stamp::default()
            .with("QEMU", "10.0.2")
            .with("the disk", "a")
            .with_quiet("the environment", &["SECRET=1"]);
        assert_eq!(difference(&was, &was.clone()), None);
        let now = Stamp::default()
            .with("QEMU", "10.0.3")
            .with("the disk", "a")
            .with_quiet("the environment", &["SECRET=1"]);
        let said = difference(&was, &now).unwrap();
        assert_eq!(said, "QEMU is now 10.0.3, it was 10.0.2");
        let now = Stamp::default()
            .with("QEMU", "10.0.2")
            .with("the disk", "a")
            .with_quiet("the environment", &["SECRET=2"]);
        let said = difference(&was, &now).unwrap();
        assert_eq!(said, "the environment has changed");
        let now = was.clone().with("the network", "open");
        assert_eq!(difference(&was, &now).unwrap(), "the network is new: open");
        assert_eq!(
            difference(&now, &was).unwrap(),
            "the network is gone, it was open"
        );
    }

    #[test]
    fn a_counter_that_was_measured_twice_is_the_same_counter() {
        let stamp = |khz| Stamp::default().with_tsc(khz);
        let was = stamp(Some(2_250_000));
        assert_eq!(was.difference(&stamp(Some(2_250_100))), None);
        assert!(was.difference(&stamp(Some(2_251_000))).is_some());
        assert!(was.difference(&stamp(None)).is_some());
        assert_eq!(stamp(None).difference(&stamp(None)), None);
    }
}
