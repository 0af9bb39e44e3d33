//! `--env-file` and `secret import`: variables from a file, a line for each.
//!
//! ```text
//! # a comment
//! KEY=VALUE
//! KEY            (the secret KEY, or the value of this environment)
//! ```
//!
//! As with podman and Docker there is no quoting: what follows the `=` is the
//! value, to the end of the line. The text may hold secrets, so it is overwritten
//! when it is dropped.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aegis_core::secret::MAX_ALL;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Longest file in bytes: the values of all secrets at once, and as much of comments.
const LONGEST: usize = 2 * MAX_ALL;

/// A file of variables.
pub(crate) struct EnvFile {
    path: PathBuf,
    text: Zeroizing<String>,
}

impl EnvFile {
    /// Reads a file; `-` is stdin.
    ///
    /// # Errors
    /// It cannot be read, is too long or no text.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = match path.as_os_str().as_encoded_bytes() {
            b"-" => text(io::stdin().lock()),
            _ => File::open(path).and_then(text),
        };
        let text = text.map_err(|source| Failure::EnvFile {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }

    /// Its variables as `--env` takes them, with the numbers of their lines.
    ///
    /// # Errors
    /// A line is not understood; it is named.
    pub(crate) fn variables(&self) -> Result<Vec<(usize, &str)>, Failure> {
        parse(&self.text).map_err(|(line, failure)| self.at(line, failure))
    }

    /// What is wrong with a line.
    pub(crate) fn at(&self, line: usize, failure: Failure) -> Failure {
        Failure::EnvLine {
            path: self.path.clone(),
            line,
            source: Box::new(failure),
        }
    }

    #[cfg(test)]
    pub(crate) fn of(path: &str, text: &str) -> Self {
        Self {
            path: path.into(),
            text: Zeroizing::new(text.to_owned()),
        }
    }
}

fn text(from: impl Read) -> io::Result<Zeroizing<String>> {
    // As large as it may become, so that no copy of it is left where it grew from.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST + 1));
    from.take(LONGEST as u64 + 1).read_to_string(&mut text)?;
    match text.len() > LONGEST {
        true => Err(io::Error::from(io::ErrorKind::FileTooLarge)),
        false => Ok(text),
    }
}

fn parse(text: &str) -> Result<Vec<(usize, &str)>, (usize, Failure)> {
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
        variables.push((index + 1, variable));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_variable_a_comment_or_nothing() {
        let text = "# c\n\n  A=1\nB='x y' # no comment\nHERE\nC=\nA=2\r\n";
        let expected = [
            (3, "A=1"),
            (4, "B='x y' # no comment"),
            (5, "HERE"),
            (6, "C="),
            (7, "A=2"),
        ];
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for (text, line) in [("A=1\nexport B=2", 2), ("=x", 1)] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let long = io::repeat(b'a').take(LONGEST as u64 + 1);
        assert_eq!(text(long).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(text(&b"A=1"[..]).unwrap().as_str(), "A=1");
    }
}
