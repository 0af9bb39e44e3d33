//! The tools glob and grep.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use globset::{GlobBuilder, GlobMatcher};
use regex::bytes::{Regex, RegexBuilder};

use super::{Input, Said, cut, path};

const FILES: usize = 200;
const LINES: usize = 50;
/// Bytes of a file that grep looks into.
const SEARCHED: u64 = 1 << 20;
/// Bytes of a line that are shown.
const LINE: usize = 300;
/// How long a search takes at most: a workspace may hold anything.
const TIME: Duration = Duration::from_secs(20);
/// How deep folders are entered.
const DEPTH: usize = 40;

pub(super) fn glob(workspace: &Path, input: &Input<'_>) -> Said {
    let matcher = matcher(input.text("pattern")?)?;
    let start = path::readable(workspace, input.optional("path").unwrap_or("."));
    let mut walk = Walk::new(&start)?;
    let mut found = Vec::new();
    while let Some(file) = walk.next() {
        let relative = file.strip_prefix(&start).unwrap_or(&file);
        if matcher.is_match(relative) {
            found.push(shown(workspace, &file));
        }
        if found.len() > FILES {
            break;
        }
    }
    found.sort_unstable();
    Ok(listing(found, FILES, walk.late))
}

pub(super) fn grep(workspace: &Path, input: &Input<'_>) -> Said {
    let pattern = input.text("pattern")?;
    // A pattern is a model's: its memory is bounded.
    let regex = RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .dfa_size_limit(1 << 20)
        .build()
        .map_err(|error| format!("The pattern is not a regular expression: {error}"))?;
    let include = input.optional("include").filter(|text| !text.is_empty());
    let include = include.map(matcher).transpose()?;
    let start = path::readable(workspace, input.optional("path").unwrap_or("."));
    let mut walk = Walk::new(&start)?;
    let mut found = Vec::new();
    while found.len() <= LINES
        && let Some(file) = walk.next()
    {
        let name = file.file_name().unwrap_or_default();
        let relative = file.strip_prefix(&start).unwrap_or(&file);
        if include
            .as_ref()
            .is_none_or(|glob| glob.is_match(name) || glob.is_match(relative))
        {
            search(workspace, &file, &regex, &mut found);
        }
    }
    Ok(listing(found, LINES, walk.late))
}

/// Adds the lines of a file that match. A file that cannot be read has none.
fn search(workspace: &Path, path: &Path, regex: &Regex, found: &mut Vec<String>) {
    let small = path
        .metadata()
        .is_ok_and(|facts| facts.is_file() && facts.len() <= SEARCHED);
    let Some(file) = small.then(|| std::fs::File::open(path).ok()).flatten() else {
        return;
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut number = 0;
    while found.len() <= LINES {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => number += 1,
        }
        // Not a text.
        if line.contains(&0) {
            return;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if regex.is_match(text) {
            let text = cut(String::from_utf8_lossy(text).into_owned(), LINE);
            found.push(format!("{}:{number}: {text}", shown(workspace, path)));
        }
    }
}

fn matcher(pattern: &str) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(pattern.trim_start_matches("./"))
        .literal_separator(true)
        .build();
    let glob = glob.map_err(|error| format!("The pattern is not valid: {error}"))?;
    Ok(glob.compile_matcher())
}

fn shown(workspace: &Path, path: &Path) -> String {
    path.strip_prefix(workspace)
        .unwrap_or(path)
        .display()
        .to_string()
}

fn listing(mut found: Vec<String>, limit: usize, late: bool) -> String {
    let more = found.len() > limit;
    found.truncate(limit);
    let mut text = match found.is_empty() {
        true => "[nothing found]".to_owned(),
        false => found.join("\n"),
    };
    if more {
        text.push_str(&format!("\n[only the first {limit} are shown]"));
    }
    if late {
        text.push_str("\n[the search took too long; not all was looked at]");
    }
    text
}

/// The files under a folder, or a file itself. Links are not entered.
struct Walk {
    folders: Vec<(PathBuf, usize)>,
    files: Vec<PathBuf>,
    since: Instant,
    late: bool,
}

impl Walk {
    fn new(start: &Path) -> Result<Walk, String> {
        let facts = start
            .metadata()
            .map_err(|error| format!("Cannot look there: {error}"))?;
        let start = start.to_owned();
        let (folders, files) = match facts.is_dir() {
            true => (vec![(start, 0)], Vec::new()),
            false => (Vec::new(), vec![start]),
        };
        Ok(Walk {
            folders,
            files,
            since: Instant::now(),
            late: false,
        })
    }

    fn next(&mut self) -> Option<PathBuf> {
        loop {
            if self.since.elapsed() > TIME {
                self.late = true;
                return None;
            }
            if let Some(file) = self.files.pop() {
                return Some(file);
            }
            let (folder, depth) = self.folders.pop()?;
            // A folder that cannot be read, or is gone, has no files.
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_file() => self.files.push(entry.path()),
                    Ok(kind) if kind.is_dir() && depth < DEPTH && entry.file_name() != ".git" => {
                        self.folders.push((entry.path(), depth + 1));
                    }
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workspace() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("src/deep")).unwrap();
        for name in ["src/a.rs", "src/deep/b.rs", "c.txt"] {
            std::fs::write(folder.path().join(name), "fn main() {}\nlast line\n").unwrap();
        }
        std::os::unix::fs::symlink("/", folder.path().join("root")).unwrap();
        folder
    }

    #[test]
    fn files_are_found_by_patterns_and_links_are_not_entered() {
        let folder = workspace();
        let of =
            |pattern: &str| glob(folder.path(), &Input(&json!({ "pattern": pattern }))).unwrap();
        assert_eq!(of("**/*.rs"), "src/a.rs\nsrc/deep/b.rs");
        assert_eq!(of("*.txt"), "c.txt");
        assert_eq!(of("*.rs"), "[nothing found]");
    }

    #[test]
    fn lines_are_found_by_expressions_in_files_that_match() {
        let folder = workspace();
        let of = |input| grep(folder.path(), &Input(&input));
        let found = of(json!({"pattern": "^fn", "include": "*.rs"})).unwrap();
        assert_eq!(found.lines().count(), 2);
        assert!(found.contains("src/a.rs:1: fn main"));
        assert!(of(json!({"pattern": "("})).is_err());
        let one = of(json!({"pattern": "last", "path": "c.txt"})).unwrap();
        assert_eq!(one, "c.txt:2: last line");
    }
}
