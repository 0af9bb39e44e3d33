//! Supervisors that people use beside systemd, each with one program.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::witness::Witness;

/// A supervisor that runs its program until this is dropped.
pub(super) struct Supervisor {
    pub(super) name: &'static str,
    pub(super) program: Witness,
    process: Child,
}

impl Supervisor {
    /// One of each kind over `program`, in folders below `place`.
    pub(super) fn all(program: &Path, place: &Path) -> Result<Vec<Self>> {
        Ok(vec![
            Self::supervisord(program, place)?,
            Self::runit(program, place)?,
            Self::s6(program, place)?,
        ])
    }

    fn supervisord(program: &Path, place: &Path) -> Result<Self> {
        let folder = folder(place, "supervisord")?;
        let (at, program) = (folder.display(), program.display());
        let config = folder.join("supervisord.conf");
        // Zero: a program counts as started at once, as it does for the others.
        let text = format!(
            "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n\
             pidfile={at}/pid\n\
             [program:bench]\ncommand={program}\ndirectory={at}\n\
             autorestart=true\nstartsecs=0\n"
        );
        fs::write(&config, text).context("configuring supervisord")?;
        let mut command = Command::new("supervisord");
        command.arg("--configuration").arg(config);
        Self::start("supervisord", &folder, command)
    }

    pub(super) fn runit(program: &Path, place: &Path) -> Result<Self> {
        let folder = folder(place, "runit")?;
        let mut command = Command::new("runsv");
        command.arg(service(program, &folder)?);
        Self::start("runit", &folder, command)
    }

    pub(super) fn s6(program: &Path, place: &Path) -> Result<Self> {
        let folder = folder(place, "s6")?;
        let mut command = Command::new("s6-supervise");
        command.arg(service(program, &folder)?);
        Self::start("s6", &folder, command)
    }

    fn start(name: &'static str, folder: &Path, mut command: Command) -> Result<Self> {
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("running {name}"))?;
        let supervisor = Self {
            name,
            program: Witness::of(folder),
            process,
        };
        supervisor.program.process()?;
        Ok(supervisor)
    }

    /// The process that supervises.
    pub(super) fn process(&self) -> String {
        self.process.id().to_string()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // All of them end their program first when they are told to end so.
        if let Ok(pid) = i32::try_from(self.process.id()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
        self.process.wait().ok();
    }
}

fn folder(place: &Path, name: &str) -> Result<PathBuf> {
    let folder = place.join(name);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// A service folder as runit and s6 have them: `run` is the program.
fn service<'a>(program: &Path, folder: &'a Path) -> Result<&'a Path> {
    symlink(program, folder.join("run"))
        .with_context(|| format!("making a service of {}", folder.display()))?;
    Ok(folder)
}
