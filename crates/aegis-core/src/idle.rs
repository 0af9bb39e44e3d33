//! When an instance that nobody needs falls asleep. Pure.
//!
//! ```text
//!  needed ──► quiet ── pause after ──► paused ── hibernate after ──► hibernated
//!     ▲         │                        │                               │
//!     └─────────┴──────── any need ──────┴───────────────────────────────┘
//! ```
//!
//! What is a need: a connection, an exec session, a client on the command's terminal,
//! a [`Lease`], and what the guest does of itself above the [`Noise`] that an idle one
//! makes. Both delays count from the end of the last need.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration::Span;
use crate::lifecycle::VmState;

/// Longest delay: a guard against slips of a unit.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Most leases of an instance.
pub const MAX_LEASES: usize = 64;
/// Longest text that says what a lease is for, in bytes.
pub const MAX_REASON: usize = 200;

/// How long something is waited for, if ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Delay {
    /// One second to one year, in whole seconds.
    After(Duration),
    Never,
}

/// A text that is no delay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no idle time: write e.g. 60s, 5m or 1h30m, from 1s to 365d, or never")]
pub struct NoDelay(String);

impl Delay {
    /// The delay, unless it is never.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::After(delay) => Some(delay),
            Self::Never => None,
        }
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(delay) => Span(*delay).fmt(f),
            Self::Never => f.write_str("never"),
        }
    }
}

impl FromStr for Delay {
    type Err = NoDelay;

    fn from_str(text: &str) -> Result<Self, NoDelay> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let span = text.parse::<Span>().ok();
        span.map(|Span(delay)| delay)
            .filter(|delay| (Duration::from_secs(1)..=LONGEST).contains(delay))
            .map(Self::After)
            .ok_or_else(|| NoDelay(text.to_owned()))
    }
}

impl TryFrom<String> for Delay {
    type Error = NoDelay;

    fn try_from(text: String) -> Result<Self, NoDelay> {
        text.parse()
    }
}

impl From<Delay> for String {
    fn from(delay: Delay) -> Self {
        delay.to_string()
    }
}

/// When an instance falls asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdlePolicy {
    pub pause: Delay,
    pub hibernate: Delay,
}

impl Default for IdlePolicy {
    fn default() -> Self {
        Self {
            pause: Delay::After(Duration::from_secs(60)),
            hibernate: Delay::After(Duration::from_secs(5 * 60)),
        }
    }
}

/// A way to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sleep {
    /// Memory is kept, no CPU is used.
    Pause,
    /// Memory is on the disk, no process is left.
    Hibernate,
}

impl IdlePolicy {
    /// How a VM in a state falls asleep next, and how long after its last need.
    /// Where hibernation cannot be had (`can_hibernate`), pausing takes its place.
    pub fn next(self, state: VmState, can_hibernate: bool) -> Option<(Sleep, Duration)> {
        let (pause, hibernate) = (self.pause.duration(), self.hibernate.duration());
        match (state, can_hibernate) {
            (VmState::Running, true) => match (pause, hibernate) {
                (Some(pause), Some(hibernate)) if hibernate <= pause => {
                    Some((Sleep::Hibernate, hibernate))
                }
                (Some(pause), _) => Some((Sleep::Pause, pause)),
                (None, hibernate) => hibernate.map(|delay| (Sleep::Hibernate, delay)),
            },
            (VmState::Running, false) => {
                let delay = pause.into_iter().chain(hibernate).min();
                delay.map(|delay| (Sleep::Pause, delay))
            }
            (VmState::Paused, true) => hibernate.map(|delay| (Sleep::Hibernate, delay)),
            _ => None,
        }
    }
}

/// What somebody wants an instance awake for, for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Tells leases apart; a new one takes the place of that with the same reason.
    pub reason: String,
    /// Its end, in microseconds since 1970.
    pub until: u64,
}

/// Why a lease is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    #[error("the reason of a lease must be 1 to {MAX_REASON} bytes without control characters")]
    Reason,
    #[error("a lease must be for 1s to 365d, not {0}")]
    Time(Span),
    #[error("the instance has {MAX_LEASES} leases, and more cannot be")]
    Many,
}

impl Lease {
    /// A lease that begins now (in microseconds since 1970).
    ///
    /// # Errors
    /// Its time or its reason is out of bounds.
    pub fn new(reason: &str, time: Duration, now: u64) -> Result<Self, LeaseError> {
        let is_fit = !reason.is_empty() && reason.len() <= MAX_REASON;
        if !is_fit || reason.chars().any(char::is_control) {
            return Err(LeaseError::Reason);
        }
        if !(Duration::from_secs(1)..=LONGEST).contains(&time) {
            return Err(LeaseError::Time(Span(time)));
        }
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Ok(Self {
            reason: reason.to_owned(),
            until: now.saturating_add(micros),
        })
    }

    /// Whether it has ended by now, in microseconds since 1970.
    pub fn is_over(&self, now: u64) -> bool {
        self.until <= now
    }
}

/// What a machine has used since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Of all processors of the host together.
    pub cpu: Duration,
    /// Bytes read from disks and written to them.
    pub disk: u64,
    /// Bytes carried to the network and from it.
    pub network: u64,
}

