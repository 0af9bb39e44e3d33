//! The last good `agent.json`, read again when it changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::Config;

/// Settings for one answer.
#[derive(Clone)]
pub(crate) struct Current {
    pub config: Arc<Config>,
    /// What the user has to know: the file is not valid and no good one was seen. Said
    /// once for each state of the file.
    pub complaint: Option<String>,
}

/// What tells whether a file is another one than before.
type Stamp = Option<(SystemTime, u64, u64)>;

struct State {
    stamp: Stamp,
    good: Option<Arc<Config>>,
    complaint: Option<String>,
}

/// The owner of the settings.
pub(crate) struct ConfigStore {
    path: PathBuf,
    variable: fn(&str) -> Option<String>,
    state: Mutex<Option<State>>,
}

impl ConfigStore {
    /// Settings of the file of a workspace and of variables.
    #[must_use]
    pub(crate) fn new(workspace: &Path, variable: fn(&str) -> Option<String>) -> ConfigStore {
        ConfigStore {
            path: workspace.join(".aegis/agent.json"),
            variable,
            state: Mutex::new(None),
        }
    }

    /// The settings as they are now.
    #[must_use]
    pub(crate) fn current(&self) -> Current {
        let stamp = stamp(&self.path);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let last = state.take();
        let state = state.insert(match last {
            Some(last) if last.stamp == stamp => last,
            last => self.read(stamp, last.and_then(|last| last.good)),
        });
        let defaults = || {
            let mut config = Config::default();
            config.overlay(self.variable);
            Arc::new(config)
        };
        Current {
            config: state.good.clone().unwrap_or_else(defaults),
            complaint: state.complaint.take(),
        }
    }

    fn read(&self, stamp: Stamp, good: Option<Arc<Config>>) -> State {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "{}".to_owned(),
            Err(error) => return Self::keep(stamp, good, &error.to_string()),
        };
        match Config::parse(&text) {
            Ok(mut config) => {
                config.overlay(self.variable);
                State {
                    stamp,
                    good: Some(Arc::new(config)),
                    complaint: None,
                }
            }
            Err(error) => Self::keep(stamp, good, &place(&error)),
        }
    }

    fn keep(stamp: Stamp, good: Option<Arc<Config>>, error: &str) -> State {
        tracing::warn!(
            error,
            last_good = good.is_some(),
            "agent.json is not valid, ignoring it"
        );
        let complaint = good
            .is_none()
            .then(|| format!(".aegis/agent.json is not valid, so defaults are used: {error}"));
        State {
            stamp,
            good,
            complaint,
        }
    }
}

/// Where the file is wrong. The error's own text has values of the file in it, which
/// may be secrets at a wrong place.
fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a value of a wrong type",
        _ => "no JSON",
    };
    format!("{what} at line {}, column {}", error.line(), error.column())
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let facts = path.metadata().ok()?;
    Some((facts.modified().ok()?, facts.len(), facts.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, ConfigStore) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".aegis")).unwrap();
        let store = ConfigStore::new(folder.path(), |_| None);
        (folder, store)
    }

    fn write(folder: &tempfile::TempDir, text: &str) {
        std::fs::write(folder.path().join(".aegis/agent.json"), text).unwrap();
    }

    #[test]
    fn a_changed_file_counts_and_a_broken_one_keeps_the_last_good() {
        let (folder, store) = store();
        assert_eq!(store.current().config.model, None);
        write(&folder, r#"{"model":"a/b"}"#);
        assert_eq!(store.current().config.model.as_deref(), Some("a/b"));
        write(&folder, r#"{"model":"#);
        let current = store.current();
        assert_eq!(current.config.model.as_deref(), Some("a/b"));
        assert_eq!(current.complaint, None);
    }

    #[test]
    fn without_a_good_file_the_user_is_told_once() {
        let (folder, store) = store();
        write(&folder, "{");
        assert!(store.current().complaint.unwrap().contains("line 1"));
        assert_eq!(store.current().complaint, None);
    }
}
