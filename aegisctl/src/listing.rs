//! Lists: the flags they share and the forms they are printed in.
//!
//! | asked for | printed |
//! |---|---|
//! | `--json`, `--format json` | one document, as docs/schemas describe it |
//! | `--format 'table {{.A}}\t{{.B}}'` | a table of these columns |
//! | `--format '{{.A}}'` | the template, a line for each row |
//! | `--quiet` | the names alone |
//! | nothing | the table of the command |

use std::str::FromStr;

use aegis_bus::instance::filter::Condition;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::ui::{Table, Template, TemplateError, Tone, Ui};

/// Which form of output.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    Json,
    Table(Template),
    Lines(Template),
}

impl FromStr for Format {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text == "json" {
            return Ok(Self::Json);
        }
        match text.strip_prefix("table ") {
            Some(template) => template.trim().parse().map(Self::Table),
            None => text.parse().map(Self::Lines),
        }
    }
}

/// How a list is printed.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct FormatFlags {
    /// Print `json`, a line for each from a template, e.g. '{{.Name}}', or a table: 'table {{.Name}}\t{{.State}}'
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
}

/// Which instances a list is about.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct FilterFlags {
    /// Only instances that match: name=, state=, kit=, enabled= or label=KEY[=VALUE]; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<Condition>,
}

/// Rows to print.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    /// The key of the rows in the JSON document.
    pub(crate) key: &'a str,
    pub(crate) rows: Vec<Value>,
    /// The field that `--quiet` prints.
    pub(crate) name: &'a str,
}

impl Listing<'_> {
    /// Prints them.
    ///
    /// # Errors
    /// A template asks for a field that is not there, or stdout is closed.
    pub(crate) fn print(
        self,
        ui: Ui,
        flags: &FormatFlags,
        table: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if ui.wants_json() || matches!(flags.format, Some(Format::Json)) {
            let document = Map::from_iter([(self.key.to_owned(), self.rows.into())]);
            return ui.with_json().data(|| document.into(), String::new);
        }
        let text = match &flags.format {
            Some(Format::Table(template)) => columns(ui, template, &self.rows)?,
            Some(Format::Lines(template)) => lines(template, &self.rows)?,
            _ if ui.is_quiet() => names(self.name, &self.rows),
            _ => table(),
        };
        ui.text(&text)
    }
}

/// A template filled with a row, as a line.
///
/// # Errors
/// It asks for a field that is not there.
pub(crate) fn line(template: &Template, row: &Value) -> Result<String, Failure> {
    let mut line = template.fill(row).map_err(Failure::Template)?;
    if !line.ends_with('\n') {
        line.push('\n');
    }
    Ok(line)
}

fn lines(template: &Template, rows: &[Value]) -> Result<String, Failure> {
    rows.iter().map(|row| line(template, row)).collect()
}

/// A table of the columns of a template.
///
/// # Errors
/// It asks for a field that is not there.
pub(crate) fn columns(ui: Ui, template: &Template, rows: &[Value]) -> Result<String, Failure> {
    let columns = template.columns();
    let headings: Vec<String> = columns.iter().map(Template::heading).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = Table::new(&headings);
    for row in rows {
        let cells = columns
            .iter()
            .map(|column| column.fill(row).map(|text| (Tone::Plain, text)));
        let cells = cells.collect::<Result<_, _>>().map_err(Failure::Template)?;
        table.row(cells);
    }
    Ok(table.render(ui))
}

fn names(name: &str, rows: &[Value]) -> String {
    let names = rows.iter().filter_map(|row| row[name].as_str());
    names.map(|name| format!("{name}\n")).collect()
}
