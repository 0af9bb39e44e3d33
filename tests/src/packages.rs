//! The packages of `make dist`, bringing them into machines, and what they leave there.
//!
//! What `upgraded` gives is the same tree packed again under a higher version: what dpkg
//! does with it is what it does with a later release.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::cache;
use crate::install::Package;
use crate::instance::DEADLINE;
use crate::machine::{Machine, User};
use crate::seat::Seat;
use crate::wait::wait_until;

/// Where packages lie in a machine.
const PLACE: &str = "/var/tmp/packages";

/// All that dpkg and scripts of packages may change, each with its owner, mode, size and
/// time; but logs, and what dpkg, apt and systemd write down about packages and units.
const FILES: &str = "find / -xdev \
    \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp \
       -o -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt \
       -o -path /var/lib/systemd/timers -o -path /home -o -path /root \\) -prune \
    -o ! -type d -printf '%p %u:%g %m %s %T@ %l\\n'";

/// Those of a system account, which stays: files could belong to it. (/etc/.pwd.lock is
/// what they are written under, and systemd keeps the host's key for credentials.)
const STAYS: [&str; 10] = [
    "/etc/passwd",
    "/etc/passwd-",
    "/etc/group",
    "/etc/group-",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/.pwd.lock",
    "/var/lib/systemd/credential.secret",
];

/// Where `make dist` puts them.
#[must_use]
pub fn folder() -> PathBuf {
    cache::repository().join("target/dist")
}

/// The one file in `target/dist` that is called so.
///
/// # Errors
/// There is none, or several.
pub fn file(start: &str, end: &str) -> Result<PathBuf> {
    let folder = folder();
    let mut found = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("{}: make dist", folder.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(start) && name.ends_with(end) {
            found.push(path.clone());
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => bail!(
            "{} files {start}*{end} in {}: run make dist",
            found.len(),
            folder.display()
        ),
    }
}

/// The Debian package.
///
/// # Errors
/// It is not built.
pub fn deb(package: Package) -> Result<PathBuf> {
    file(&format!("{}_", package.name()), ".deb")
}

/// All Debian packages under another version, in a folder that goes with the value.
///
/// # Errors
/// dpkg-deb fails.
pub fn upgraded(version: &str) -> Result<TempDir> {
    let folder = tempfile::tempdir().context("making a folder")?;
    for package in Package::ALL {
        let name = package.name();
        let script = format!(
            "dpkg-deb -R '{}' {name} && \
             old=$(sed -n 's/^Version: //p' {name}/DEBIAN/control) && \
             sed -i -e \"/^Version: /s/ .*/ {version}/\" -e \"s/(= $old)/(= {version})/\" \
                 {name}/DEBIAN/control && \
             dpkg-deb --root-owner-group -Znone -b {name} {name}.deb >/dev/null && rm -r {name}",
            deb(package)?.display()
        );
        run(Command::new("sh")
            .args(["-ec", &script])
            .current_dir(folder.path()))?;
    }
    Ok(folder)
}

/// Copies packages into a machine and gives them as words of a shell line.
///
/// # Errors
/// One cannot be read or written.
pub fn bring(machine: &Machine, packages: &[PathBuf]) -> Result<String> {
    let mut words = Vec::new();
    for package in packages {
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        let target = format!("{PLACE}/{name}");
        let source =
            fs::File::open(package).with_context(|| format!("opening {}", package.display()))?;
        let line = format!("mkdir -p {PLACE} && cat >'{target}'");
        run(machine
            .command(User::Root, &line)
            .stdin(Stdio::from(source)))?;
        words.push(format!("'{target}'"));
    }
    Ok(words.join(" "))
}

/// The files of a machine that packages could change, in order.
///
/// # Errors
/// The machine does not answer.
pub fn system_files(machine: &Machine) -> Result<Vec<String>> {
    Ok(sorted(&machine.run(User::Root, FILES)?.text()))
}

/// How those differ from what they were, but for what a system account leaves.
///
/// # Errors
/// The machine does not answer.
pub fn left_since(machine: &Machine, before: &[String]) -> Result<String> {
    let stays = |line: &&String| {
        let path = line.split(' ').next().unwrap_or_default();
        STAYS.contains(&path)
    };
    Ok(difference(
        system_files(machine)?.iter().filter(|line| !stays(line)),
        before.iter().filter(|line| !stays(line)),
    ))
}

/// No unit and no process of ours is left in a machine, nor a socket.
///
/// # Errors
/// There is one: the text names it.
pub fn nothing_is_left(machine: &Machine) -> Result<()> {
    for seat in [Seat::alice(machine), Seat::root(machine)] {
        let mut units = String::new();
        wait_until(DEADLINE, "the units to go", || {
            let list = "list-units --all --no-legend --plain 'aegis*'";
            units = seat.systemctl(list)?.success()?;
            Ok(units.is_empty())
        })
        .with_context(|| units.clone())?;
    }
    let processes = "ps -eo args= | grep -e '[a]egis-' -e '[a]egisd' -e '[q]emu-system'";
    let processes = machine.run(User::Root, processes)?.text();
    ensure!(
        processes.is_empty(),
        "these processes are left: {processes}"
    );
    let sockets = "ls -d /run/aegis /run/user/*/aegis 2>/dev/null";
    let sockets = machine.run(User::Root, sockets)?.text();
    ensure!(sockets.is_empty(), "these sockets are left: {sockets}");
    Ok(())
}

/// The lines that only one of two lists has, `+` those of the first.
#[must_use]
pub fn difference<'a>(
    now: impl Iterator<Item = &'a String>,
    before: impl Iterator<Item = &'a String>,
) -> String {
    let (now, before): (BTreeSet<_>, BTreeSet<_>) = (now.collect(), before.collect());
    let more = now.difference(&before).map(|line| format!("+ {line}\n"));
    let less = before.difference(&now).map(|line| format!("- {line}\n"));
    more.chain(less).collect()
}

/// The paths of files and links below a folder, `/` being that folder, in order.
///
/// # Errors
/// The folder cannot be read.
pub fn files_below(folder: &Path) -> Result<Vec<String>> {
    let mut find = Command::new("find");
    find.arg(folder)
        .args(["!", "-type", "d", "-printf", "/%P\\n"]);
    Ok(sorted(&run(&mut find)?))
}

/// Lines in the order of their bytes.
#[must_use]
pub fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Runs a command of this host, which must succeed, and gives its standard output.
///
/// # Errors
/// It fails; the text holds what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("running {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}
