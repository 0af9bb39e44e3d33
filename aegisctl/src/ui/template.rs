//! Templates of `--format`: a small part of what podman and Docker take.
//!
//! | text | gives |
//! |---|---|
//! | `{{.Handle}}` | a field of `--json`; case and `_` do not matter: `{{.StateReason}}` |
//! | `{{.Labels.team}}` | a field of a field |
//! | `{{json .Labels}}` | the field, `{{json .}}` the whole row, as JSON |
//! | `\t`, `\n` | tab and newline |
//!
//! `{{.Name}}` and `{{.ID}}` are the handle where there is no field of that name.

use std::fmt::Write;
use std::str::FromStr;

use serde_json::Value;

use super::clean;

/// A template, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { path: Vec<String>, as_json: bool },
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("the template has a '{{{{' without a '}}}}'")]
    Open,
    #[error(
        "'{{{{{0}}}}}' is not understood; a field is written {{{{.Field}}}}, as JSON {{{{json .Field}}}}"
    )]
    Action(String),
    #[error("there is no field '{field}'; known are {known}")]
    Field { field: String, known: String },
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").ok_or(TemplateError::Open)?;
            if !before.is_empty() {
                parts.push(Part::Text(unescape(before)));
            }
            parts.push(field(action)?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(unescape(rest)));
        }
        Ok(Self(parts))
    }
}

impl Template {
    /// The template with the fields of a row in it.
    ///
    /// # Errors
    /// A field that the row does not have.
    pub(crate) fn fill(&self, row: &Value) -> Result<String, TemplateError> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Field { path, as_json } => {
                    let value = find(row, path)?;
                    if *as_json {
                        // Writing to memory cannot fail.
                        write!(text, "{value}").ok();
                    } else {
                        text.push_str(&words(value));
                    }
                }
            }
        }
        Ok(text)
    }

    /// The cells of a table: what stands between tabs.
    pub(crate) fn columns(&self) -> Vec<Template> {
        let mut columns = vec![Vec::new()];
        for part in &self.0 {
            let Part::Text(text) = part else {
                if let Some(column) = columns.last_mut() {
                    column.push(part.clone());
                }
                continue;
            };
            for (index, piece) in text.split('\t').enumerate() {
                if index > 0 {
                    columns.push(Vec::new());
                }
                if let Some(column) = columns.last_mut().filter(|_| !piece.is_empty()) {
                    column.push(Part::Text(piece.to_owned()));
                }
            }
        }
        columns.into_iter().map(Self).collect()
    }

    /// What stands above a column of a table: its fields' names.
    pub(crate) fn heading(&self) -> String {
        let pieces = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Field { path, .. } => path.last().map(|name| heading(name)).unwrap_or_default(),
        });
        pieces.collect::<String>().trim().to_owned()
    }
}

fn field(action: &str) -> Result<Part, TemplateError> {
    let refused = || TemplateError::Action(action.to_owned());
    let action = action.trim();
    let (as_json, path) = match action.strip_prefix("json") {
        Some(path) if path.starts_with(char::is_whitespace) => (true, path.trim_start()),
        _ => (false, action),
    };
    let path = path.strip_prefix('.').ok_or_else(refused)?;
    if path.is_empty() {
        return Ok(Part::Field {
            path: Vec::new(),
            as_json,
        });
    }
    let path: Vec<String> = path.split('.').map(str::to_owned).collect();
    if path
        .iter()
        .any(|name| name.is_empty() || name.contains(char::is_whitespace))
    {
        return Err(refused());
    }
    Ok(Part::Field { path, as_json })
}

