//! The Job interface: one long operation.
//!
//! ```text
//!  running ──► done | unchanged | failed | cancelled ──► (30 s later the object goes)
//! ```
//!
//! A caller subscribes before it calls, then reads `State`, then waits for
//! `Completed`: whichever comes first has the outcome.

use std::fmt;
use std::str::FromStr;

use aegis_core::fault::Fault;
use zbus::OwnedObjectPath;

use crate::dict::{Dict, DictError, DictReader};
use crate::error::{error_name, to_fault};

/// How long a job's object stays after the job has ended, in seconds: late
/// readers find the outcome.
pub const LINGER_SECS: u64 = 30;

/// A job, at [`crate::names::job_path`].
#[zbus::proxy(
    interface = "org.aegisvm.Aegis1.Job",
    default_service = "org.aegisvm.Aegis1"
)]
pub trait Job {
    /// Asks the job to end early. It ends as `cancelled`, or as it would have.
    #[zbus(allow_interactive_auth)]
    fn cancel(&self) -> zbus::Result<()>;

    /// Sent once, when the job has ended. The last three are empty unless it failed.
    #[zbus(signal)]
    fn completed(
        &self,
        state: &str,
        error_name: &str,
        message: &str,
        hint: &str,
    ) -> zbus::Result<()>;

    /// create, start, stop, ...
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> zbus::Result<String>;
    /// The instance it works on; the root path stands for all.
    #[zbus(property(emits_changed_signal = "const"))]
    fn instance(&self) -> zbus::Result<OwnedObjectPath>;
    /// 0 to 1; -1 while unknown.
    #[zbus(property)]
    fn progress(&self) -> zbus::Result<f64>;
    /// What it does at the moment, in words.
    #[zbus(property)]
    fn status(&self) -> zbus::Result<String>;
    /// What it is made of, where it has parts that go on side by side.
    #[zbus(property)]
    fn parts(&self) -> zbus::Result<Vec<JobPart>>;
    /// The identity of the image that it brought here; empty until then, and of other
    /// jobs.
    #[zbus(property)]
    fn image(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn error_name(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn error_message(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn hint(&self) -> zbus::Result<String>;
}

/// A part of a job, e.g. a layer of an image that is pulled: its name, what is done
/// with it in one word, how much of that is done, and of how much (0 if unknown).
pub type JobPart = (String, String, u64, u64);

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    Running,
    /// It did what was asked.
    Done,
    /// There was nothing to do.
    Unchanged,
    Failed,
    Cancelled,
}

impl JobState {
    const ALL: [Self; 5] = [
        Self::Running,
        Self::Done,
        Self::Unchanged,
        Self::Failed,
        Self::Cancelled,
    ];

    /// As it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A state this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not the state of a job")]
pub struct UnknownJobState(String);

impl FromStr for JobState {
    type Err = UnknownJobState;

    fn from_str(text: &str) -> Result<Self, UnknownJobState> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| UnknownJobState(text.to_owned()))
    }
}

/// A job's state, with the fault of a failed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobOutcome {
    pub state: JobState,
    pub fault: Option<Fault>,
}

impl JobOutcome {
    /// An outcome from the arguments of `Completed` or the properties of the
    /// same names.
    ///
    /// # Errors
    /// A state this version does not know.
    pub fn from_parts(
        state: &str,
        error: &str,
        message: &str,
        hint: &str,
    ) -> Result<Self, UnknownJobState> {
        let mut fault = to_fault(error, message);
        if !hint.is_empty() {
            fault = fault.with_hint(hint);
        }
        Ok(Self {
            state: state.parse()?,
            fault: (!error.is_empty()).then_some(fault),
        })
    }

    /// State, error name, message and hint, as `Completed` carries them.
    pub fn to_parts(&self) -> (String, String, String, String) {
        let (name, message, hint) = match &self.fault {
            None => Default::default(),
            Some(fault) => (
                error_name(fault.symbol),
                fault.message.clone(),
                fault.hint.clone().unwrap_or_default(),
            ),
        };
        (self.state.to_string(), name, message, hint)
    }
}

/// Every property of a job, read at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    pub outcome: JobOutcome,
    /// 0 to 1; -1 while unknown.
    pub progress: f64,
    pub status: String,
    /// The identity of the image that it brought here; empty without one.
    pub image: String,
}

impl JobView {
    /// Reads the answer of `Properties.GetAll`.
    ///
    /// # Errors
    /// A missing or unknown state, or a value of a wrong type.
    pub fn from_properties(properties: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("job property", properties);
        let mut text = |key| reader.take::<String>(key).map(Option::unwrap_or_default);
        let [state, error, message, hint, status, image] = [
            "State",
            "ErrorName",
            "ErrorMessage",
            "Hint",
            "Status",
            "Image",
        ]
        .map(&mut text);
        let outcome = JobOutcome::from_parts(&state?, &error?, &message?, &hint?);
        Ok(Self {
            outcome: outcome.map_err(|source| DictError::Value {
                what: "job property",
                key: "State",
                source: source.into(),
            })?,
            progress: reader.take("Progress")?.unwrap_or(-1.0),
            status: status?,
            image: image?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::put;
    use aegis_core::fault::Symbol;

    #[test]
    fn outcomes_travel_whole() {
        let fault = Fault::new(Symbol::KernelMissing, "no kernel").with_hint("make kernel");
        for outcome in [
            JobOutcome {
                state: JobState::Unchanged,
                fault: None,
            },
            JobOutcome {
                state: JobState::Failed,
                fault: Some(fault),
            },
        ] {
            let (state, name, message, hint) = outcome.to_parts();
            let read = JobOutcome::from_parts(&state, &name, &message, &hint).unwrap();
            assert_eq!(read, outcome);
        }
    }

    #[test]
    fn properties_become_a_view() {
        let mut dict = Dict::new();
        put(&mut dict, "State", "running");
        put(&mut dict, "Progress", 0.5);
        put(&mut dict, "Status", "Booting");
        let view = JobView::from_properties(dict).unwrap();
        assert_eq!(view.outcome.state, JobState::Running);
        assert_eq!(view.outcome.fault, None);
        assert_eq!((view.progress, view.status.as_str()), (0.5, "Booting"));
    }
}
