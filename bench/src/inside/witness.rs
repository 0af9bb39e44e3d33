//! A program that tells when it runs: what supervisors and kits are measured with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::tools::wait_for;

/// What it writes into the folder it runs in: its process.
const MARK: &str = "started";
const PROGRAM: &str = "#!/bin/sh\necho $$ >started\nexec sleep infinity\n";

/// Makes the program.
pub(super) fn write(path: &Path) -> Result<()> {
    let failed = || format!("writing {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    fs::write(path, PROGRAM).with_context(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(failed)
}

/// The program as it runs in a folder.
pub(super) struct Witness(PathBuf);

impl Witness {
    pub(super) fn of(folder: &Path) -> Self {
        Self(folder.join(MARK))
    }

    /// When it began to run, if it did.
    pub(super) fn began(&self) -> Option<SystemTime> {
        fs::metadata(&self.0).and_then(|file| file.modified()).ok()
    }

    /// The process, once it runs.
    pub(super) fn process(&self) -> Result<Pid> {
        wait_for("the program", || Ok(self.now()))
    }

    /// Kills it and measures until it runs again.
    pub(super) fn kill(&self) -> Result<Duration> {
        self.until_again(|old| kill(old, Signal::SIGKILL).context("killing the program"))
    }

    /// Measures from an act until another process runs.
    pub(super) fn until_again(&self, act: impl FnOnce(Pid) -> Result<()>) -> Result<Duration> {
        let old = self.process()?;
        let start = Instant::now();
        act(old)?;
        wait_for("the program's return", || {
            Ok(self.now().filter(|new| *new != old))
        })?;
        Ok(start.elapsed())
    }

    /// The process that the file names; one that is being written names none.
    fn now(&self) -> Option<Pid> {
        let text = fs::read_to_string(&self.0).ok()?;
        let line = text.strip_suffix('\n')?;
        line.parse().ok().map(Pid::from_raw)
    }
}
