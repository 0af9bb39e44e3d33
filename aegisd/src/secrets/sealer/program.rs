//! A program of the host that seals, asked through pipes.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::SealerError;
use crate::effects;

/// How long it may take. A TPM2 takes seconds where others use it too.
const DEADLINE: Duration = Duration::from_secs(30);
/// Most of what it says that is passed on.
const MOST_WORDS: usize = 300;

/// What a program answered.
pub(super) struct Answer {
    program: PathBuf,
    status: ExitStatus,
    stdout: Zeroizing<Vec<u8>>,
    stderr: Vec<u8>,
    most: usize,
}

/// Runs a program with that on its stdin and nothing in its environment but those
/// variables; no more than `most` bytes of its stdout are taken.
///
/// # Errors
/// It does not run, or not end in time.
pub(super) async fn ask(
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, &std::ffi::OsStr)],
    input: &[u8],
    most: usize,
) -> Result<Answer, SealerError> {
    let mut command = Command::new(program);
    // Nothing of ours leads it to other keys.
    command.env_clear().args(arguments);
    command.envs(environment.iter().copied());
    // One byte more than there may be, so that too much is seen.
    let fed = effects::feed(command, input, most + 1);
    let fed = tokio::time::timeout(DEADLINE, fed).await;
    let fed = fed.map_err(|_| SealerError::Slow(program.to_owned()))?;
    let fed = fed.map_err(|source| SealerError::Run {
        program: program.to_owned(),
        source: Arc::new(source),
    })?;
    Ok(Answer {
        program: program.to_owned(),
        status: fed.status,
        stdout: fed.stdout,
        stderr: fed.stderr,
        most,
    })
}

impl Answer {
    /// The exit code, where it ended by itself.
    pub(super) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it gave, if it did what it was asked for.
    ///
    /// # Errors
    /// It refused, or gave too much.
    pub(super) fn given(self) -> Result<Zeroizing<Vec<u8>>, SealerError> {
        if !self.status.success() {
            return Err(SealerError::Refused {
                words: words(&self.stderr, self.status),
                program: self.program,
            });
        }
        match self.stdout.len() > self.most {
            true => Err(SealerError::Answer(self.program)),
            false => Ok(self.stdout),
        }
    }
}

/// What a program said last, or how it ended. None of it comes from what it was given:
/// it says no more than what is wrong.
fn words(stderr: &[u8], status: ExitStatus) -> String {
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    match last {
        Some(line) => line.trim().chars().take(MOST_WORDS).collect(),
        None => status.to_string(),
    }
}
