//! The report: a table on the terminal and in `docs/BENCHMARKS.md`, whose prose
//! is written by hand and stays.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::row::Row;

/// Between these lines of the document stands the table of the last run.
const BEGIN: &str = "<!-- figures: written by make bench -->";
const END: &str = "<!-- end of figures -->";

/// The rows as a Markdown table.
#[must_use]
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("| measured | ours | held against | ratio | goal |\n|---|---|---|---|---|\n");
    for row in rows {
        let against = row
            .against
            .as_ref()
            .map_or("–".to_owned(), |(name, value)| {
                format!("{name}: {} {}", figure(*value), row.unit)
            });
        let ratio = row
            .ratio()
            .map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        let goal = match (row.goal, row.is_met()) {
            (Some(goal), Some(true)) => format!("≤ {goal}: met"),
            (Some(goal), _) => format!("≤ {goal}: **not met**"),
            _ => "–".to_owned(),
        };
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "| {} | {} {} | {against} | {ratio} | {goal} |",
            row.what,
            figure(row.value),
            row.unit
        );
    }
    text
}

/// Puts the table of this run into the document.
///
/// # Errors
/// The document cannot be read or written, or lost its markers.
pub(crate) fn write(document: &Path, heading: &str, rows: &[Row]) -> Result<()> {
    let old =
        fs::read_to_string(document).with_context(|| format!("reading {}", document.display()))?;
    let (before, rest) = old
        .split_once(BEGIN)
        .with_context(|| format!("{} has no line '{BEGIN}'", document.display()))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{} has no line '{END}'", document.display()))?;
    let new = format!("{before}{BEGIN}\n{heading}\n\n{}{END}{after}", table(rows));
    fs::write(document, new).with_context(|| format!("writing {}", document.display()))
}

/// Three digits that say something.
fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_figures_of_the_document_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("B.md");
        fs::write(&path, format!("prose\n{BEGIN}\nold\n{END}\nmore\n")).unwrap();
        let rows = [Row::new("start", "ms", 30.0)
            .against("floor", 20.0)
            .goal(1.2)];
        write(&path, "today", &rows).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("prose\n") && text.ends_with("\nmore\n"));
        assert!(text.contains("| start | 30.0 ms | floor: 20.0 ms | 1.50 | ≤ 1.2: **not met** |"));
        assert!(!text.contains("old"));
    }
}
