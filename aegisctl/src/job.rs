//! Waiting for a job of aegisd.
//!
//! The watch is set up before the call, so no signal is missed; the job's
//! properties are read after it, so an end before the first signal is seen too. They
//! are read again whenever nothing was told for a while: nobody waits for an aegisd
//! that has nothing to tell any more.

use std::num::NonZeroUsize;
use std::time::Duration;

use aegis_bus::error::CallError;
use aegis_bus::job::{JobOutcome, JobPart, JobState, JobView};
use aegis_bus::names;
use aegis_core::fault::Symbol;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};
use zbus::message::Type;
use zbus::{MatchRule, Message, MessageStream, OwnedObjectPath};

use crate::client::Client;
use crate::failure::Failure;
use crate::ui::{Bar, Progress};

/// Signals kept while nobody waits. All jobs of aegisd share the watch, so it is
/// more than one job sends.
const QUEUE: NonZeroUsize = NonZeroUsize::new(1024).expect("1024 is not zero");
/// Between two looks at the job. Where its end is told nothing waits for this.
const LOOK: Duration = Duration::from_secs(5);
/// How often a call is made again when aegisd ended over it.
const ATTEMPTS: u32 = 3;

/// Sees what every job of aegisd says from now on, and whether aegisd ends.
pub(crate) struct JobWatch {
    client: Client,
    signals: futures_util::stream::Select<MessageStream, MessageStream>,
}

impl JobWatch {
    /// Starts watching.
    pub(crate) async fn start(client: &Client) -> Result<Self, Failure> {
        let subscribe = async {
            let jobs = MatchRule::builder()
                .msg_type(Type::Signal)
                .sender(names::BUS_NAME)
                .path_namespace(format!("{}/job", names::ROOT_PATH))
                .build()?;
            let owner = MatchRule::builder()
                .msg_type(Type::Signal)
                .sender("org.freedesktop.DBus")
                .member("NameOwnerChanged")
                .arg(0, names::BUS_NAME)
                .build()?;
            let connection = &client.connection;
            let jobs = MessageStream::for_match_rule(jobs, connection, Some(QUEUE)).await?;
            let owner = MessageStream::for_match_rule(owner, connection, None).await?;
            Ok(futures_util::stream::select(jobs, owner))
        };
        Ok(Self {
            client: client.clone(),
            signals: subscribe.await.map_err(Failure::call("watch aegisd"))?,
        })
    }

    /// Waits for the end of a job that was asked for after the watch began.
    /// `what` completes "cannot ...".
    ///
    /// # Errors
    /// What the job failed with, a cancellation, or that aegisd ended.
    pub(crate) async fn wait(
        &mut self,
        job: &OwnedObjectPath,
        what: &str,
        progress: &Progress,
    ) -> Result<JobState, Failure> {
        // Where there is no job it ended, and its object went before it could be read.
        // The signal is queued.
        if let Look::Ended(outcome) = self.look(job, what).await? {
            return conclude(outcome, what);
        }
        let mut next_look = Instant::now() + LOOK;
        loop {
            match timeout_at(next_look, self.signals.next()).await {
                Ok(Some(message)) => {
                    let message = message.map_err(Failure::call(what))?;
                    match read(&message, job) {
                        Some(Event::Ended(outcome)) => return conclude(outcome, what),
                        Some(Event::Says { words, parts }) => {
                            if let Some(words) = words {
                                progress.say(&words);
                            }
                            if let Some(parts) = parts {
                                progress.show(parts.into_iter().map(bar).collect());
                            }
                        }
                        Some(Event::AegisdEnded) => break,
                        None => {}
                    }
                }
                Ok(None) => break,
                Err(_) => match self.look(job, what).await? {
                    Look::Running => next_look = Instant::now() + LOOK,
                    Look::Ended(outcome) => return conclude(outcome, what),
                    // All that was told has been read, and its end is not among it.
                    Look::Unknown => break,
                },
            }
        }
        Err(Failure::Call {
            what: what.to_owned(),
            source: CallError::Vanished,
        })
    }

