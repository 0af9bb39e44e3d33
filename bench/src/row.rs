//! One line of the report.

use serde::{Deserialize, Serialize};

/// A figure beside the floor or peer that was measured in the same run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The unit of the figures.
    pub(crate) unit: String,
    /// Ours; the median where it was measured more than once.
    pub(crate) value: f64,
    /// What it is held against, and its figure in the same unit.
    pub(crate) against: Option<(String, f64)>,
    /// The goal: a ratio where there is something to hold it against, else a figure.
    pub(crate) goal: Option<f64>,
}

impl Row {
    /// A figure alone.
    #[must_use]
    pub(crate) fn new(what: impl Into<String>, unit: &str, value: f64) -> Self {
        Self {
            what: what.into(),
            unit: unit.to_owned(),
            value,
            against: None,
            goal: None,
        }
    }

    /// Beside a floor or a peer.
    #[must_use]
    pub(crate) fn against(mut self, name: impl Into<String>, value: f64) -> Self {
        self.against = Some((name.into(), value));
        self
    }

    /// With a goal that must not be exceeded.
    #[must_use]
    pub(crate) fn goal(mut self, goal: f64) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Ours as a multiple of the other one's.
    #[must_use]
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (_, other) = self.against.as_ref()?;
        (*other > 0.0).then(|| self.value / other)
    }

    /// Whether the goal is met; `None` without one.
    #[must_use]
    pub(crate) fn is_met(&self) -> Option<bool> {
        let reached = self.ratio().unwrap_or(self.value);
        self.goal.map(|goal| reached <= goal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_a_ratio_where_there_is_a_floor() {
        let row = Row::new("start", "ms", 30.0)
            .against("floor", 20.0)
            .goal(1.5);
        assert_eq!((row.ratio(), row.is_met()), (Some(1.5), Some(true)));
        let row = Row::new("memory", "MB", 26.0).goal(25.0);
        assert_eq!((row.ratio(), row.is_met()), (None, Some(false)));
    }
}
