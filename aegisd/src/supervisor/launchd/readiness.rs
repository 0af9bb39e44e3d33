//! What jobs say of themselves: sd_notify(3), on a socket per job.
//!
//! launchd knows no readiness, so aegisd listens itself, on the sockets that property
//! lists name as `NOTIFY_SOCKET`:
//!
//! | said | by | means |
//! |---|---|---|
//! | `MAINPID=` | aegis-shim, first in each run | another process, which is not ready |
//! | `READY=1` | the program | it is ready |
//! | `STATUS=` | the program | its words |
//!
//! What was said while no aegisd listened is not known. A job that runs and of which
//! nothing was heard counts as ready.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::net::UnixDatagram;
use tokio::task::JoinHandle;

use super::files::{self, JobFileError};

/// The longest message that is read, in bytes.
const LONGEST: usize = 4096;

/// What a job said in its present run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The process whose run it is; `None` if it began before anyone listened.
    pub(super) pid: Option<u32>,
    pub(super) ready: bool,
    pub(super) status: String,
}

impl Heard {
    /// Takes a message: lines of `NAME=VALUE`.
    fn take(&mut self, message: &str) {
        for (name, value) in message.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "MAINPID" => {
                    *self = Self {
                        pid: value.parse().ok(),
                        ..Self::default()
                    }
                }
                "READY" => self.ready |= value == "1",
                "STATUS" => value.clone_into(&mut self.status),
                _ => {}
            }
        }
    }

    /// Whether the process of this number still has to say that it is ready.
    pub(super) fn is_awaited(&self, pid: u32) -> bool {
        self.pid == Some(pid) && !self.ready
    }
}

type AllHeard = Arc<Mutex<HashMap<String, Heard>>>;

/// All sockets, and what was heard on them.
#[derive(Debug)]
pub(super) struct Ears {
    folder: PathBuf,
    heard: AllHeard,
    tasks: Mutex<HashMap<String, JoinHandle<()>>>,
}

impl Ears {
    /// Listens to nobody yet; the sockets are to be in this folder.
    pub(super) fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder,
            heard: AllHeard::default(),
            tasks: Mutex::default(),
        }
    }

    /// Where a job speaks. Labels are longer than the path of a socket may be.
    pub(super) fn socket(&self, label: &str) -> PathBuf {
        let digest = Sha256::digest(label.as_bytes());
        let name: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.folder.join(name)
    }

    /// Listens to a job from now on; the socket belongs to the owner of `like`.
    pub(super) fn listen(&self, label: &str, like: &Path) -> Result<(), JobFileError> {
        let path = self.socket(label);
        files::private_folder(&self.folder)?;
        files::give_like(&self.folder, like)?;
        files::remove(&path)?;
        let socket = UnixDatagram::bind(&path).map_err(|source| JobFileError::File {
            operation: "listen on",
            path: path.clone(),
            source,
        })?;
        files::give_like(&path, like)?;
        self.forget(label);
        let (heard, name) = (Arc::clone(&self.heard), label.to_owned());
        let task = tokio::spawn(async move {
            if let Err(error) = hear(&socket, &name, &heard).await {
                tracing::warn!("cannot hear {name} any more: {error}, ignoring");
            }
        });
        lock(&self.tasks).insert(label.to_owned(), task);
        Ok(())
    }

    /// Listens to a job no more.
    pub(super) fn forget(&self, label: &str) {
        if let Some(task) = lock(&self.tasks).remove(label) {
            task.abort();
        }
        lock(&self.heard).remove(label);
    }

    /// What a job said; `None` if nothing was heard.
    pub(super) fn heard(&self, label: &str) -> Option<Heard> {
        lock(&self.heard).get(label).cloned()
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        for (_, task) in lock(&self.tasks).drain() {
            task.abort();
        }
    }
}

async fn hear(socket: &UnixDatagram, label: &str, all: &AllHeard) -> io::Result<()> {
    let mut message = [0; LONGEST];
    loop {
        let length = socket.recv(&mut message).await?;
        let text = String::from_utf8_lossy(&message[..length]);
        let mut all = lock(all);
        all.entry(label.to_owned()).or_default().take(&text);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_is_not_ready_until_it_says_so() {
        let mut heard = Heard::default();
        heard.take("READY=1\nSTATUS=from before");
        assert!(!heard.is_awaited(7), "nobody knows since when it is");
        heard.take("MAINPID=7");
        assert!(heard.is_awaited(7) && heard.status.is_empty());
        heard.take("STATUS=at work\nWATCHDOG=1\nnonsense");
        assert!(heard.is_awaited(7));
        heard.take("READY=1");
        assert_eq!(
            heard,
            Heard {
                pid: Some(7),
                ready: true,
                status: "at work".into()
            }
        );
    }

    #[tokio::test]
    async fn jobs_are_heard_on_sockets_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let ears = Ears::in_folder(folder.path().join("notify"));
        for label in ["org.a", "org.b"] {
            ears.listen(label, folder.path()).unwrap();
        }
        let speaker = UnixDatagram::unbound().unwrap();
        speaker
            .send_to(b"READY=1", ears.socket("org.a"))
            .await
            .unwrap();
        while ears.heard("org.a").is_none() {
            tokio::task::yield_now().await;
        }
        assert!(ears.heard("org.a").unwrap().ready);
        assert_eq!(ears.heard("org.b"), None);
        ears.forget("org.a");
        assert_eq!(ears.heard("org.a"), None);
    }
}
