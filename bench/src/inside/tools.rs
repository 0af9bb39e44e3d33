//! The programs that are measured, and what is read of them.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Far above everything that works.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks, which bounds what a measurement by looking is wrong by.
const LOOK: Duration = Duration::from_micros(500);

/// Runs a program that must succeed and gives its output.
pub(super) fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let done = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {program}"))?;
    if !done.status.success() {
        bail!(
            "{program} {}: {}\n{}",
            arguments.join(" "),
            done.status,
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// Runs the client, which must succeed.
pub(super) fn aegis(arguments: &[&str]) -> Result<String> {
    output("aegisctl", arguments)
}

/// A property of a unit.
pub(super) fn property(unit: &str, name: &str) -> Result<String> {
    output(
        "systemctl",
        &["--user", "show", "--value", "--property", name, unit],
    )
}

/// The resident memory of a process in MB.
pub(super) fn resident(pid: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("{path} has no VmRSS"))? / 1024.0)
}

/// An instance that lives as long as this value.
pub(super) struct Instance(&'static str);

impl Instance {
    /// Makes it anew, with flags and a command of `instance start`.
    pub(super) fn start(name: &'static str, rest: &[&str]) -> Result<Self> {
        let instance = Self(name);
        instance.delete();
        let mut arguments = vec!["instance", "start", "--name", name];
        arguments.extend(rest);
        aegis(&arguments)?;
        Ok(instance)
    }

    /// Brings the floor's program into the guest, whole at once.
    pub(super) fn bring(&self, to: &str) -> Result<()> {
        const INIT: &str = "/usr/local/lib/aegis-bench/init";
        let part = format!("{to}.part");
        aegis(&["cp", INIT, &format!("{}:{part}", self.0)])?;
        aegis(&["exec", self.0, "--", "mv", &part, to]).map(drop)
    }

    /// The process of its QEMU.
    pub(super) fn qemu(&self) -> Result<String> {
        let unit = format!("aegis-vm-{}.service", self.0);
        let group = format!("/sys/fs/cgroup{}", property(&unit, "ControlGroup")?);
        let found = output(
            "find",
            &[&group, "-name", "cgroup.procs", "-exec", "cat", "{}", "+"],
        )?;
        let is_qemu = |pid: &&str| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.starts_with("qemu"))
        };
        let pid = found.lines().find(is_qemu);
        Ok(pid.context("the instance has no QEMU")?.to_owned())
    }

    fn delete(&self) {
        // Most often there is none of that name.
        drop(aegis(&["instance", "delete", "--purge", self.0]));
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.delete();
    }
}

/// Waits until `found` gives something.
pub(super) fn wait_for<T>(what: &str, mut found: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = found()? {
            return Ok(value);
        }
        if start.elapsed() > PATIENCE {
            bail!("{what} did not come within {} s", PATIENCE.as_secs());
        }
        sleep(LOOK);
    }
}
