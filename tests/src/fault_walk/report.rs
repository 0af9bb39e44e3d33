//! What came of a walk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use aegis_fault_points::{Action, Order, When};
use anyhow::Result;

/// The figures and failures of a walk.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<(&'static str, Row)>,
    names: BTreeSet<String>,
    failures: Vec<String>,
    missed: Vec<String>,
}

/// One operation.
#[derive(Debug, Default)]
struct Row {
    points: usize,
    kills: u32,
    errors: u32,
    missed: u32,
    failed: u32,
    time: Duration,
}

impl Report {
    pub(super) fn recorded(&mut self, operation: &'static str, points: &[(String, When)]) {
        match self.rows.iter_mut().find(|(name, _)| *name == operation) {
            Some((_, row)) => row.points += points.len(),
            None => {
                let row = Row {
                    points: points.len(),
                    ..Row::default()
                };
                self.rows.push((operation, row));
            }
        }
        self.names
            .extend(points.iter().map(|(name, _)| name.clone()));
    }

    pub(super) fn tried(
        &mut self,
        operation: &'static str,
        order: &Order,
        time: Duration,
        result: &Result<bool>,
    ) {
        let found = self.rows.iter_mut().find(|(name, _)| *name == operation);
        let Some((_, row)) = found else { return };
        match order.action {
            Action::Kill | Action::Hold => row.kills += 1,
            Action::Fail(_) => row.errors += 1,
        }
        row.time += time;
        match result {
            Ok(true) => {}
            Ok(false) => {
                row.missed += 1;
                self.missed.push(format!("{operation}: {order}"));
            }
            Err(error) => {
                row.failed += 1;
                self.failures
                    .push(format!("{operation}: {order}: {error:#}"));
            }
        }
    }

    /// The names of all points that an operation passed.
    #[must_use]
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// What went wrong, one text a trial.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Trials whose point was not passed this time: work that another operation
    /// or an earlier look had done already.
    #[must_use]
    pub fn missed(&self) -> &[String] {
        &self.missed
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "| operation | points | killed | refused | not reached | failed | seconds |"
        )?;
        writeln!(formatter, "|---|---|---|---|---|---|---|")?;
        let mut sum: BTreeMap<&str, u64> = BTreeMap::new();
        for (operation, row) in &self.rows {
            writeln!(
                formatter,
                "| {operation} | {} | {} | {} | {} | {} | {} |",
                row.points,
                row.kills,
                row.errors,
                row.missed,
                row.failed,
                row.time.as_secs()
            )?;
            *sum.entry("points").or_default() += row.points as u64;
            *sum.entry("trials").or_default() += u64::from(row.kills + row.errors);
            *sum.entry("failed").or_default() += u64::from(row.failed);
        }
        let of = |name: &str| sum.get(name).copied().unwrap_or_default();
        write!(
            formatter,
            "\n{} passages of {} points, {} accidents, {} failures\n",
            of("points"),
            self.names.len(),
            of("trials"),
            of("failed")
        )
    }
}
