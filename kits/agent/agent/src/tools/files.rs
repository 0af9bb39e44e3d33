//! The tools read_file, write_file, edit_file and list_files.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::{Input, Said, cut, path};

/// Bytes of a file that are shown.
const SHOWN: usize = 50 * 1024;
/// The most bytes of a file that is edited.
const EDITED: u64 = 10 << 20;
/// Bytes of a change that are shown.
const CHANGE: usize = 2048;
/// Names of a folder that are shown.
const NAMES: usize = 1000;

pub(super) fn read(workspace: &Path, input: &Input<'_>) -> Said {
    let name = input.text("path")?;
    let (first, last) = (input.number("start_line")?, input.number("end_line")?);
    let path = path::readable(workspace, name);
    let failed = |error| format!("Cannot read {name}: {error}");
    let file = File::open(&path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{name} is not a file."));
    }
    let size = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::new();
    if first.is_none() && last.is_none() {
        let limit = SHOWN as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        return Ok(match bytes.len() > SHOWN {
            true => format!(
                "{}\n[the file has {size} bytes; read the rest by lines]",
                &cut(text, SHOWN)
            ),
            false => text,
        });
    }
    let (first, last) = (first.unwrap_or(1).max(1), last.unwrap_or(usize::MAX));
    let mut reader = BufReader::new(file);
    let mut number = 0;
    let mut shown = Vec::new();
    // A line is read at most as far as it is shown.
    while number < last && shown.len() <= SHOWN {
        bytes.clear();
        let length = reader
            .by_ref()
            .take(SHOWN as u64)
            .read_until(b'\n', &mut bytes);
        if length.map_err(failed)? == 0 {
            break;
        }
        number += 1;
        if number >= first {
            shown.extend_from_slice(&bytes);
        }
        if bytes.last() != Some(&b'\n') {
            reader.skip_until(b'\n').map_err(failed)?;
        }
    }
    if number < first {
        return Err(format!("{name} has only {number} lines."));
    }
    Ok(cut(String::from_utf8_lossy(&shown).into_owned(), SHOWN))
}

pub(super) fn write(workspace: &Path, input: &Input<'_>) -> Said {
    let name = input.text("path")?;
    let content = input
        .optional("content")
        .ok_or("The argument content is missing.")?;
    let path = path::writable(workspace, name)?;
    put(&path, content).map_err(|error| format!("Cannot write {name}: {error}"))?;
    Ok(format!("Wrote {} bytes to {name}.", content.len()))
}

fn put(path: &Path, content: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, content)
}

pub(super) fn edit(workspace: &Path, input: &Input<'_>) -> Said {
    let name = input.text("path")?;
    let new = input
        .optional("new_text")
        .ok_or("The argument new_text is missing.")?;
    let path = path::writable(workspace, name)?;
    let failed = |error| format!("Cannot change {name}: {error}");
    let size = path.metadata().map_err(failed)?.len();
    if size > EDITED {
        return Err(format!("{name} is too large to be edited."));
    }
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let (start, end) = match input.optional("old_text").filter(|old| !old.is_empty()) {
        Some(old) => occurrence(&text, old, input.number("occurrence")?)?,
        None => lines(
            &text,
            input.number("start_line")?,
            input.number("end_line")?,
        )?,
    };
    let old = &text[start..end];
    let mut new = new.to_owned();
    // Whole lines stay whole lines.
    let by_lines = input.optional("old_text").is_none_or(str::is_empty);
    if by_lines && old.ends_with('\n') && !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    put(&path, &format!("{}{new}{}", &text[..start], &text[end..])).map_err(failed)?;
    let line = text[..start].matches('\n').count() + 1;
    Ok(cut(
        format!("Changed {name} at line {line}:\n{}", change(old, &new)),
        CHANGE,
    ))
}

/// Where the text is, of which there is one or the wanted one.
fn occurrence(text: &str, old: &str, wanted: Option<usize>) -> Result<(usize, usize), String> {
    let found: Vec<usize> = text.match_indices(old).map(|(at, _)| at).collect();
    let start = match (found.len(), wanted) {
        (0, _) => return Err("old_text is not in the file.".to_owned()),
        (1, None) => found[0],
        (count, None) => {
            return Err(format!(
                "old_text is in the file {count} times; say which by occurrence."
            ));
        }
        (count, Some(number)) => *number
            .checked_sub(1)
            .and_then(|at| found.get(at))
            .ok_or_else(|| format!("old_text is in the file {count} times."))?,
    };
    Ok((start, start + old.len()))
}

