//! `--env-file`: variables from a file, a line for each.
//!
//! ```text
//! # a comment
//! KEY=VALUE
//! KEY            (the secret KEY, or the value of this environment)
//! ```
//!
//! As with podman and Docker there is no quoting: what follows the `=` is the
//! value, to the end of the line.

use std::path::Path;

use crate::failure::Failure;

/// Reads a file of variables, as `--env` takes them.
///
/// # Errors
/// It cannot be read, or a line is not understood; the line is named.
pub(super) fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| Failure::EnvFile {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|(line, source)| Failure::EnvLine {
        path: path.to_owned(),
        line,
        source: Box::new(source),
    })
}

fn parse(text: &str) -> Result<Vec<String>, (usize, Failure)> {
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // A name with white space is a slip, e.g. "export KEY=VALUE".
        let name = line
            .split_once('=')
            .map_or(line.trim_end(), |(name, _)| name);
        let bad = name.is_empty() || name.contains(char::is_whitespace);
        if bad {
            return Err((index + 1, Failure::EnvName(name.to_owned())));
        }
        let variable = if line.contains('=') { line } else { name };
        variables.push(variable.to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_variable_a_comment_or_nothing() {
        let text = "# c\n\n  A=1\nB='x y' # no comment\nHERE\nC=\nA=2\r\n";
        let expected = ["A=1", "B='x y' # no comment", "HERE", "C=", "A=2"];
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for (text, line) in [("A=1\nexport B=2", 2), ("=x", 1)] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }
}
