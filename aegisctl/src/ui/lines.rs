//! Facts, a line each: a label, a value, details below it.

use crate::ui::clean;

/// Labels are padded to this many columns; a longer one is followed by a space.
const LABEL_WIDTH: usize = 13;

/// Lines of a label and a value; what is empty is left out.
#[derive(Debug, Default)]
pub(crate) struct Lines(String);

impl Lines {
    /// Adds a value.
    pub(crate) fn add(&mut self, label: &str, value: &str) {
        self.add_painted(label, &clean(value));
    }

    /// Adds a value that is ours and may hold colour.
    pub(crate) fn add_painted(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            let label = format!("{}: ", clean(label));
            self.0.push_str(&format!("{label:<LABEL_WIDTH$}{value}\n"));
        }
    }

    /// Adds a line below the last value.
    pub(crate) fn detail(&mut self, text: &str) {
        if !text.is_empty() {
            let text = clean(text);
            self.0.push_str(&format!("{:LABEL_WIDTH$}{text}\n", ""));
        }
    }

    /// All of them.
    pub(crate) fn text(self) -> String {
        self.0
    }
}
