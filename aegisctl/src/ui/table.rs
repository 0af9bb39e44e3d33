//! Tables: aligned columns, two spaces apart, no lines.

use crate::ui::{Tone, Ui, clean};

/// A table with a heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<(Tone, String)>>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![
                headings
                    .iter()
                    .map(|heading| (Tone::Plain, (*heading).to_owned()))
                    .collect(),
            ],
        }
    }

    /// Adds a row; an empty cell shows as `-`.
    pub(crate) fn row(&mut self, cells: Vec<(Tone, String)>) {
        let filled = cells.into_iter().map(|(tone, text)| {
            let text = clean(&text);
            (
                tone,
                if text.is_empty() {
                    "-".to_owned()
                } else {
                    text
                },
            )
        });
        self.rows.push(filled.collect());
    }

    /// The table as text. Widths are counted in characters; the last column, the
    /// only one with free text, is not padded.
    pub(crate) fn render(&self, ui: Ui) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|(_, text)| text.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut output = String::new();
        for row in &self.rows {
            for (column, (tone, text)) in row.iter().enumerate() {
                output.push_str(&ui.paint(*tone, text));
                if column + 1 < row.len() {
                    let padding = widths[column] - text.chars().count() + 2;
                    output.extend(std::iter::repeat_n(' ', padding));
                }
            }
            output.push('\n');
        }
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["HANDLE", "STATE", "PORTS"]);
        let plain = |text: &str| (Tone::Plain, text.to_owned());
        table.row(vec![plain("a"), plain("running"), plain("")]);
        table.row(vec![plain("my-agent"), plain("off"), plain("8080")]);
        assert_eq!(
            table.render(Ui::new(false, false)),
            "HANDLE    STATE    PORTS\n\
             a         running  -\n\
             my-agent  off      8080\n"
        );
    }
}
