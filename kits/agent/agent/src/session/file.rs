//! The file of a session: turns are added at its end, or it is replaced as a whole.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::conversation::Conversation;
use super::name;
use super::turn::Turn;
use crate::frame::SessionKey;

/// Archived files of one session that are kept.
const ARCHIVES: usize = 20;

/// Why a session cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("Cannot read the session {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("Cannot write the session {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("A turn cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// A session's file, owned by its session.
#[derive(Debug)]
pub(crate) struct SessionFile {
    path: PathBuf,
    /// What is open for adding turns.
    end: Option<File>,
}

impl SessionFile {
    /// The file of a session in a folder; it need not be there.
    #[must_use]
    pub(crate) fn new(folder: &Path, session: &SessionKey) -> SessionFile {
        SessionFile {
            path: folder.join(format!("{}.{}", name::stem(session), name::EXTENSION)),
            end: None,
        }
    }

    /// All of it. Lines that are no turns, as the half one that a crash leaves, are
    /// left out.
    ///
    /// # Errors
    /// [`FileError::Read`].
    pub(crate) fn read(&self) -> Result<Conversation, FileError> {
        read(&self.path)
    }

    /// Bytes.
    #[must_use]
    pub(crate) fn size(&self) -> u64 {
        self.path.metadata().map_or(0, |facts| facts.len())
    }

    /// Adds turns, in one write; with `durable` they are on the disk when it returns.
    ///
    /// # Errors
    /// [`FileError::Write`]; then nothing of them counts.
    pub(crate) fn append(&mut self, turns: &[Turn], durable: bool) -> Result<(), FileError> {
        let mut lines = Vec::new();
        for turn in turns {
            serde_json::to_writer(&mut lines, turn).map_err(FileError::Json)?;
            lines.push(b'\n');
        }
        let written = self.open().and_then(|mut file| {
            file.write_all(&lines)?;
            match durable {
                true => file.sync_data(),
                false => Ok(()),
            }
        });
        written.map_err(|source| {
            // What was written of it, if anything, is ended by the next opening.
            self.end = None;
            FileError::Write {
                path: self.path.clone(),
                source,
            }
        })
    }

    /// Open at its end, behind a whole line.
    fn open(&mut self) -> std::io::Result<&File> {
        if self.end.is_none() {
            let folder = self.path.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(folder)?;
            let is_new = !self.path.exists();
            let mut file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)?;
            if is_new {
                File::open(folder)?.sync_all()?;
            }
            if file.seek(SeekFrom::End(0))? > 0 {
                let mut last = [0];
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
                if last != *b"\n" {
                    file.write_all(b"\n")?;
                }
            }
            self.end = Some(file);
        }
        // Just opened where it was not.
        self.end
            .as_ref()
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    /// Puts a conversation in the place of what is there, which is kept in the archive,
    /// named by the time. A crash leaves the old file or the new one.
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub(crate) fn replace(&mut self, with: Conversation) -> Result<(), FileError> {
        let turns = with.into_turns();
        self.end = None;
        let path = self.path.clone();
        let failed = |source| FileError::Write {
            path: path.clone(),
            source,
        };
        self.archive().map_err(failed)?;
        let unfinished = self.path.with_extension("unfinished");
        let write = || -> std::io::Result<()> {
            let mut lines = Vec::new();
            for turn in &turns {
                serde_json::to_writer(&mut lines, turn)?;
                lines.push(b'\n');
            }
            std::fs::write(&unfinished, lines)?;
            std::fs::set_permissions(&unfinished, Permissions::from_mode(0o600))?;
            File::open(&unfinished)?.sync_all()?;
            std::fs::rename(&unfinished, &path)
        };
        write().map_err(failed)
    }

    /// A second name for the file in the archive, and the oldest of them gone.
    fn archive(&self) -> std::io::Result<()> {
        let (Some(folder), Some(stem)) = (self.path.parent(), self.path.file_stem()) else {
            return Ok(());
        };
        let archive = folder.join("archive");
        std::fs::create_dir_all(&archive)?;
        let time = jiff::Timestamp::now()
            .strftime("%Y%m%dT%H%M%S%.6fZ")
            .to_string();
        let prefix = format!("{}.", stem.to_string_lossy());
        let kept = archive.join(format!("{prefix}{time}.{}", name::EXTENSION));
        match std::fs::copy(&self.path, &kept) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut names: Vec<String> = std::fs::read_dir(&archive)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(&prefix))
            .collect();
        names.sort_unstable();
        for old in names.iter().rev().skip(ARCHIVES) {
            std::fs::remove_file(archive.join(old))?;
        }
        Ok(())
    }
}