/// What an idle guest uses up: its clock ticks, its file system writes its journal, its
/// neighbours on the network ask who it is. docs/SLEEP.md has the measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Share of one processor of the host.
    pub cpu: f64,
    /// What a look costs by itself, and the tick that CPU time is counted in.
    pub cpu_slack: Duration,
    /// Bytes per second.
    pub disk: f64,
    /// Bytes that come at once and mean nothing, however short the time between two
    /// looks: a commit of the journal.
    pub disk_burst: u64,
    /// Bytes per second.
    pub network: f64,
    /// As with the disk: a few questions of neighbours.
    pub network_burst: u64,
}

/// The noise of a guest that does nothing.
pub const NOISE: Noise = Noise {
    cpu: 0.05,
    cpu_slack: Duration::from_millis(20),
    disk: 16.0 * 1024.0,
    disk_burst: 64 * 1024,
    network: 256.0,
    network_burst: 4 * 1024,
};

impl Activity {
    /// What the guest did between two looks that an idle one does not, in words.
    pub fn above_noise(self, before: Self, time: Duration) -> Option<&'static str> {
        let cpu = self.cpu.saturating_sub(before.cpu);
        if cpu > time.mul_f64(NOISE.cpu) + NOISE.cpu_slack {
            return Some("the guest computes");
        }
        #[allow(
            clippy::cast_precision_loss,
            reason = "bytes between two looks are far below 2^52"
        )]
        let exceeds = |bytes: u64, per_second: f64, burst: u64| {
            bytes > burst && bytes as f64 > per_second * time.as_secs_f64()
        };
        let disk = self.disk.saturating_sub(before.disk);
        if exceeds(disk, NOISE.disk, NOISE.disk_burst) {
            return Some("the guest uses its disk");
        }
        let network = self.network.saturating_sub(before.network);
        exceeds(network, NOISE.network, NOISE.network_burst).then_some("the guest uses the network")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_delay_is_a_duration_or_never() {
        for (text, shown) in [("60s", "1m"), ("90", "1m30s"), ("never", "never")] {
            let delay: Delay = text.parse().unwrap();
            assert_eq!(delay.to_string(), shown);
            assert_eq!(shown.parse(), Ok(delay));
        }
        for text in ["", "0", "0s", "366d", "soon", "-1s"] {
            assert!(text.parse::<Delay>().is_err(), "{text}");
        }
    }

    #[test]
    fn pausing_comes_first_and_takes_the_place_of_what_cannot_be_had() {
        let policy = IdlePolicy::default();
        let running = |policy: IdlePolicy, can| policy.next(VmState::Running, can);
        assert_eq!(running(policy, true), Some((Sleep::Pause, MINUTE)));
        assert_eq!(
            policy.next(VmState::Paused, true),
            Some((Sleep::Hibernate, 5 * MINUTE))
        );
        assert_eq!(policy.next(VmState::Paused, false), None);
        let straight = IdlePolicy {
            pause: Delay::Never,
            ..policy
        };
        assert_eq!(
            running(straight, true),
            Some((Sleep::Hibernate, 5 * MINUTE))
        );
        assert_eq!(running(straight, false), Some((Sleep::Pause, 5 * MINUTE)));
        let never = IdlePolicy {
            pause: Delay::Never,
            hibernate: Delay::Never,
        };
        assert_eq!(running(never, true), None);
        for state in VmState::ALL {
            if !matches!(state, VmState::Running | VmState::Paused) {
                assert_eq!(policy.next(state, true), None);
            }
        }
    }

    #[test]
    fn noise_is_no_activity_and_work_is() {
        let before = Activity::default();
        let after = |cpu_ms, disk, network| Activity {
            cpu: Duration::from_millis(cpu_ms),
            disk,
            network,
        };
        let look = |now: Activity| now.above_noise(before, Duration::from_secs(10));
        assert_eq!(look(after(400, 0, 0)), None);
        assert_eq!(look(after(600, 0, 0)), Some("the guest computes"));
        assert_eq!(look(after(0, 100_000, 0)), None);
        assert_eq!(look(after(0, 200_000, 0)), Some("the guest uses its disk"));
        assert_eq!(look(after(0, 0, 4_000)), None);
        assert_eq!(look(after(0, 0, 5_000)), Some("the guest uses the network"));
        // A machine that was started anew counts from nothing.
        assert_eq!(before.above_noise(after(900, 9, 9), MINUTE), None);
    }

    #[test]
    fn leases_have_bounds() {
        let lease = Lease::new("backup", MINUTE, 7).unwrap();
        assert_eq!(lease.until, 60_000_007);
        assert!(!lease.is_over(60_000_006) && lease.is_over(60_000_007));
        for reason in ["", "a\nb", &"x".repeat(MAX_REASON + 1)] {
            assert_eq!(Lease::new(reason, MINUTE, 0), Err(LeaseError::Reason));
        }
        let zero = Lease::new("x", Duration::ZERO, 0);
        assert_eq!(zero, Err(LeaseError::Time(Span(Duration::ZERO))));
    }
}
