//! A session's file as the session's task and the answer it makes share it. Both are
//! parts of one task tree; the lock orders their writes, which go to the disk on a
//! thread for blocking calls, since a disk may be slow and text streams meanwhile.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::conversation::Conversation;
use super::file::{FileError, SessionFile};
use super::turn::Turn;
use crate::frame::SessionKey;

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("The thread for writing a session ended")]
    Thread(#[source] tokio::task::JoinError),
}

/// The shared file; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct SessionLog {
    file: Arc<Mutex<SessionFile>>,
}

impl SessionLog {
    /// The log of a session in a folder.
    #[must_use]
    pub(crate) fn new(folder: &Path, session: &SessionKey) -> SessionLog {
        SessionLog {
            file: Arc::new(Mutex::new(SessionFile::new(folder, session))),
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) async fn read(&self) -> Result<Conversation, LogError> {
        self.with(|file| file.read()).await
    }

    /// Adds turns that are on the disk when it returns.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) async fn append(&self, turns: Vec<Turn>) -> Result<(), LogError> {
        self.with(move |file| file.append(&turns, true)).await
    }

    /// Adds a turn whose loss in a power cut costs nothing but repeated work.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) async fn note(&self, turn: Turn) -> Result<(), LogError> {
        self.with(move |file| file.append(&[turn], false)).await
    }

    /// Replaces the conversation by what `change` makes of it, if it makes something.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) async fn replace(
        &self,
        change: impl FnOnce(Conversation, u64) -> Option<Conversation> + Send + 'static,
    ) -> Result<(), LogError> {
        self.with(move |file| {
            let size = file.size();
            match change(file.read()?, size) {
                Some(conversation) => file.replace(conversation),
                None => Ok(()),
            }
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SessionFile) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, LogError> {
        let mut file = self.file.clone().lock_owned().await;
        tokio::task::spawn_blocking(move || work(&mut file))
            .await
            .map_err(LogError::Thread)?
            .map_err(LogError::File)
    }
}