fn find<'a>(row: &'a Value, path: &[String]) -> Result<&'a Value, TemplateError> {
    const NOTHING: &Value = &Value::Null;
    let mut value = row;
    for (depth, name) in path.iter().enumerate() {
        let Value::Object(fields) = value else {
            // A part of what is absent is absent.
            return Ok(NOTHING);
        };
        let exact = fields.get(name);
        let alike = || {
            let found = fields.iter().find(|(key, _)| folded(key) == folded(name));
            found.map(|(_, value)| value)
        };
        let handle = || {
            let alias = depth == 0 && matches!(folded(name).as_str(), "name" | "id");
            fields.get("handle").filter(|_| alias)
        };
        match exact.or_else(alike).or_else(handle) {
            Some(found) => value = found,
            // Rows have the same fields; maps inside them, like labels, do not.
            None if depth > 0 => return Ok(NOTHING),
            None => {
                let known: Vec<String> = fields.keys().map(|key| camel(key)).collect();
                return Err(TemplateError::Field {
                    field: name.clone(),
                    known: known.join(", "),
                });
            }
        }
    }
    Ok(value)
}

fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '-'], "")
}

/// `state_reason` as people write it in templates: `StateReason`.
fn camel(key: &str) -> String {
    let words = key.split('_').map(|word| {
        let mut chars = word.chars();
        let first = chars.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(chars).collect::<String>()
    });
    words.collect()
}

/// `StateReason` or `state_reason` as a heading: `STATE REASON`.
fn heading(name: &str) -> String {
    let mut text = String::new();
    let mut before = None;
    for c in name.chars() {
        let begins = c.is_ascii_uppercase() && before.is_some_and(|c: char| c.is_ascii_lowercase());
        if begins {
            text.push(' ');
        }
        text.push(if c == '_' {
            ' '
        } else {
            c.to_ascii_uppercase()
        });
        before = Some(c);
    }
    text
}

/// A value as people read it.
fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => clean(text),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(","),
        Value::Object(fields) if fields.values().all(|value| !value.is_object()) => fields
            .iter()
            .map(|(key, value)| format!("{}={}", clean(key), words(value)))
            .collect::<Vec<_>>()
            .join(","),
        other => other.to_string(),
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill(template: &str) -> Result<String, TemplateError> {
        let row = json!({
            "handle": "web", "state_reason": "awake", "labels": {"team": "a", "x": "b"},
            "ports": ["1:2", "3:4"], "cpus": 2, "last_exit": null,
        });
        template.parse::<Template>()?.fill(&row)
    }

    #[test]
    fn fields_are_found_however_they_are_written() {
        for (template, text) in [
            ("{{.Handle}}", "web"),
            ("{{ .handle }}", "web"),
            ("{{.Name}} {{.ID}}", "web web"),
            (r"{{.StateReason}}\t{{.state_reason}}\n", "awake\tawake\n"),
            ("{{.Labels.team}}/{{.Labels.other}}", "a/"),
            ("{{.Labels}}", "team=a,x=b"),
            ("{{.Ports}} {{.Cpus}}", "1:2,3:4 2"),
            ("{{json .Ports}}", r#"["1:2","3:4"]"#),
            ("[{{.LastExit.Code}}]", "[]"),
        ] {
            assert_eq!(fill(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(fill("{{.Handle"), Err(TemplateError::Open));
        for action in ["Handle", "range .", ".a b", ".a..b"] {
            let refused = fill(&format!("{{{{{action}}}}}"));
            assert_eq!(refused, Err(TemplateError::Action(action.into())));
        }
        let error = fill("{{.Size}}").unwrap_err().to_string();
        assert!(
            error.starts_with("there is no field 'Size'; known are "),
            "{error}"
        );
        assert!(error.contains("StateReason"), "{error}");
        let error = fill("{{x}}").unwrap_err().to_string();
        assert!(error.starts_with("'{{x}}' is not understood"), "{error}");
    }

    #[test]
    fn tabs_make_columns_and_fields_their_headings() {
        let template: Template = r"{{.Handle}}\t{{.StateReason}} ({{.cpus}})"
            .parse()
            .unwrap();
        let headings: Vec<_> = template.columns().iter().map(Template::heading).collect();
        assert_eq!(headings, ["HANDLE", "STATE REASON (CPUS)"]);
    }
}
