//! `--env-file`: variables from a file, a line for each.
//!
//! ```text
//! # a comment
//! KEY=VALUE
//! KEY            (the value of this environment, where it must exist)
//! ```
//!
//! As with podman and Docker there is no quoting: what follows the `=` is the
//! value, to the end of the line.

use std::collections::BTreeMap;
use std::env::VarError;
use std::path::Path;

use super::resolve_env;
use crate::failure::Failure;

/// Reads a file of variables.
///
/// # Errors
/// It cannot be read, or a line is not understood; the line is named.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| Failure::EnvFile {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, |name| std::env::var(name)).map_err(|(line, source)| Failure::EnvLine {
        path: path.to_owned(),
        line,
        source: Box::new(source),
    })
}

fn parse(
    text: &str,
    lookup: impl Fn(&str) -> Result<String, VarError>,
) -> Result<BTreeMap<String, String>, (usize, Failure)> {
    let mut env = BTreeMap::new();
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
        let resolved = match bad {
            true => Err(Failure::EnvName(name.to_owned())),
            false if line.contains('=') => resolve_env(line, &lookup),
            false => resolve_env(name, &lookup),
        };
        let (name, value) = resolved.map_err(|failure| (index + 1, failure))?;
        env.insert(name, value);
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Result<String, VarError> {
        match name {
            "HERE" => Ok("here".to_owned()),
            _ => Err(VarError::NotPresent),
        }
    }

    #[test]
    fn every_line_is_a_variable_a_comment_or_nothing() {
        let text = "# c\n\n  A=1\nB='x y' # no comment\nHERE\nC=\nA=2\r\n";
        let env = parse(text, lookup).unwrap();
        let pairs: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected = [
            ("A", "2"),
            ("B", "'x y' # no comment"),
            ("C", ""),
            ("HERE", "here"),
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for (text, line) in [("A=1\nexport B=2", 2), ("=x", 1), ("\nMISSING", 2)] {
            assert_eq!(parse(text, lookup).unwrap_err().0, line, "{text}");
        }
    }
}
