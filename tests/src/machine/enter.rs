//! Running commands inside a machine.
//!
//! A command gets the machine's namespaces, a control group beside systemd's
//! own and a clean environment. Its standard streams are the caller's, and no
//! shell, login or unit of the machine stands in between.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};

use super::leader::Leader;

/// Who a command runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The machine's administrator, who talks to the system manager.
    Root,
    /// An ordinary user (uid 1000) with a lingering user manager.
    Alice,
}

impl User {
    /// The name in the machine's user database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Alice => "alice",
        }
    }

    /// The whole environment of a command. The buses are found by their
    /// default addresses, so no `DBUS_*` is set.
    fn environment(self) -> Vec<&'static str> {
        let common = [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
            "SHELL=/bin/bash",
        ];
        let own: &[_] = match self {
            Self::Root => &["HOME=/root", "USER=root", "LOGNAME=root"],
            Self::Alice => &[
                "HOME=/home/alice",
                "USER=alice",
                "LOGNAME=alice",
                "XDG_RUNTIME_DIR=/run/user/1000",
            ],
        };
        common.iter().chain(own).copied().collect()
    }
}

/// What a finished command left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// The exit code; 128 plus the number of the signal that ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        exit_code(self.status)
    }

    /// Standard output as text, without white space at its end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text, without white space at its end.
    #[must_use]
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }

    /// Standard output as text, for a command that must succeed.
    ///
    /// # Errors
    /// Another exit code than 0; the text holds both streams.
    pub fn success(&self) -> Result<String> {
        if self.status.success() {
            return Ok(self.text());
        }
        bail!(
            "exit code {}\nstdout: {}\nstderr: {}",
            self.code(),
            self.text(),
            self.error_text()
        )
    }
}

/// The code a shell would show for `status`.
#[must_use]
pub fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}

/// What runs `line` by `shell -c` as `user`, to be started by root in the machine.
pub(super) fn argv(user: User, extra: &[(&str, &str)], shell: &str, line: &str) -> Vec<String> {
    let mut argv = vec!["env".to_owned(), "-i".to_owned()];
    let mut add = |words: &[&str]| argv.extend(words.iter().map(|&word| word.to_owned()));
    add(&user.environment());
    for (name, value) in extra {
        add(&[&format!("{name}={value}")]);
    }
    add(&["setpriv", "--pdeathsig=KILL"]);
    if user == User::Alice {
        add(&["--reuid=alice", "--regid=alice", "--init-groups"]);
    }
    add(&["sh", "-c", "cd && exec \"$@\"", "enter"]);
    add(&[shell, "-c", line, shell]);
    argv
}

/// The command that runs `argv` in the machine of `leader`. It dies when the
/// process started by it is killed.
pub(super) fn command(leader: Leader, enter_file: &Path, argv: &[String]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo 0 >\"$1\" && shift && exec \"$@\"", "enter"])
        .arg(enter_file)
        .args(["nsenter", "--all", "--root", "--wd", "--target"])
        .arg(leader.pid().to_string())
        .arg("--")
        .args(argv);
    command
}

/// Runs a command to its end and collects its streams.
pub(super) fn collect(command: &mut Command) -> Result<Output> {
    let output = command
        .output()
        .context("running a command in the machine")?;
    Ok(Output {
        status: output.status,
        stdout: output.stdout,
        stderr: output.stderr,
    })
}
