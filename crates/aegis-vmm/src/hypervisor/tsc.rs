//! The frequency of the host's time stamp counter.
//!
//! Under TCG the guest's counter is the host's. No file tells its frequency to an
//! ordinary program, so it is measured against the monotonic clock.
#![allow(
    unsafe_code,
    reason = "reading the time stamp counter is an unsafe intrinsic"
)]

use std::time::{Duration, Instant};

/// Least time between the two samples. Each is right to some 50 ns, so 5 ms bound
/// the error to 20 ppm, what an ordinary crystal has; a start waits for the rest of
/// it.
const BASELINE: Duration = Duration::from_millis(5);

/// A first sample that is older is taken again: a host may have slept since, which the
/// counter counts and the clock does not.
const OLDEST: Duration = Duration::from_secs(1);

/// A measurement under way: begun early in a launch and ended late, so that the
/// baseline passes while something else is done.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    begin: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    ticks: u64,
}

impl Measurement {
    /// Takes the first sample, if the counter is constant on this host.
    pub fn begin() -> Self {
        Self {
            begin: is_constant().then(Sample::take).flatten(),
        }
    }

    /// This one, or another where this was begun too long ago.
    pub fn recent(self) -> Self {
        match self.begin {
            Some(begin) if begin.at.elapsed() > OLDEST => Self::begin(),
            _ => self,
        }
    }

    /// The frequency in kHz, after the baseline has passed.
    pub async fn khz(self) -> Option<u32> {
        let begin = self.begin?;
        tokio::time::sleep(BASELINE.saturating_sub(begin.at.elapsed())).await;
        let end = Sample::take()?;
        let micros = end.at.duration_since(begin.at).as_nanos() / 1000;
        let ticks = u128::from(end.ticks.checked_sub(begin.ticks)?);
        let khz = (ticks * 1000).checked_div(micros)?;
        u32::try_from(khz).ok().filter(|khz| *khz > 0)
    }
}

/// The frequency of a guest's counter in kHz, where it has one and that is constant.
pub async fn frequency(counter: Option<Measurement>) -> Option<u32> {
    counter?.khz().await
}

/// Whether the counter runs at one rate, asleep or not, as the kernel found.
fn is_constant() -> bool {
    let Ok(text) = std::fs::read_to_string("/proc/cpuinfo") else {
        return false;
    };
    let Some(flags) = text.lines().find(|line| line.starts_with("flags")) else {
        return false;
    };
    ["constant_tsc", "nonstop_tsc"]
        .iter()
        .all(|flag| flags.split(' ').any(|other| other == *flag))
}

impl Sample {
    #[cfg(target_arch = "x86_64")]
    fn take() -> Option<Self> {
        /// The quickest was not interrupted.
        const TRIES: usize = 8;

        // SAFETY: every x86-64 has the instruction, and user programs may use it
        // unless they asked otherwise (prctl(2), PR_SET_TSC), which we do not.
        let ticks = || unsafe { std::arch::x86_64::_rdtsc() };
        (0..TRIES)
            .map(|_| {
                let before = ticks();
                let at = Instant::now();
                let after = ticks();
                (
                    after.wrapping_sub(before),
                    Self {
                        at,
                        ticks: before / 2 + after / 2,
                    },
                )
            })
            .min_by_key(|(width, _)| *width)
            .map(|(_, sample)| sample)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn take() -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_measurements_agree_to_a_thousandth() {
        let (Some(first), Some(second)) = (
            Measurement::begin().khz().await,
            Measurement::begin().khz().await,
        ) else {
            println!("skipped: the time stamp counter of this host is not constant");
            return;
        };
        assert!(
            first.abs_diff(second) < first / 1000,
            "{first} kHz and {second} kHz"
        );
    }
}
