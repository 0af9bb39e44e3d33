//! Repeated measurements of one thing.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Measurements in milliseconds, in order of size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Runs `work` so many times.
    ///
    /// # Errors
    /// The first failure of `work`.
    pub(crate) fn time(count: usize, mut work: impl FnMut() -> Result<()>) -> Result<Self> {
        let mut samples = Self::default();
        for _ in 0..count {
            let start = Instant::now();
            work()?;
            samples.add(start.elapsed());
        }
        Ok(samples)
    }

    /// Adds a measurement.
    pub(crate) fn add(&mut self, duration: Duration) {
        self.0.push(duration.as_secs_f64() * 1e3);
        self.0.sort_by(f64::total_cmp);
    }

    /// Takes over the measurements of another.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_by(f64::total_cmp);
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The one in the middle; 0 without any.
    #[must_use]
    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }

    /// The one that 95 of 100 do not exceed; the last of few.
    #[must_use]
    pub(crate) fn p95(&self) -> f64 {
        let index = (self.0.len() * 95).div_ceil(100).saturating_sub(1);
        self.0.get(index).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_tail_of_few() {
        let mut samples = Samples::default();
        for millis in [5, 1, 3] {
            samples.add(Duration::from_millis(millis));
        }
        assert_eq!((samples.median(), samples.p95()), (3.0, 5.0));
        assert_eq!(Samples::default().p95(), 0.0);
    }
}
