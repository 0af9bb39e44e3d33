//! Being a run of a job of launchd's.
//!
//! launchd starts a job again at a fixed distance, tells nobody how a run ended, and has
//! no word for an end after which it is not to be started. So the shim asks launchd, in
//! each run before it becomes the program, how the one before ended, and decides
//! ([`aegis_core::launchd::Situation`]):
//!
//! ```text
//! launchctl print TARGET ─┐
//! the record of runs ─────┼─► be the program, at once or after a delay
//! waiting connections ────┘   rest: end with 0     stay, until the configuration changes
//! ```
//!
//! What it waits for is in the record, which aegisd reads and where it leaves orders.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_core::launchd::{Hold, Next, Order, RunRecord, Service, Situation};

use crate::back_off::BackOff;
use crate::record;
use crate::sockets::Sockets;

/// The job that this process is a run of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// `DOMAIN/LABEL`.
    pub(crate) target: OsString,
    /// launchctl(1).
    pub(crate) launchctl: PathBuf,
    /// Where the record of its runs is.
    pub(crate) record: PathBuf,
    /// A run that went wrong is not repeated.
    pub(crate) once: bool,
}

/// How long what takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest delay after failures.
    pub(crate) longest: Duration,
    /// A run of this length is healthy.
    pub(crate) healthy_after: Duration,
}

/// What to do with this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Run,
    /// End with 0.
    Rest,
}

/// Why a job could not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error("cannot write the record of runs {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Decides about this run, and waits where that is to be done.
///
/// # Errors
/// The record could not be written.
pub(crate) fn turn(job: &Job, sockets: Option<&Sockets>, limits: Limits) -> Result<Turn, JobError> {
    let before = read(&job.record);
    let now = now();
    let situation = Situation {
        last_end: last_run(job).last_end,
        lasted: Duration::from_micros(now.saturating_sub(before.started)),
        failures: before.failures,
        order: before.order,
        visitors: sockets.map(|sockets| sockets.waits(Duration::ZERO)),
        healthy_after: limits.healthy_after,
        once: job.once,
    };
    let mut record = RunRecord {
        pid: std::process::id(),
        started: now,
        ..RunRecord::default()
    };
    tell_pid();
    match situation.next() {
        Next::Run => {}
        Next::Rest => {
            // The order has been followed: the next connection is served, and a failure
            // after that is one.
            record.order = before.order.filter(|order| *order == Order::Rest);
            write(&job.record, &record)?;
            return Ok(Turn::Rest);
        }
        Next::Config => {
            record.hold = Some(Hold::Config);
            write(&job.record, &record)?;
            crate::say("waiting for another configuration, after an end with 78");
            // A stop or another start of the job ends this process.
            loop {
                std::thread::park();
            }
        }
        Next::After { failures } => {
            record.failures = failures;
            let back_off = BackOff {
                failures,
                ..BackOff::default()
            };
            let delay = back_off.wait(limits.longest);
            let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
            let until = now.saturating_add(micros);
            record.hold = Some(Hold::Delay { since: now, until });
            write(&job.record, &record)?;
            wait(sockets, delay);
        }
    }
    // aegisd may have forgotten the failures meanwhile.
    if record.hold.take().is_some() {
        record.failures = read(&job.record).failures;
    }
    record.started = self::now();
    write(&job.record, &record)?;
    Ok(Turn::Run)
}

/// Waits; a connection ends it, and so does SIGTERM, which nothing here holds back.
fn wait(sockets: Option<&Sockets>, delay: Duration) {
    match sockets {
        Some(sockets) => drop(sockets.waits(delay)),
        None => std::thread::sleep(delay),
    }
}

/// What launchd says of this job. Where it says nothing the job must not be kept from
/// running: that counts as a first run.
fn last_run(job: &Job) -> Service {
    let asked = Command::new(&job.launchctl)
        .arg("print")
        .arg(&job.target)
        .output();
    let trouble = match asked {
        Ok(output) if output.status.success() => {
            return Service::parse(&String::from_utf8_lossy(&output.stdout));
        }
        Ok(output) => format!("it ended with {}", output.status),
        Err(error) => error.to_string(),
    };
    let (program, target) = (job.launchctl.display(), job.target.display());
    crate::say(&format!(
        "cannot ask {program} how {target} last ended: {trouble}, ignoring"
    ));
    Service::default()
}

/// Tells who listens that another process is the job's now (sd_notify(3), `MAINPID=`):
/// launchd would not.
fn tell_pid() {
    let pid = std::process::id();
    // Who does not listen is not told: running matters, telling does not.
    drop(sd_notify::notify(&[sd_notify::NotifyState::MainPid(pid)]));
}

/// What is known of earlier runs: nothing, where the file is missing or damaged.
fn read(path: &Path) -> RunRecord {
    std::fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

fn write(path: &Path, record: &RunRecord) -> Result<(), JobError> {
    record::replace(path, record).map_err(|source| JobError::Write {
        path: path.to_owned(),
        source,
    })
}

/// The wall clock in microseconds since 1970. It only tells people when, and whether a
/// run was a healthy one.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}
