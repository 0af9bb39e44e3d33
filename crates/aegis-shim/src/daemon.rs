//! Becoming the daemon.
//!
//! ```text
//! read the spec ─► wait out the back-off ─► note the start ─► read the secrets
//!     ─► give up privileges ─► exec
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aegis_core::credential::{Credential, CredentialError, NAME};
use aegis_core::daemon_spec::DaemonSpec;
use aegis_core::secret::SecretEnv;
use zeroize::Zeroizing;

use crate::launchd::{self, Job, JobError, Limits, Turn};
use crate::privileges::{self, PrivilegeError};
use crate::record::{self, RecordError};
use crate::signals;

/// Why the shim did not become the daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error("cannot read the daemon spec {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the daemon spec {path} makes no sense")]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the service manager gave daemon '{daemon}' no credential")]
    NoCredential { daemon: String },
    #[error("cannot read the credential {path}")]
    ReadCredential {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("daemon '{daemon}' cannot have its secrets")]
    Credential {
        daemon: String,
        #[source]
        source: CredentialError,
    },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Job(#[from] JobError),
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    #[error("cannot set the signals back to their defaults")]
    Signals(#[source] nix::errno::Errno),
    #[error("cannot enter the folder {path} of daemon '{daemon}'")]
    Workdir {
        daemon: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot run {program} for daemon '{daemon}'")]
    Exec {
        daemon: String,
        program: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl DaemonError {
    /// 127 where the program is missing and 126 where it cannot run, as shells have
    /// it (POSIX sh, 2.8.2); 125 for failures of the shim.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Exec { .. } => 126,
            _ => crate::OURS,
        }
    }
}

/// What a daemon takes over from the unit: how it says that it is ready and alive
/// (sd_notify(3), sd_watchdog_enabled(3)).
const FROM_THE_UNIT: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// How long after its wait a daemon may take to be ready; the manager's limit for
/// the start is extended by the wait and this.
#[cfg(target_os = "linux")]
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// Becomes the daemon of a spec; it returns only if that failed, or if a job of
/// launchd's is to rest.
///
/// # Errors
/// What failed; the daemon did not run.
pub(crate) fn become_daemon(
    spec: &Path,
    back_off: Option<&Path>,
    job: Option<&Job>,
) -> Result<(), DaemonError> {
    let text = std::fs::read(spec).map_err(|source| DaemonError::Read {
        path: spec.to_owned(),
        source,
    })?;
    let spec: DaemonSpec = serde_json::from_slice(&text).map_err(|source| DaemonError::Parse {
        path: spec.to_owned(),
        source,
    })?;
    let [longest, healthy_after] =
        [spec.restart_max_delay_ms, spec.restart_reset_after_ms].map(Duration::from_millis);
    if let Some(path) = back_off {
        wait(path, longest, healthy_after)?;
    }
    if let Some(job) = job {
        let limits = Limits {
            longest,
            healthy_after,
        };
        if launchd::turn(job, None, limits)? == Turn::Rest {
            return Ok(());
        }
    }
    let secrets = secrets(&spec)?;
    std::env::set_current_dir(&spec.workdir).map_err(|source| DaemonError::Workdir {
        daemon: spec.name.clone(),
        path: spec.workdir.clone(),
        source,
    })?;
    signals::set_back().map_err(DaemonError::Signals)?;
    privileges::give_up()?;
    let taken = FROM_THE_UNIT
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)));
    let source = Command::new(&spec.program)
        .args(&spec.args)
        .env_clear()
        .envs(environment(&spec.env, taken, &secrets))
        .exec();
    Err(DaemonError::Exec {
        daemon: spec.name,
        program: spec.program,
        source,
    })
}

/// The secrets from the credential of the unit. The memory they were read into is
/// overwritten; what is handed to exec goes with this program.
fn secrets(spec: &DaemonSpec) -> Result<SecretEnv, DaemonError> {
    if !spec.needs_secrets {
        return Ok(SecretEnv::new());
    }
    let text = aegis_os::credential::read(NAME).map_err(|error| match error {
        aegis_os::credential::CredentialError::None => DaemonError::NoCredential {
            daemon: spec.name.clone(),
        },
        aegis_os::credential::CredentialError::Read { path, source } => {
            DaemonError::ReadCredential { path, source }
        }
    })?;
    let text = Zeroizing::new(text);
    let env = Credential::read(&text).and_then(Credential::into_env);
    env.map_err(|source| DaemonError::Credential {
        daemon: spec.name.clone(),
        source,
    })
}

/// Waits out the back-off and notes that a run begins.
fn wait(path: &Path, longest: Duration, healthy_after: Duration) -> Result<(), RecordError> {
    let known = record::known(path);
    let wait = known.wait(longest);
    if !wait.is_zero() {
        announce(&known.words(wait), wait);
        // A stop ends the wait: nothing here holds SIGTERM back.
        std::thread::sleep(wait);
        announce("", Duration::ZERO);
    }
    record::note_start(path, &known, healthy_after)
}

/// Tells the manager's people why nothing happens, and the manager to be patient.
#[cfg(target_os = "linux")]
fn announce(status: &str, wait: Duration) {
    use sd_notify::NotifyState;

    let patience = u64::try_from((wait + START_TIMEOUT).as_micros()).unwrap_or(u64::MAX);
    let patience = format!("EXTEND_TIMEOUT_USEC={patience}");
    // Who does not listen is not told: waiting matters, telling does not.
    drop(sd_notify::notify(&[
        NotifyState::Status(status),
        NotifyState::Custom(&patience),
    ]));
}

#[cfg(not(target_os = "linux"))]
fn announce(_status: &str, _wait: Duration) {}

/// The spec's environment, and what the unit adds to it: the spec wins over the
/// unit, and secrets over both.
fn environment(
    spec: &BTreeMap<String, String>,
    unit: impl Iterator<Item = (&'static str, OsString)>,
    secrets: &SecretEnv,
) -> BTreeMap<OsString, OsString> {
    let mut all: BTreeMap<OsString, OsString> =
        unit.map(|(name, value)| (name.into(), value)).collect();
    all.extend(spec.iter().map(|(name, value)| (name.into(), value.into())));
    let revealed = secrets.iter().map(|(name, value)| (name, value.reveal()));
    all.extend(revealed.map(|(name, value)| (name.into(), value.into())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spec_wins_over_the_unit_and_secrets_over_both() {
        let spec = BTreeMap::from([
            ("NOTIFY_SOCKET".to_owned(), String::new()),
            ("KEY".to_owned(), "plain".to_owned()),
        ]);
        let secrets = SecretEnv::from([("KEY".to_owned(), "secret".to_owned().into())]);
        let unit = [
            ("NOTIFY_SOCKET", "/run/x".into()),
            ("WATCHDOG_USEC", "1".into()),
        ];
        let all = environment(&spec, unit.into_iter(), &secrets);
        assert_eq!(all[&OsString::from("KEY")], "secret");
        assert_eq!(all[&OsString::from("NOTIFY_SOCKET")], "");
        assert_eq!(all[&OsString::from("WATCHDOG_USEC")], "1");
    }
}
