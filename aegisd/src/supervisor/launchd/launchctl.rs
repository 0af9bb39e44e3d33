//! Calls of launchctl(1): arguments, and what its exit codes mean.
//!
//! | code | meaning | here |
//! |---|---|---|
//! | 3 | no such process | nothing to stop or to signal |
//! | 5 | input/output error | a label that drains, a bad property list: tried again for 30 s |
//! | 36, 37 | in progress, already so | as asked |
//! | 113 | could not find service | not known |
//! | 119 | service is disabled | an error that says so |
//! | 125 | no such domain, e.g. `gui/UID` without a login window | another domain is tried |
//!
//! The codes are not documented; these were reported of macOS 13 to 15.

#![expect(
    clippy::disallowed_methods,
    reason = "the place these calls are to be made in"
)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use aegis_fault_points::around_async;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::supervisor::plan::HelperPlan;

/// How long a job may be refused with 5 before that is an error: a label stays up to 5 s
/// after a bootout, longer where the program takes its time.
const DRAINS: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);
/// How long one call may take. launchctl answers at once, unless launchd hangs.
const PATIENCE: Duration = Duration::from_secs(60);

const NO_PROCESS: i32 = 3;
const INPUT_OUTPUT: i32 = 5;
const IN_PROGRESS: i32 = 36;
const ALREADY: i32 = 37;
const NOT_FOUND: i32 = 113;
const DISABLED: i32 = 119;
const NO_DOMAIN: i32 = 125;

/// Why a call of launchctl failed.
#[derive(Debug, thiserror::Error)]
pub enum LaunchctlError {
    #[error("cannot run {path}")]
    Run {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("'launchctl {command}' takes longer than {} s", PATIENCE.as_secs())]
    Slow { command: String },
    #[error("'launchctl {command}' ended with {code}, {meaning}: {words}")]
    Ended {
        command: String,
        code: i32,
        meaning: &'static str,
        words: String,
    },
    #[error("launchctl is in no folder of PATH")]
    Missing,
    #[error("launchd has none of the domains {0}")]
    NoDomain(String),
}

/// The program.
#[derive(Clone, Debug)]
pub struct Launchctl {
    path: PathBuf,
}

impl Launchctl {
    /// The program at this path.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The one in the PATH.
    ///
    /// # Errors
    /// There is none.
    pub fn find() -> Result<Self, LaunchctlError> {
        let search = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&search).map(|folder| folder.join("launchctl"));
        let path = places.find(|path| path.is_absolute() && path.is_file());
        path.map(Self::at).ok_or(LaunchctlError::Missing)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What launchd says of a domain or a job; `None` if it does not know it.
    pub(super) async fn print(&self, target: &str) -> Result<Option<String>, LaunchctlError> {
        let output = self.call(&["print", target]).await?;
        match code(&output) {
            0 => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
            NOT_FOUND | NO_DOMAIN | NO_PROCESS => Ok(None),
            _ => Err(ended(&["print", target], &output)),
        }
    }

    /// Loads a job. A label that still drains is waited for.
    pub(super) async fn bootstrap(&self, domain: &str, file: &Path) -> Result<(), LaunchctlError> {
        let file = file.to_string_lossy();
        let words = ["bootstrap", domain, &*file];
        let deadline = Instant::now() + DRAINS;
        loop {
            let output = step("launchctl.bootstrap", self.call(&words)).await?;
            match code(&output) {
                0 | ALREADY => return Ok(()),
                INPUT_OUTPUT if Instant::now() < deadline => sleep(PAUSE).await,
                _ => return Err(ended(&words, &output)),
            }
        }
    }

    /// Begins to let a job go; `false` if launchd does not know it.
    pub(super) async fn bootout(&self, target: &str) -> Result<bool, LaunchctlError> {
        let words = ["bootout", target];
        let output = step("launchctl.bootout", self.call(&words)).await?;
        match code(&output) {
            0 | IN_PROGRESS | ALREADY => Ok(true),
            NO_PROCESS | NOT_FOUND => Ok(false),
            _ => Err(ended(&words, &output)),
        }
    }

    /// Starts a job that does not run; `false` if launchd does not know it.
    pub(super) async fn kickstart(&self, target: &str) -> Result<bool, LaunchctlError> {
        let words = ["kickstart", target];
        let output = step("launchctl.kickstart", self.call(&words)).await?;
        match code(&output) {
            0 | IN_PROGRESS | ALREADY => Ok(true),
            NOT_FOUND => Ok(false),
            _ => Err(ended(&words, &output)),
        }
    }

    /// Sends a signal to a job's process; `false` if there is none.
    pub(super) async fn kill(&self, signal: i32, target: &str) -> Result<bool, LaunchctlError> {
        let words = ["kill", &signal.to_string(), target];
        let output = step("launchctl.kill", self.call(&words)).await?;
        match code(&output) {
            0 => Ok(true),
            NO_PROCESS | NOT_FOUND => Ok(false),
            _ => Err(ended(&words, &output)),
        }
    }

    async fn call(&self, words: &[&str]) -> Result<Output, LaunchctlError> {
        let mut command = Command::new(&self.path);
        command.args(words).stdin(Stdio::null());
        let output = timeout(PATIENCE, command.output()).await;
        let output = output.map_err(|_| LaunchctlError::Slow {
            command: words.join(" "),
        })?;
        output.map_err(|source| LaunchctlError::Run {
            path: self.path.clone(),
            source,
        })
    }
}

/// Starts a helper, which launchd cannot: no job of its can have a descriptor of ours as
/// its input. Its process group is its own, so it is not killed with aegisd's.
pub(super) async fn start_helper(plan: HelperPlan) -> io::Result<()> {
    let start = async {
        let mut command = std::process::Command::new(&plan.program.path);
        command
            .args(&plan.program.arguments)
            .stdin(plan.input)
            .stdout(Stdio::null())
            .process_group(0);
        // Whoever drops it lets it run; the runtime reaps it.
        Command::from(command).spawn().map(drop)
    };
    around_async("helper.start", |error| error, start).await
}

/// The exit code; one that was killed has none, which is no success.
fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn ended(words: &[&str], output: &Output) -> LaunchctlError {
    let code = code(output);
    let said = String::from_utf8_lossy(&output.stderr);
    LaunchctlError::Ended {
        command: words.join(" "),
        code,
        meaning: meaning(code),
        words: said.trim().replace('\n', "; "),
    }
}

fn meaning(code: i32) -> &'static str {
    match code {
        NO_PROCESS => "there is no such process",
        INPUT_OUTPUT => "the property list or one of its sockets is refused, or the label drains",
        IN_PROGRESS => "another change of the job is in progress",
        ALREADY => "it is so already",
        NOT_FOUND => "launchd does not know the job",
        DISABLED => "the job is disabled, 'launchctl enable' allows it again",
        NO_DOMAIN => "launchd has no such domain, e.g. no login window for gui/UID",
        _ => "which is not known here",
    }
}

/// One call that changes something, with its fault points.
async fn step<T>(
    name: &str,
    call: impl Future<Output = Result<T, LaunchctlError>>,
) -> Result<T, LaunchctlError> {
    let failed = |source| LaunchctlError::Run {
        path: name.into(),
        source,
    };
    around_async(name, failed, call).await
}
