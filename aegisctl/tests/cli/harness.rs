//! A private bus, the fake on it, and the program under test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use tempfile::TempDir;

use crate::fake::{Fake, Handles};

/// What a test needs. Dropped, it takes bus and fake with it.
pub(crate) struct Bench {
    address: String,
    daemon: Child,
    pub(crate) fake: Handles,
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self::without_aegisd();
        Fake::serve(&bench.address, bench.fake.clone());
        bench
    }

    /// A bus on which there is no aegisd.
    pub(crate) fn without_aegisd() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_journalctl(dir.path(), "cat \"$journal\" 2>/dev/null; exit 0");
        let config = dir.path().join("bus.conf");
        let socket = dir.path().join("bus");
        fs::write(&config, bus_config(&socket)).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .arg("--nofork")
            .arg("--print-address")
            .arg(format!("--config-file={}", config.display()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need dbus-daemon (Debian package dbus)");
        let mut address = String::new();
        let stdout = daemon.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut address).unwrap();
        Self {
            address: address.trim().to_owned(),
            daemon,
            fake: Handles::default(),
            dir,
        }
    }

    /// The program, not started yet. stdin is empty.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aegisctl"));
        command
            .args(args)
            .env_clear()
            .env("PATH", self.path())
            .env("AEGIS_BUS_ADDRESS", &self.address)
            .env("AEGIS_MODE", "user")
            .stdin(Stdio::null());
        command
    }

    /// Has a script play a program of this machine.
    pub(crate) fn play(&self, name: &str, script: &str) {
        write_program(self.dir.path(), name, script);
    }

    /// The programs of this machine behind those that play.
    fn path(&self) -> std::ffi::OsString {
        let mut path = self.dir.path().join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path
    }

    /// What the played journal holds of the daemons of `web`: name, microseconds
    /// since 1970, message.
    pub(crate) fn set_journal(&self, lines: &[(&str, u64, &str)]) {
        let line = |(daemon, time, message): &(&str, u64, &str)| {
            let fields = serde_json::json!({
                "__CURSOR": format!("c{time}"),
                "__REALTIME_TIMESTAMP": time.to_string(),
                "_SYSTEMD_USER_UNIT": format!("aegis-kit-web:{daemon}.service"),
                "MESSAGE": message,
            });
            format!("{fields}\n")
        };
        let text: String = lines.iter().map(line).collect();
        fs::write(self.dir.path().join("bin/journal"), text).unwrap();
    }

    /// The journal cannot be read from now on.
    pub(crate) fn break_journal(&self) {
        write_journalctl(self.dir.path(), "echo no permission >&2; exit 1");
    }

    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        self.command(args).output().unwrap().into()
    }

    /// Runs it with that on stdin.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &'static [u8]) -> Outcome {
        let mut child = self.spawn(self.command(args).stdin(Stdio::piped()));
        let mut pipe = child.stdin.take().unwrap();
        let writer = thread::spawn(move || {
            // A program that does not read it all is a test's matter.
            pipe.write_all(stdin).ok();
        });
        let outcome = child.wait_with_output().unwrap().into();
        writer.join().unwrap();
        outcome
    }

    pub(crate) fn spawn(&self, command: &mut Command) -> Child {
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

/// What a program printed and ended with.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Outcome {
    /// Fails the test unless it ended like that.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, stdout: &str, stderr: &str) {
        let expected = Outcome {
            code: Some(code),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        };
        assert_eq!(self, &expected);
    }
}

/// Reads until a line is there.
pub(crate) fn wait_for_line(stream: &mut impl Read, line: &str) {
    for read in BufReader::with_capacity(1, stream).lines() {
        if read.unwrap() == line {
            return;
        }
    }
    panic!("the stream ended before '{line}'");
}

/// A journalctl that plays; one that follows has nothing to tell.
fn write_journalctl(dir: &Path, act: &str) {
    let script = format!(
        "journal=$(dirname \"$0\")/journal\n\
         case \"$*\" in *--follow*) exec sleep 1000;; esac\n{act}"
    );
    write_program(dir, "journalctl", &script);
}

/// A program that the one under test finds before this machine's.
fn write_program(dir: &Path, name: &str, script: &str) {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let program = bin.join(name);
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

fn bus_config(socket: &Path) -> String {
    format!(
        "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
         <policy context='default'><allow send_destination='*' eavesdrop='true'/>\
         <allow eavesdrop='true'/><allow own='*'/></policy></busconfig>",
        socket.display()
    )
}