/// The conversation of a file; empty where there is none.
///
/// # Errors
/// [`FileError::Read`].
pub(crate) fn read(path: &Path) -> Result<Conversation, FileError> {
    let failed = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let mut conversation = Conversation::default();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(conversation),
        Err(error) => return Err(failed(error)),
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(conversation);
        }
        // A whole line ends with its newline: what a crash cut off is no turn, even if
        // it happens to be JSON.
        if line.last() == Some(&b'\n')
            && let Ok(turn) = serde_json::from_slice(&line)
        {
            conversation.push(turn);
        }
    }
}

/// The sessions of a folder, the latest first, with the path of each.
#[must_use]
pub(crate) fn sessions(folder: &Path) -> Vec<(SessionKey, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            if path.extension()? != name::EXTENSION {
                return None;
            }
            let session = name::session(path.file_stem()?.to_str()?).or_else(|| told(&path))?;
            let changed = path.metadata().ok()?.modified().ok()?;
            Some((changed, session, path))
        })
        .collect();
    found.sort_by_key(|(changed, _, _)| std::cmp::Reverse(*changed));
    found
        .into_iter()
        .map(|(_, session, path)| (session, path))
        .collect()
}

/// The session that the turns of a file name.
fn told(path: &Path) -> Option<SessionKey> {
    let conversation = read(path).ok()?;
    conversation
        .exchanges()
        .rev()
        .find_map(|exchange| exchange.user.session.clone())
}

#[cfg(test)]
mod tests {
    use super::super::turn::{Content, Role};
    use super::*;

    fn key(id: &str) -> SessionKey {
        SessionKey {
            channel: "host".into(),
            id: id.into(),
        }
    }

    fn user(text: &str) -> Turn {
        Turn {
            msg_id: Some(format!("id of {text:.20}")),
            session: Some(key("a")),
            ..Turn::new(Role::User, Content::Text(text.into()))
        }
    }

    #[test]
    fn lines_of_any_length_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = SessionFile::new(folder.path(), &key("a"));
        let long = "x".repeat(3 << 20);
        file.append(&[user(&long), user("after")], true).unwrap();
        let conversation = file.read().unwrap();
        let texts: Vec<_> = conversation
            .exchanges()
            .map(|e| e.user.content.text())
            .collect();
        assert_eq!(texts, [long, "after".to_owned()]);
        let mode = folder
            .path()
            .join("host_a.jsonl")
            .metadata()
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn half_a_line_after_a_crash_is_dropped_and_what_follows_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = SessionFile::new(folder.path(), &key("a"));
        file.append(&[user("one")], true).unwrap();
        let path = folder.path().join("host_a.jsonl");
        let mut half = OpenOptions::new().append(true).open(&path).unwrap();
        half.write_all(br#"{"role":"user","content":"ha"#).unwrap();
        let mut file = SessionFile::new(folder.path(), &key("a"));
        file.append(&[user("two")], true).unwrap();
        let conversation = file.read().unwrap();
        let texts: Vec<_> = conversation
            .exchanges()
            .map(|e| e.user.content.text())
            .collect();
        assert_eq!(texts, ["one", "two"]);
    }

    #[test]
    fn what_is_replaced_is_kept_in_the_archive_and_old_archives_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = SessionFile::new(folder.path(), &key("a"));
        for _ in 0..ARCHIVES + 3 {
            file.append(&[user("one"), Turn::note("new", None), user("two")], true)
                .unwrap();
            let (_, rest) = file.read().unwrap().split_at_new().unwrap();
            file.replace(rest).unwrap();
        }
        let kept = std::fs::read_dir(folder.path().join("archive"))
            .unwrap()
            .count();
        assert_eq!(kept, ARCHIVES);
        assert_eq!(sessions(folder.path()).len(), 1);
        file.append(&[user("three")], true).unwrap();
        assert!(
            file.read()
                .unwrap()
                .exchanges()
                .any(|e| e.user.content.text() == "three")
        );
    }

    #[test]
    fn a_session_with_a_cut_name_is_known_by_its_turns() {
        let folder = tempfile::tempdir().unwrap();
        let long = key(&"x".repeat(250));
        let mut file = SessionFile::new(folder.path(), &long);
        let turn = Turn {
            session: Some(long.clone()),
            ..user("one")
        };
        file.append(&[turn], true).unwrap();
        assert_eq!(sessions(folder.path())[0].0, long);
    }
}