/// Where the lines are.
fn lines(text: &str, first: Option<usize>, last: Option<usize>) -> Result<(usize, usize), String> {
    let first = first.ok_or("Give old_text or start_line.")?;
    let last = last.unwrap_or(first);
    let mut starts = vec![0];
    starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
    if starts.last() == Some(&text.len()) && starts.len() > 1 {
        starts.pop();
    }
    if first == 0 || last < first || last > starts.len() {
        return Err(format!("The file has the lines 1 to {}.", starts.len()));
    }
    let end = starts.get(last).copied().unwrap_or(text.len());
    Ok((starts[first - 1], end))
}

fn change(old: &str, new: &str) -> String {
    let marked = |sign: &str, text: &str| -> String {
        text.lines().map(|line| format!("{sign}{line}\n")).collect()
    };
    format!("{}{}", marked("-", old), marked("+", new))
}

pub(super) fn list(workspace: &Path, input: &Input<'_>) -> Said {
    let name = input
        .optional("path")
        .filter(|path| !path.is_empty())
        .unwrap_or(".");
    let path = path::readable(workspace, name);
    let entries =
        std::fs::read_dir(&path).map_err(|error| format!("Cannot list {name}: {error}"))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().ok()?;
            Some(match (kind.is_dir(), kind.is_symlink()) {
                (true, _) => format!("{name}/"),
                (_, true) => format!("{name}@"),
                _ => format!("{name} ({} bytes)", entry.metadata().ok()?.len()),
            })
        })
        .collect();
    names.sort_unstable();
    let count = names.len();
    names.truncate(NAMES);
    let mut text = names.join("\n");
    if count > NAMES {
        text.push_str(&format!("\n[{} more]", count - NAMES));
    }
    Ok(if text.is_empty() {
        "[empty]".to_owned()
    } else {
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    type Tool = fn(&Path, &Input<'_>) -> Said;

    fn call(tool: Tool, folder: &tempfile::TempDir, input: &Value) -> Said {
        tool(folder.path(), &Input(input))
    }

    #[test]
    fn what_is_written_is_read_edited_and_listed() {
        let folder = tempfile::tempdir().unwrap();
        let content = "one\ntwo\ntwo\n";
        call(
            write,
            &folder,
            &json!({"path": "a/b.txt", "content": content}),
        )
        .unwrap();
        let lines = json!({"path": "a/b.txt", "start_line": 2, "end_line": "2"});
        assert_eq!(call(read, &folder, &lines).unwrap(), "two\n");
        let twice = json!({"path": "a/b.txt", "old_text": "two", "new_text": "2"});
        assert!(call(edit, &folder, &twice).unwrap_err().contains("2 times"));
        let second =
            json!({"path": "a/b.txt", "old_text": "two", "new_text": "2", "occurrence": 2});
        assert!(call(edit, &folder, &second).unwrap().contains("-two\n+2"));
        let first = json!({"path": "a/b.txt", "start_line": 1, "new_text": "1"});
        call(edit, &folder, &first).unwrap();
        assert_eq!(
            call(read, &folder, &json!({"path": "a/b.txt"})).unwrap(),
            "1\ntwo\n2\n"
        );
        assert_eq!(call(list, &folder, &json!({})).unwrap(), "a/");
        assert!(
            call(list, &folder, &json!({"path": "a"}))
                .unwrap()
                .contains("b.txt (8 bytes)")
        );
    }

    #[test]
    fn files_that_are_large_or_no_text_are_shown_in_bounds() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("big"), vec![0xff; 1 << 20]).unwrap();
        let whole = call(read, &folder, &json!({"path": "big"})).unwrap();
        assert!(whole.len() < SHOWN + 200);
        let line = call(read, &folder, &json!({"path": "big", "start_line": 1})).unwrap();
        assert!(line.len() < SHOWN + 200);
        assert!(call(read, &folder, &json!({"path": "big", "start_line": 5})).is_err());
        assert!(call(read, &folder, &json!({"path": "."})).is_err());
    }
}
