//! What is remembered beyond a conversation: `.aegis/memory/memories.jsonl`, upstream's
//! file, with the keys `session` and `user` that say whose a memory is.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::config::{Memory as Settings, MemoryMode};
use crate::frame;

mod secret;

/// The longest memory, in characters.
pub(crate) const TEXT_LIMIT: usize = 500;
/// Memories that a search gives.
const FOUND: usize = 20;

/// Who a memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    User,
    Workspace,
    Session,
}

/// One memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    pub text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default)]
    pub ts: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Viewer {
    /// `{channel}/{id}`.
    pub session: String,
    /// `{channel}/{id}` of the person, where that is known.
    pub user: Option<String>,
}

impl Memory {
    /// Whether it is for whoever asks. Upstream never said whose a memory is; such ones
    /// are for everybody.
    fn is_for(&self, viewer: &Viewer) -> bool {
        match self.scope {
            None | Some(Scope::Workspace) => true,
            Some(Scope::Session) => self.session.as_ref().is_none_or(|of| *of == viewer.session),
            Some(Scope::User) => self.user.is_none() || self.user == viewer.user,
        }
    }
}

/// Why nothing is remembered or forgotten. The texts are for models.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("The memory is longer than {TEXT_LIMIT} characters.")]
    TooLong,
    #[error("This looks like a secret ({0}); secrets are not remembered.")]
    Secret(&'static str),
    #[error("There is no memory {0}.")]
    Unknown(String),
    #[error("The memories cannot be kept")]
    Write(#[source] std::io::Error),
}

/// The owner of the file.
pub(crate) struct Memories {
    path: PathBuf,
    lock: Mutex<()>,
}

impl Memories {
    /// The memories of a workspace.
    #[must_use]
    pub(crate) fn of(workspace: &Path) -> Memories {
        Memories {
            path: workspace.join(".aegis/memory/memories.jsonl"),
            lock: Mutex::new(()),
        }
    }

    /// Remembers; gives the id. Beyond `total` memories the oldest go.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub(crate) fn store(
        &self,
        text: &str,
        tags: Vec<String>,
        scope: Option<Scope>,
        viewer: &Viewer,
        total: usize,
    ) -> Result<String, MemoryError> {
        let text = text.trim();
        if text.chars().count() > TEXT_LIMIT {
            return Err(MemoryError::TooLong);
        }
        if let Some(kind) = std::iter::once(text)
            .chain(tags.iter().map(String::as_str))
            .find_map(secret::kind)
        {
            return Err(MemoryError::Secret(kind));
        }
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memories = self.all();
        let number = |memory: &Memory| memory.id.strip_prefix("m-")?.parse::<u64>().ok();
        let next = memories
            .iter()
            .filter_map(number)
            .max()
            .map_or(0, |last| last + 1);
        let id = format!("m-{next}");
        memories.push(Memory {
            id: id.clone(),
            scope,
            text: text.to_owned(),
            tags,
            ts: frame::now(),
            session: (scope == Some(Scope::Session)).then(|| viewer.session.clone()),
            user: viewer.user.clone().filter(|_| scope == Some(Scope::User)),
        });
        let over = memories.len().saturating_sub(total);
        memories.drain(..over);
        self.write(&memories)?;
        Ok(id)
    }

    /// Forgets.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub(crate) fn delete(&self, id: &str, viewer: &Viewer) -> Result<(), MemoryError> {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memories = self.all();
        let count = memories.len();
        memories.retain(|memory| memory.id != id || !memory.is_for(viewer));
        match memories.len() == count {
            true => Err(MemoryError::Unknown(id.to_owned())),
            false => self.write(&memories),
        }
    }

    /// Memories with all words and the tag, newest first.
    #[must_use]
    pub(crate) fn search(&self, query: &str, tag: Option<&str>, viewer: &Viewer) -> Vec<Memory> {
        let words = words(query);
        let matches = |memory: &Memory| {
            let text = format!("{} {}", memory.text, memory.tags.join(" ")).to_lowercase();
            memory.is_for(viewer)
                && words.iter().all(|word| text.contains(word))
                && tag.is_none_or(|tag| memory.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)))
        };
        self.all()
            .into_iter()
            .rev()
            .filter(matches)
            .take(FOUND)
            .collect()
    }

    /// What a model is told of without asking, one memory a line.
    #[must_use]
    pub(crate) fn told(&self, viewer: &Viewer, message: &str, settings: &Settings) -> String {
        if settings.inject_mode == MemoryMode::Off {
            return String::new();
        }
        let mut memories = self.all();
        memories.retain(|memory| memory.is_for(viewer));
        choose(&memories, message, settings)
    }

    fn all(&self) -> Vec<Memory> {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }

    fn write(&self, memories: &[Memory]) -> Result<(), MemoryError> {
        let write = || -> std::io::Result<()> {
            let mut lines = Vec::new();
            for memory in memories {
                serde_json::to_writer(&mut lines, memory)?;
                lines.push(b'\n');
            }
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let unfinished = self.path.with_extension("unfinished");
            std::fs::write(&unfinished, lines)?;
            std::fs::rename(&unfinished, &self.path)
        };
        write().map_err(MemoryError::Write)
    }
}

