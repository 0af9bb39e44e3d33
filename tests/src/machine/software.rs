//! AegisVM inside a machine: put there before it boots, brought up to date
//! while it runs.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use super::{Machine, User};
use crate::install::{Content, Entry, Package, Plan};

/// Where packages install to, and so what the machine has.
const PREFIX: &str = "/usr";

/// What an update did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The installed paths that are new or were replaced.
    pub replaced: Vec<String>,
    /// What AegisVM consists of and is not built yet.
    pub missing: Vec<String>,
}

/// Installs all that is built into a machine's files before its boot.
pub(super) fn install(directory: &Path, writable: &Path) -> Result<()> {
    let plan = Plan::read(PREFIX)?;
    let present: Vec<&Entry> = plan
        .entries
        .iter()
        .filter(|entry| entry.is_built())
        .collect();
    for entry in &present {
        entry.install(writable)?;
    }
    record(directory, &plan)
}

/// Replaces what changed since the last call. A replaced program is a new
/// file, so what runs goes on with the old one.
pub(super) fn update(machine: &Machine) -> Result<Changes> {
    let plan = Plan::read(PREFIX)?;
    let known = fs::read_to_string(machine.directory.join("installed")).unwrap_or_default();
    let mut changes = Changes::default();
    for entry in &plan.entries {
        if !entry.is_built() {
            changes.missing.push(entry.destination.clone());
        } else if !known.lines().any(|line| line == entry.signature()) {
            replace(machine, entry)?;
            changes.replaced.push(entry.destination.clone());
        }
    }
    if changes.replaced.is_empty() {
        return Ok(changes);
    }
    record(&machine.directory, &plan)?;
    let under = |part: &str| changes.replaced.iter().any(|path| path.contains(part));
    if under("/sysusers.d/") {
        machine.run(User::Root, "systemd-sysusers")?.success()?;
    }
    if under("/systemd/") {
        machine
            .run(User::Root, "systemctl daemon-reload")?
            .success()?;
        machine
            .run(User::Alice, "systemctl --user daemon-reload")?
            .success()?;
    }
    if under("/dbus-1/") {
        // A bus that nobody used yet reads the files when it starts.
        for (user, systemctl) in [(User::Root, "systemctl"), (User::Alice, "systemctl --user")] {
            let reload = format!("! {systemctl} --quiet is-active dbus || {systemctl} reload dbus");
            machine.run(user, &reload)?.success()?;
        }
    }
    if under("/libexec/aegisvm/aegisd") || under("/systemd/") {
        // A daemon that is not installed or not running has nothing to restart.
        machine.run(User::Root, "systemctl try-restart aegisd.service")?;
        machine.run(User::Alice, "systemctl --user try-restart aegisd.service")?;
    }
    Ok(changes)
}

/// Installs all of a package that is not in every machine.
pub(super) fn add(machine: &Machine, package: Package) -> Result<()> {
    let plan = Plan::of(package, PREFIX)?;
    plan.entries
        .iter()
        .try_for_each(|entry| replace(machine, entry))
}

fn replace(machine: &Machine, entry: &Entry) -> Result<()> {
    let path = &entry.destination;
    let failed = || format!("installing {path} in machine {}", machine.name());
    let install = format!(
        "install -D -m {:o} /dev/stdin '{path}.new' && mv -f '{path}.new' '{path}'",
        entry.mode
    );
    match &entry.content {
        Content::Link(target) => {
            let line = format!("mkdir -p \"$(dirname '{path}')\" && ln -sfn '{target}' '{path}'");
            machine
                .run(User::Root, &line)?
                .success()
                .with_context(failed)?;
        }
        Content::Text(text) => {
            machine
                .run_with_input(User::Root, &install, text.as_bytes())?
                .success()
                .with_context(failed)?;
        }
        Content::File(source) => {
            let source =
                fs::File::open(source).with_context(|| format!("opening {}", source.display()))?;
            let mut command = machine.command(User::Root, &install);
            command.stdin(Stdio::from(source));
            super::enter::collect(&mut command)?
                .success()
                .with_context(failed)?;
        }
    }
    Ok(())
}

/// Remembers what the machine has, a signature a line.
fn record(directory: &Path, plan: &Plan) -> Result<()> {
    let path = directory.join("installed");
    let lines: String = plan
        .entries
        .iter()
        .filter(|entry| entry.is_built())
        .map(|entry| entry.signature() + "\n")
        .collect();
    fs::write(&path, lines).with_context(|| format!("writing {}", path.display()))
}
