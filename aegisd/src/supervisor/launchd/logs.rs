//! What jobs write, kept within bounds: launchd appends to a file for ever.
//!
//! ```text
//!  NAME.log  larger than 8 MiB ─► its last 8 MiB ─► NAME.log.1, in place of an earlier one
//!            └─ emptied: the job appends, so it goes on at the beginning
//! ```
//!
//! The job holds the file open, so another one cannot take its place. What it writes
//! between the copy and the emptying is lost, and so is what is older than the copy.

use std::fs::OpenOptions;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::domain::Domain;
use super::files;
use crate::effects;

/// A file that is larger is cut. There are two of this size at most of each job, and what
/// it writes between two looks.
const LARGEST: u64 = 8 << 20;
/// Between two looks at the files.
const PAUSE: Duration = Duration::from_secs(10);

/// Keeps the files of all jobs within bounds, for as long as the domain is used.
pub(super) async fn keep_bounded(domain: Weak<Domain>) {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(domain) = domain.upgrade() else {
            return;
        };
        let instances = domain.layout.instances();
        // It ends early only with the runtime.
        drop(tokio::task::spawn_blocking(move || cut_all(&instances)).await);
    }
}

fn cut_all(instances: &Path) {
    let folders = instances.read_dir().into_iter().flatten().flatten();
    let logs = folders.filter_map(|instance| instance.path().join("log").read_dir().ok());
    for entry in logs.flatten().flatten() {
        let path = entry.path();
        let is_job = path
            .file_name()
            .is_some_and(|name| is_job_log(name.as_encoded_bytes()));
        let is_large = || entry.metadata().is_ok_and(|found| found.len() > LARGEST);
        if is_job
            && is_large()
            && let Err(error) = cut(&path)
        {
            tracing::warn!("cannot cut {}: {error}, ignoring", path.display());
        }
    }
}

/// Whether a file is written by launchd. The others of an instance are aegis-vmm's, which
/// bounds them itself.
fn is_job_log(name: &[u8]) -> bool {
    let is_daemon = name.starts_with(b"daemon-") && name.ends_with(b".log");
    is_daemon || [&b"vm.log"[..], b"doors.log"].contains(&name)
}

/// Moves the end of a file aside and empties it.
fn cut(path: &Path) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".1");
    let aside = PathBuf::from(aside);
    let mut options = OpenOptions::new();
    #[cfg_attr(
        not(test),
        expect(
            clippy::disallowed_methods,
            reason = "opening a file that is there changes nothing"
        )
    )]
    let mut log = options.read(true).write(true).open(path)?;
    let length = log.metadata()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(LARGEST)))?;
    files::remove(&aside).map_err(io::Error::other)?;
    effects::copy_file(&mut log, &aside, 0o600)?;
    files::give_like(&aside, path).map_err(io::Error::other)?;
    effects::empty(&log)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_large_file_is_emptied_under_who_appends_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("web/log");
        fs::create_dir_all(&logs).unwrap();
        let path = logs.join("daemon-a.log");
        let mut options = OpenOptions::new();
        let mut job = options.append(true).create(true).open(&path).unwrap();
        job.write_all(b"old").unwrap();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..8 {
            job.write_all(&line).unwrap();
        }
        for name in ["command.log", "daemon-b.log.1", "daemon-c.log"] {
            fs::write(logs.join(name), "small or not a job's").unwrap();
        }
        cut_all(folder.path());
        job.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let aside = fs::read(logs.join("daemon-a.log.1")).unwrap();
        assert_eq!(aside.len() as u64, LARGEST);
        assert!(!aside.starts_with(b"old") && aside.ends_with(b"x"));
        assert_eq!(fs::read_dir(&logs).unwrap().count(), 5);
        for (name, is_job) in [
            ("vm.log", true),
            ("doors.log", true),
            ("daemon-x.log", true),
            ("daemon-x.log.1", false),
            ("command.log", false),
            ("console.log", false),
        ] {
            assert_eq!(is_job_log(name.as_bytes()), is_job, "{name}");
        }
    }
}
