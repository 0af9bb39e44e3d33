//! The parts of the agent that all sessions share, and the sessions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::blob::Blobs;
use crate::config::ConfigStore;
use crate::frame::{Frame, Request, SessionKey};
use crate::guest_api::GuestApi;
use crate::lease::Lease;
use crate::outbox::Outbox;
use crate::provider::exchange::{Models, chain};
use crate::session::actor::{self, Command};
use crate::session::file;
use crate::tools::Toolbox;

/// Answers that are made at the same time.
const AT_ONCE: usize = 8;
/// Frames that wait for a session's task, which only writes them to a file.
const MAILBOX: usize = 32;

/// What all sessions share.
pub(crate) struct Shared {
    pub workspace: PathBuf,
    pub config: ConfigStore,
    pub models: Models,
    pub api: GuestApi,
    pub outbox: Outbox,
    pub lease: Lease,
    pub toolbox: Toolbox,
    pub blobs: Blobs,
    /// A permit for each answer that is made.
    pub permits: Semaphore,
}

impl Shared {
    /// The permits that [`Shared::permits`] starts with.
    #[must_use]
    pub(crate) fn permits() -> Semaphore {
        Semaphore::new(AT_ONCE)
    }

    /// The folder of sessions.
    #[must_use]
    pub(crate) fn sessions(&self) -> PathBuf {
        sessions_of(&self.workspace)
    }
}

/// The folder of sessions of a workspace.
#[must_use]
pub(crate) fn sessions_of(workspace: &Path) -> PathBuf {
    workspace.join("sessions")
}

/// Why a frame is not taken. The host sends it again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error("The message cannot be kept")]
    Kept(#[source] crate::session::log::LogError),
    #[error("The session has ended")]
    Ended,
}

/// The sessions: one task for each that had a message since the start.
pub(crate) struct Agent {
    shared: Arc<Shared>,
    sessions: Mutex<HashMap<SessionKey, mpsc::Sender<Command>>>,
}

impl Agent {
    /// An agent without sessions.
    #[must_use]
    pub(crate) fn new(shared: Arc<Shared>) -> Agent {
        Agent {
            shared,
            sessions: Mutex::default(),
        }
    }

    /// Takes up what an earlier run of the agent left: messages without an answer,
    /// answers that the host may not have.
    pub(crate) async fn resume(&self) {
        for (session, path) in file::sessions(&self.shared.sessions()) {
            match file::read(&path) {
                Ok(conversation) if actor::has_work(&conversation) => {
                    tracing::info!(channel = session.channel, "Resuming a session");
                    let (taken, receiver) = oneshot::channel();
                    // The task answers once it has read its file; a failure is logged there.
                    if self
                        .session(&session)
                        .send(Command::Resume { taken })
                        .await
                        .is_ok()
                    {
                        drop(receiver.await);
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(error = chain(&error), "Cannot resume a session, ignoring");
                }
            }
        }
    }

    /// Takes a frame of the host. When it returns, the frame is on the disk.
    ///
    /// # Errors
    /// [`TakeError`].
    pub(crate) async fn take(&self, frame: Frame, request: Request) -> Result<(), TakeError> {
        let (taken, receiver) = oneshot::channel();
        let session = self.session(&frame.session);
        let command = Command::Frame {
            frame: Box::new(frame),
            request,
            taken,
        };
        session.send(command).await.map_err(|_| TakeError::Ended)?;
        receiver
            .await
            .map_err(|_| TakeError::Ended)?
            .map_err(TakeError::Kept)
    }

    fn session(&self, session: &SessionKey) -> mpsc::Sender<Command> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sessions.get(session).filter(|mailbox| !mailbox.is_closed());
        if let Some(mailbox) = known {
            return mailbox.clone();
        }
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        tokio::spawn(actor::run(self.shared.clone(), session.clone(), commands));
        sessions.insert(session.clone(), mailbox.clone());
        mailbox
    }
}
