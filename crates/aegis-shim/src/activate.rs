//! Becoming a program behind the sockets of a job of launchd's: the owner of a VM.
//!
//! ```text
//! take the sockets ─► is this run one? ─no──► end with 0: launchd listens on
//!                           └──yes─► pass the sockets on ─► exec
//! ```

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use crate::launchd::{self, Job, JobError, Limits, Turn};
use crate::signals;
use crate::sockets::Sockets;

/// The delays of a VM that fails: as long as systemd's, where aegisd says them.
const LIMITS: Limits = Limits {
    longest: Duration::from_secs(60),
    healthy_after: Duration::from_secs(600),
};

/// Why the shim did not become the program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActivateError {
    #[error("cannot take the sockets of {job}", job = .job.display())]
    Take {
        job: OsString,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Job(#[from] JobError),
    #[error("cannot set the signals back to their defaults")]
    Signals(#[source] nix::errno::Errno),
    #[error("cannot pass the sockets of {job} on", job = .job.display())]
    PassOn {
        job: OsString,
        #[source]
        source: io::Error,
    },
    #[error("cannot run {program} for {job}", program = .program.display(), job = .job.display())]
    Exec {
        job: OsString,
        program: OsString,
        #[source]
        source: io::Error,
    },
}

impl ActivateError {
    /// As of a daemon that cannot run.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Exec { .. } => 126,
            _ => crate::OURS,
        }
    }
}

/// Becomes the program, or returns if this run is to be none.
///
/// # Errors
/// What failed; the program did not run.
pub(crate) fn activate(job: &Job, program: &[OsString]) -> Result<(), ActivateError> {
    let target = || job.target.clone();
    let sockets = Sockets::take().map_err(|source| ActivateError::Take {
        job: target(),
        source,
    })?;
    if launchd::turn(job, Some(&sockets), LIMITS)? == Turn::Rest {
        return Ok(());
    }
    signals::set_back().map_err(ActivateError::Signals)?;
    let [path, arguments @ ..] = program else {
        return Ok(());
    };
    let mut command = Command::new(path);
    command.args(arguments);
    sockets
        .pass_on(&mut command)
        .map_err(|source| ActivateError::PassOn {
            job: target(),
            source,
        })?;
    Err(ActivateError::Exec {
        job: target(),
        program: path.clone(),
        source: command.exec(),
    })
}