    /// Asks aegisd how the job is.
    async fn look(&self, job: &OwnedObjectPath, what: &str) -> Result<Look, Failure> {
        match self.client.properties(job.clone(), names::JOB).await {
            Ok(properties) => {
                let outcome = JobView::from_properties(properties)?.outcome;
                Ok(match outcome.state {
                    JobState::Running => Look::Running,
                    _ => Look::Ended(outcome),
                })
            }
            Err(error) if is_unknown_object(&error) => Ok(Look::Unknown),
            Err(error) => Err(Failure::call(what)(error)),
        }
    }
}

/// How a job is at one moment.
enum Look {
    Running,
    Ended(JobOutcome),
    Unknown,
}

/// Makes a call that can be repeated and waits for its job. If aegisd ends over
/// it, the call is made again, which starts aegisd again.
pub(crate) async fn perform(
    client: &Client,
    what: &str,
    progress: &Progress,
    call: impl AsyncFn() -> zbus::Result<OwnedObjectPath>,
) -> Result<JobState, Failure> {
    let attempt = async || {
        let mut watch = JobWatch::start(client).await?;
        let job = call().await.map_err(Failure::call(what))?;
        watch.wait(&job, what, progress).await
    };
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match attempt().await {
            Err(failure) if failure.is_vanished() && left > 0 => {}
            outcome => return outcome,
        }
    }
}

/// What a signal means to the waiter.
enum Event {
    Ended(JobOutcome),
    Says {
        words: Option<String>,
        parts: Option<Vec<JobPart>>,
    },
    AegisdEnded,
}

fn read(message: &Message, job: &OwnedObjectPath) -> Option<Event> {
    let header = message.header();
    match header.member()?.as_str() {
        "NameOwnerChanged" => {
            let (_, before, _): (String, String, String) = message.body().deserialize().ok()?;
            // From nobody to somebody is a start.
            (!before.is_empty()).then_some(Event::AegisdEnded)
        }
        _ if header.path()?.as_str() != job.as_str() => None,
        "Completed" => {
            let (state, error, text, hint): (String, String, String, String) =
                message.body().deserialize().ok()?;
            let outcome = JobOutcome::from_parts(&state, &error, &text, &hint);
            Some(Event::Ended(outcome.ok()?))
        }
        "PropertiesChanged" => {
            type Changed = (String, aegis_bus::dict::Dict, Vec<String>);
            let (_, mut changed, _): Changed = message.body().deserialize().ok()?;
            let words = changed.remove("Status");
            let parts = changed.remove("Parts");
            Some(Event::Says {
                words: words.and_then(|words| String::try_from(words).ok()),
                parts: parts.and_then(|parts| Vec::try_from(parts).ok()),
            })
        }
        _ => None,
    }
}

fn bar((name, stage, done, total): JobPart) -> Bar {
    Bar {
        name,
        stage,
        done,
        total,
    }
}

fn conclude(outcome: JobOutcome, what: &str) -> Result<JobState, Failure> {
    match (outcome.state, outcome.fault) {
        (JobState::Failed, Some(fault)) if fault.symbol != Symbol::Cancelled => {
            Err(Failure::Call {
                what: what.to_owned(),
                source: CallError::Fault(fault),
            })
        }
        (JobState::Failed | JobState::Cancelled, _) => Err(Failure::Cancelled {
            what: what.to_owned(),
        }),
        (state, _) => Ok(state),
    }
}

/// Whether an object is not there (any more).
pub(crate) fn is_unknown_object(error: &zbus::Error) -> bool {
    matches!(
        error,
        zbus::Error::FDO(error) if matches!(
            **error,
            zbus::fdo::Error::UnknownObject(_) | zbus::fdo::Error::UnknownInterface(_)
        )
    )
}
