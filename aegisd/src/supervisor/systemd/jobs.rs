//! Jobs: what a call to the manager began, and how it ended.

use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, timeout_at};
use zbus::OwnedObjectPath;

use super::manager::is_absent;
use super::signals::Signal;
use super::{Systemd, failed, query};
use crate::supervisor::error::JobEnd;
use crate::supervisor::state::{Active, ProcessEnd};
use crate::supervisor::{Change, SupervisorError, UnitId, UnitState};

/// The manager's exit codes that mean: the sandbox could not be made. 217 USER,
/// 218 CAPABILITIES, 226 NAMESPACE, 228 SECCOMP.
const CONFINEMENT_CODES: [i32; 4] = [217, 218, 226, 228];

/// How long to look at a unit that fails and restarts for why it fails: several of
/// its shortest delays.
const NEXT_RUN_PATIENCE: Duration = Duration::from_secs(2);

/// Between two questions whether a job is still there. Where its end is told nothing
/// waits for this.
const LOOK: Duration = Duration::from_secs(5);

/// How a job came to its end, other than done.
#[derive(Debug)]
pub(super) enum Ended {
    Call(zbus::Error),
    Job(JobEnd),
    Lost(SupervisorError),
}

impl Systemd {
    /// Enqueues a job and waits for its end. It listens before it calls, so an end
    /// that comes before the call's answer is not missed.
    ///
    /// A job may go without a word: with a manager that is replaced, or while one
    /// reads its units again. So after either, after signals that were missed, and
    /// now and then the manager is asked whether it still has the job.
    pub(super) async fn finish(
        &self,
        operation: &'static str,
        unit: &UnitId,
        call: impl Future<Output = zbus::Result<OwnedObjectPath>>,
    ) -> Result<(), Ended> {
        let mut signals = self.signals.resubscribe();
        let job = call.await.map_err(Ended::Call)?;
        let mut next_look = Instant::now() + LOOK;
        loop {
            match timeout_at(next_look, signals.recv()).await {
                Ok(Ok(Signal::Job(ended))) if ended.job == job => {
                    return ended.end.map_or(Ok(()), |end| Err(Ended::Job(end)));
                }
                Ok(Ok(Signal::Job(_) | Signal::Unit(_))) => continue,
                Ok(Ok(Signal::Reloaded | Signal::Replaced) | Err(RecvError::Lagged(_)))
                | Err(_) => {}
                Ok(Err(RecvError::Closed)) => {
                    return Err(Ended::Lost(SupervisorError::Call {
                        operation,
                        unit: unit.name(),
                        source: "the connection to the bus ended".into(),
                    }));
                }
            }
            if !self.job_exists(&job).await {
                return self.end_of(operation, &job, &mut signals, unit).await;
            }
            next_look = Instant::now() + LOOK;
        }
    }

    /// How a job ended that the manager has no more: as it said, or else as the
    /// unit shows.
    async fn end_of(
        &self,
        operation: &'static str,
        job: &OwnedObjectPath,
        signals: &mut broadcast::Receiver<Signal>,
        unit: &UnitId,
    ) -> Result<(), Ended> {
        // The answer about the job came after everything that was told before it.
        loop {
            match signals.try_recv() {
                Ok(Signal::Job(ended)) if ended.job == *job => {
                    return ended.end.map_or(Ok(()), |end| Err(Ended::Job(end)));
                }
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        match self.state(unit).await.map_err(Ended::Lost)? {
            Some(state) if state.active == Active::Failed => Err(Ended::Job(JobEnd::Failed)),
            None if operation != "stop" => Err(Ended::Job(JobEnd::Canceled)),
            _ => Ok(()),
        }
    }

    /// Whether the manager still has a job. Where that cannot be found out it is
    /// taken to be there: the end of the connection is told elsewhere.
    async fn job_exists(&self, job: &OwnedObjectPath) -> bool {
        let properties = query::properties(&self.connection, job, "org.freedesktop.systemd1.Job");
        !properties.await.is_err_and(|error| is_absent(&error))
    }

    /// Adds to an ended job what the unit says about it.
    pub(super) async fn explain(
        &self,
        operation: &'static str,
        unit: &UnitId,
        ended: Result<(), Ended>,
    ) -> Result<(), SupervisorError> {
        let name = unit.name();
        let end = match ended {
            Ok(()) => return Ok(()),
            Err(Ended::Lost(error)) => return Err(error),
            Err(Ended::Call(error)) if is_absent(&error) => {
                return Err(SupervisorError::NotFound { unit: name });
            }
            Err(Ended::Call(error)) => return Err(failed(operation, &name, error)),
            Err(Ended::Job(end)) => end,
        };
        let state = self.state_after_failure(unit).await?;
        let last_end = state.as_ref().and_then(|state| state.last_end);
        if let Some(ProcessEnd::Code(code)) = last_end
            && CONFINEMENT_CODES.contains(&code)
        {
            return Err(SupervisorError::NotConfined { unit: name, code });
        }
        if let Some(want) = state.as_ref().and_then(UnitState::want_of_memory) {
            return Err(SupervisorError::OutOfMemory { unit: name, want });
        }
        let result = state.map(|state| state.result);
        Err(SupervisorError::Job {
            operation,
            unit: name,
            end,
            result,
            last_end,
        })
    }

    /// The state of a unit whose start failed. A restart at once may have wiped out
    /// how the run ended; then the end of the next run tells as much.
    async fn state_after_failure(
        &self,
        unit: &UnitId,
    ) -> Result<Option<UnitState>, SupervisorError> {
        let mut signals = self.signals.resubscribe();
        let deadline = tokio::time::Instant::now() + NEXT_RUN_PATIENCE;
        loop {
            let state = self.state(unit).await?;
            let starting =
                |state: &UnitState| state.active == Active::Activating && state.last_end.is_none();
            if !state.as_ref().is_some_and(starting) {
                return Ok(state);
            }
            let next = async {
                while let Ok(signal) = signals.recv().await {
                    if matches!(signal, Signal::Unit(Change::Changed(ref changed)) if changed == unit)
                    {
                        return;
                    }
                }
            };
            if tokio::time::timeout_at(deadline, next).await.is_err() {
                return Ok(state);
            }
        }
    }
}