/// The latest, or those that share most words with the message, within the limits. Pure.
fn choose(memories: &[Memory], message: &str, settings: &Settings) -> String {
    let asked = words(message);
    let mut ranked: Vec<(usize, usize, &Memory)> = memories
        .iter()
        .enumerate()
        .map(|(age, memory)| {
            let score = match settings.inject_mode {
                MemoryMode::Relevant => score(memory, &asked),
                MemoryMode::RecentOnly | MemoryMode::Off => 0,
            };
            (score, age, memory)
        })
        .collect();
    ranked.sort_by_key(|(score, age, _)| std::cmp::Reverse((*score, *age)));
    let mut left = settings.inject_chars();
    let mut lines = Vec::new();
    for (_, _, memory) in ranked.into_iter().take(settings.inject_count()) {
        let line = format!("- [{}] {}", memory.id, memory.text);
        let length = line.chars().count() + 1;
        if length > left {
            break;
        }
        left -= length;
        lines.push(line);
    }
    lines.join("\n")
}

/// A shared word counts once, a tag that is a word of the message twice.
fn score(memory: &Memory, asked: &HashSet<String>) -> usize {
    let shared = words(&memory.text).intersection(asked).count();
    let tags = memory
        .tags
        .iter()
        .filter(|tag| asked.contains(&tag.to_lowercase()))
        .count();
    shared + 2 * tags
}

/// Words of three letters and more, in lower case.
fn words(text: &str) -> HashSet<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.chars().count() >= 3)
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn viewer(session: &str, user: &str) -> Viewer {
        Viewer {
            session: session.into(),
            user: Some(user.into()),
        }
    }

    fn settings(json: &str) -> Settings {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn scopes_are_filtered_in_search_telling_and_forgetting() {
        let folder = tempfile::tempdir().unwrap();
        let memories = Memories::of(folder.path());
        let (ann, bob) = (viewer("t/1", "t/ann"), viewer("t/2", "t/bob"));
        for scope in [
            Some(Scope::User),
            Some(Scope::Session),
            Some(Scope::Workspace),
            None,
        ] {
            memories
                .store("Likes green tea", Vec::new(), scope, &ann, 500)
                .unwrap();
        }
        assert_eq!(memories.search("tea", None, &ann).len(), 4);
        assert_eq!(memories.search("tea", None, &bob).len(), 2);
        assert_eq!(
            memories.told(&bob, "tea", &settings("{}")).lines().count(),
            2
        );
        assert!(matches!(
            memories.delete("m-0", &bob),
            Err(MemoryError::Unknown(_))
        ));
        memories.delete("m-0", &ann).unwrap();
        assert_eq!(memories.search("", None, &ann).len(), 3);
    }

    #[test]
    fn the_oldest_go_and_ids_are_not_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let memories = Memories::of(folder.path());
        let me = viewer("a/b", "c");
        let ids: Vec<_> = (0..5)
            .map(|n| {
                memories
                    .store(&format!("fact {n}"), Vec::new(), None, &me, 3)
                    .unwrap()
            })
            .collect();
        assert_eq!(ids.last().unwrap(), "m-4");
        let texts: Vec<_> = memories
            .search("", None, &me)
            .into_iter()
            .map(|m| m.text)
            .collect();
        assert_eq!(texts, ["fact 4", "fact 3", "fact 2"]);
    }

    #[test]
    fn what_is_told_follows_the_mode_and_the_limits() {
        let memory = |n: usize, text: &str| Memory {
            id: format!("m-{n}"),
            scope: None,
            text: text.into(),
            tags: Vec::new(),
            ts: String::new(),
            session: None,
            user: None,
        };
        let memories = [
            memory(0, "the cat is Tom"),
            memory(1, "rust is fine"),
            memory(2, "x"),
        ];
        let of = |json| choose(&memories, "How is my cat?", &settings(json));
        assert!(of("{}").starts_with("- [m-0]"));
        assert!(of(r#"{"inject_mode":"recent_only"}"#).starts_with("- [m-2]"));
        assert_eq!(of(r#"{"max_inject_count":1}"#).lines().count(), 1);
        assert_eq!(of(r#"{"max_inject_chars":5}"#), "");
    }

    #[test]
    fn secrets_are_refused_and_file_hashes_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let memories = Memories::of(folder.path());
        let store = |text: &str| memories.store(text, Vec::new(), None, &viewer("a", "b"), 9);
        assert!(matches!(
            store("key sk-abcdefghijklmnopqrstuv"),
            Err(MemoryError::Secret(_))
        ));
        assert!(store(&"AB12".repeat(16)).is_ok());
        assert!(matches!(store(&"x".repeat(501)), Err(MemoryError::TooLong)));
    }
}
