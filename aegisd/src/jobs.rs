//! Jobs: long operations that clients follow and may cancel.
//!
//! A job is begun by whoever accepts a request, carried along by whoever does
//! the work, and always ends: one that is dropped without an end has failed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aegis_bus::job::{JobOutcome, JobPart, JobState, LINGER_SECS};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::handle::Handle;
use tokio::sync::Notify;

use crate::board::{Board, JobId, JobShown};

/// Whether an operation had something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Changed,
    Unchanged,
}

impl Outcome {
    /// `Changed` if either is.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::Changed { self } else { other }
    }
}

/// Begins jobs and finds them again to cancel them.
#[derive(Debug)]
pub struct Jobs {
    board: Arc<Board>,
    next: AtomicU64,
    running: Arc<Mutex<HashMap<JobId, Arc<Notify>>>>,
}

impl Jobs {
    /// Jobs shown on this board.
    pub fn new(board: Arc<Board>) -> Self {
        Self {
            board,
            next: AtomicU64::new(1),
            running: Arc::default(),
        }
    }

    /// Begins a job of the user `owner` and shows it.
    pub fn begin(&self, kind: &'static str, instance: Option<&Handle>, owner: u32) -> Job {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let cancel = Arc::new(Notify::new());
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(id, cancel.clone());
        let shown = JobShown {
            kind,
            instance: instance.cloned(),
            owner,
            progress: -1.0,
            status: String::new(),
            parts: Vec::new(),
            image: String::new(),
            outcome: JobOutcome {
                state: JobState::Running,
                fault: None,
            },
        };
        self.board
            .change(|board| drop(board.jobs.insert(id, Arc::new(shown))));
        Job {
            id,
            board: self.board.clone(),
            running: self.running.clone(),
            cancel,
            ended: false,
        }
    }

    /// Asks a job to end early. One that has ended stays as it ended.
    pub fn cancel(&self, id: JobId) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cancel) = running.get(&id) {
            // Keeps a permit, so a job that looks later sees it too.
            cancel.notify_one();
        }
    }
}

/// A job under way.
#[derive(Debug)]
pub struct Job {
    id: JobId,
    board: Arc<Board>,
    running: Arc<Mutex<HashMap<JobId, Arc<Notify>>>>,
    cancel: Arc<Notify>,
    ended: bool,
}

impl Job {
    pub fn id(&self) -> JobId {
        self.id
    }

    /// What the work needs of its job: a way to say how far it is and to hear
    /// that it shall end.
    pub fn reporter(&self) -> Reporter {
        Reporter {
            shown: Some((self.id, self.board.clone())),
            cancel: self.cancel.clone(),
        }
    }

    /// Ends the job.
    pub fn end(mut self, result: Result<Outcome, Fault>) {
        self.conclude(result);
    }

    fn conclude(&mut self, result: Result<Outcome, Fault>) {
        self.ended = true;
        let (state, fault) = match result {
            Ok(Outcome::Changed) => (JobState::Done, None),
            Ok(Outcome::Unchanged) => (JobState::Unchanged, None),
            Err(fault) if fault.symbol == Symbol::Cancelled => (JobState::Cancelled, Some(fault)),
            Err(fault) => (JobState::Failed, Some(fault)),
        };
        let outcome = JobOutcome { state, fault };
        let id = self.id;
        change(&self.board, id, |job| {
            job.progress = 1.0;
            job.outcome = outcome;
        });
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&id);
        let board = self.board.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(LINGER_SECS)).await;
            board.change(|shown| drop(shown.jobs.remove(&id)));
        });
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ended {
            let message = "the operation was given up before it ended";
            self.conclude(Err(Fault::new(Symbol::Internal, message)));
        }
    }
}

/// The side of a job that its work sees.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// `None` where nobody asked for the work.
    shown: Option<(JobId, Arc<Board>)>,
    cancel: Arc<Notify>,
}

impl Reporter {
    /// For work that no client follows.
    pub fn silent() -> Self {
        Self {
            shown: None,
            cancel: Arc::default(),
        }
    }

    /// Says what is being done, in words.
    pub fn says(&self, words: &str) {
        if let Some((id, board)) = &self.shown {
            change(board, *id, |job| words.clone_into(&mut job.status));
        }
    }

    /// Says how far the work is: 0 to 1, in words, and part by part.
    pub fn is_at(&self, progress: f64, words: String, parts: Vec<JobPart>) {
        if let Some((id, board)) = &self.shown {
            change(board, *id, |job| {
                job.progress = progress;
                job.status = words;
                job.parts = parts;
            });
        }
    }

    /// Says which image is here now, before the job ends.
    pub fn brought(&self, image: String) {
        if let Some((id, board)) = &self.shown {
            change(board, *id, |job| job.image = image);
        }
    }

    /// Returns once the job shall end early; perhaps never.
    pub async fn cancelled(&self) {
        self.cancel.notified().await;
    }
}

fn change(board: &Board, id: JobId, change: impl FnOnce(&mut JobShown)) {
    board.change(|shown| {
        if let Some(job) = shown.jobs.get_mut(&id) {
            change(Arc::make_mut(job));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_job_ends_once_and_lingers() {
        let board = Arc::new(Board::default());
        let jobs = Jobs::new(board.clone());
        let job = jobs.begin("start", None, 0);
        let id = job.id();
        job.reporter().says("booting");
        assert_eq!(board.job(id).unwrap().status, "booting");
        job.end(Ok(Outcome::Unchanged));
        assert_eq!(board.job(id).unwrap().outcome.state, JobState::Unchanged);
        tokio::time::sleep(Duration::from_secs(LINGER_SECS - 1)).await;
        assert!(board.job(id).is_some());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(board.job(id).is_none());
    }

    #[tokio::test]
    async fn a_dropped_job_has_failed() {
        let board = Arc::new(Board::default());
        let jobs = Jobs::new(board.clone());
        let job = jobs.begin("start", None, 0);
        let id = job.id();
        drop(job);
        assert_eq!(board.job(id).unwrap().outcome.state, JobState::Failed);
    }

    #[tokio::test]
    async fn a_cancel_before_the_work_looks_is_not_lost() {
        let jobs = Jobs::new(Arc::new(Board::default()));
        let job = jobs.begin("start", None, 0);
        jobs.cancel(job.id());
        job.reporter().cancelled().await;
        job.end(Err(Fault::new(Symbol::Cancelled, "cancelled")));
    }
}
