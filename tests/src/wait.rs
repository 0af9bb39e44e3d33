//! Waiting for a condition with a deadline instead of sleeping for a guess.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is asked: short beside what is waited for, long
/// beside the cost of asking.
const INTERVAL: Duration = Duration::from_millis(50);

/// Asks `condition` until it is true.
///
/// # Errors
/// The first error of `condition`, or that `deadline` passed; the text then
/// names `what`.
pub fn wait_until(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    wait_for(deadline, what, || Ok(condition()?.then_some(())))
}

/// Asks `probe` until it gives a value.
///
/// # Errors
/// As [`wait_until`].
pub fn wait_for<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() >= deadline {
            bail!("waited {} s for {what}", deadline.as_secs());
        }
        std::thread::sleep(INTERVAL);
    }
}
