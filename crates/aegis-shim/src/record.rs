//! The back-off between two runs of a daemon, in a small file.
//!
//! `ended` writes it, `daemon` reads it and notes when the next run begins. The
//! manager never runs the two at once, so there is no lock.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::back_off::BackOff;

/// Why the record could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("cannot write the back-off record {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot remove the back-off record {path}")]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A run as the manager reports it to `ExecStopPost=` (systemd.exec(5),
/// "Environment Variables Set or Propagated by the Service Manager").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    /// `SERVICE_RESULT`: how the service ended.
    pub(crate) result: String,
    /// `EXIT_STATUS`: the code or the name of the signal.
    pub(crate) status: String,
}

/// The exit code of a daemon that needs another configuration (sysexits(3)).
const EXIT_CONFIG: &str = "78";

impl Run {
    /// The run that the manager tells this process of.
    pub(crate) fn reported() -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Self {
            result: variable("SERVICE_RESULT"),
            status: variable("EXIT_STATUS"),
        }
    }

    /// Whether the manager starts the daemon again by itself. Not so after a stop,
    /// and `timeout` is a stop that took too long.
    fn failed(&self) -> bool {
        !matches!(self.result.as_str(), "success" | "timeout") && self.status != EXIT_CONFIG
    }
}

/// Notes how a run ended: counts a failure, forgets all of them otherwise.
///
/// # Errors
/// The file could not be written or removed.
pub(crate) fn note_end(path: &Path, run: &Run) -> Result<(), RecordError> {
    if run.failed() {
        let Some(instant) = Instant::now() else {
            return Ok(());
        };
        let known = read(path, &instant.boot);
        return write(
            path,
            &BackOff {
                boot: instant.boot,
                ..known.failed(instant.millis)
            },
        );
    }
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RecordError::Remove {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// What is known of earlier runs: nothing, where the file is missing, damaged or
/// from another boot. A daemon must not be kept from running by its back-off.
pub(crate) fn known(path: &Path) -> BackOff {
    Instant::now()
        .map(|instant| read(path, &instant.boot))
        .unwrap_or_default()
}

/// Notes that a run begins now, and when it will have been a healthy one.
///
/// # Errors
/// The file could not be written.
pub(crate) fn note_start(
    path: &Path,
    known: &BackOff,
    healthy_after: Duration,
) -> Result<(), RecordError> {
    let Some(instant) = Instant::now() else {
        return Ok(());
    };
    let failures = known.failures;
    write(
        path,
        &BackOff {
            failures,
            began: instant.millis,
            boot: instant.boot,
            healthy_after: u64::try_from(healthy_after.as_millis()).unwrap_or(u64::MAX),
        },
    )
}

fn read(path: &Path, boot: &str) -> BackOff {
    std::fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice::<BackOff>(&text).ok())
        .filter(|known| known.boot == boot)
        .unwrap_or_default()
}

fn write(path: &Path, back_off: &BackOff) -> Result<(), RecordError> {
    replace(path, back_off).map_err(|source| RecordError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file by a value as JSON, as a whole, so that a reader never sees half of it.
pub(crate) fn replace(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, path)
}

/// A moment of this boot. Wall clock time would make a wait of hours out of a
/// clock that is set back.
struct Instant {
    boot: String,
    millis: u64,
}

impl Instant {
    /// `None` where the system does not tell, as elsewhere than where systemd is.
    #[cfg(target_os = "linux")]
    fn now() -> Option<Self> {
        use nix::time::{ClockId, clock_gettime};

        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let time = std::time::Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
        let millis = u64::try_from(time.as_millis()).ok()?;
        Some(Self {
            boot: boot.trim().to_owned(),
            millis,
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Option<Self> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn run(result: &str, status: &str) -> Run {
        Run {
            result: result.into(),
            status: status.into(),
        }
    }

    #[test]
    fn failures_are_counted_and_a_wanted_end_forgets_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("back-off.json");
        for failures in 1..=3 {
            note_start(&path, &known(&path), Duration::from_secs(600)).unwrap();
            note_end(&path, &run("signal", "KILL")).unwrap();
            assert_eq!(known(&path).failures, failures);
        }
        note_end(&path, &run("success", "0")).unwrap();
        assert!(!path.exists());
        note_end(&path, &run("success", "0")).unwrap();
    }

    #[test]
    fn what_the_manager_does_not_restart_is_no_failure() {
        assert!(run("exit-code", "1").failed());
        assert!(run("watchdog", "ABRT").failed());
        assert!(!run("exit-code", "78").failed());
        assert!(!run("timeout", "KILL").failed());
    }

    #[test]
    fn a_damaged_or_foreign_record_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("back-off.json");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(known(&path), BackOff::default());
        let foreign = BackOff {
            failures: 9,
            began: 0,
            boot: "another".into(),
            healthy_after: 0,
        };
        write(&path, &foreign).unwrap();
        assert_eq!(known(&path), BackOff::default());
    }
}
