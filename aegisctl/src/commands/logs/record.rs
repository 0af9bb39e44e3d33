//! A record of the command log: one JSON object per line.

use std::io::{self, Write};

use serde_json::Value;

use crate::failure::Failure;
use crate::ui::{JSON_VERSION, Ui};

/// Prints records.
#[derive(Debug)]
pub(super) struct Printer {
    json: bool,
}

/// What a record is for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Line,
    /// The last of its file: the log goes on in another one.
    Rotated,
}

impl Printer {
    pub(super) fn new(ui: Ui) -> Self {
        Self {
            json: ui.wants_json(),
        }
    }

    /// Prints a record to where the command wrote it. What is not a record is
    /// left out: after a crash of its writer a file may end in half a line.
    pub(super) fn print(&self, record: &[u8]) -> Result<Kind, Failure> {
        let Ok(mut record) = serde_json::from_slice::<Value>(record) else {
            return Ok(Kind::Line);
        };
        if record["rotated"] == true {
            return Ok(Kind::Rotated);
        }
        if self.json {
            if let Some(object) = record.as_object_mut() {
                object.insert("version".to_owned(), JSON_VERSION.into());
            }
            writeln!(io::stdout().lock(), "{record}").map_err(Failure::output)?;
            return Ok(Kind::Line);
        }
        let end = if record["partial"] == true { "" } else { "\n" };
        let Some(line) = record["line"].as_str() else {
            return Ok(Kind::Line);
        };
        let written = if record["stream"] == "stderr" {
            write!(io::stderr().lock(), "{line}{end}")
        } else {
            write!(io::stdout().lock(), "{line}{end}")
        };
        written.map_err(Failure::output)?;
        Ok(Kind::Line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_is_seen_and_garbage_is_not_fatal() {
        let printer = Printer { json: false };
        let rotated = printer.print(br#"{"rotated":true}"#).unwrap();
        assert_eq!(rotated, Kind::Rotated);
        assert_eq!(printer.print(b"half a li").unwrap(), Kind::Line);
    }
}
