//! Runs what repairs a check, by sudo(8) where it takes root.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use aegis_core::layout::Mode;
use nix::unistd::{Gid, Group, Uid, User};

use super::remedy::{Family, Host, Remedy, Runner};

/// What came of a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// It takes root, and there is no way to it from here.
    NeedsRoot,
    Failed(String),
}

/// Looks at what remedies depend on.
pub(super) fn host(mode: Mode) -> Host {
    let uid = Uid::current();
    let user = User::from_uid(uid).ok().flatten();
    let os_release = ["/etc/os-release", "/usr/lib/os-release"];
    let os_release = os_release
        .iter()
        .find_map(|path| fs::read_to_string(path).ok());
    let kvm = fs::metadata("/dev/kvm").ok();
    let group = kvm.and_then(|kvm| Group::from_gid(Gid::from_raw(kvm.gid())).ok()?);
    Host {
        mode,
        user: user.map_or_else(|| uid.to_string(), |user| user.name),
        family: os_release.as_deref().and_then(Family::of),
        kvm_group: group.map(|group| group.name),
    }
}

/// Runs the command of a remedy on this terminal. What it prints goes to stderr: stdout is
/// for what `doctor` itself has found.
pub(super) fn run(remedy: &Remedy) -> Outcome {
    let root = Uid::effective().is_root();
    match remedy.runner {
        Runner::Anybody => attempt(&remedy.command),
        _ if root => attempt(&remedy.command),
        Runner::Root => by_sudo(&remedy.command),
        Runner::AnybodyOrRoot => match attempt(&remedy.command) {
            Outcome::Done => Outcome::Done,
            own => match by_sudo(&remedy.command) {
                Outcome::NeedsRoot => own,
                other => other,
            },
        },
    }
}

/// sudo asks for a password where there is a terminal, and else does without or fails.
fn by_sudo(command: &[String]) -> Outcome {
    let mut sudo = vec!["sudo".to_owned()];
    if !io::IsTerminal::is_terminal(&io::stdin()) {
        sudo.push("--non-interactive".to_owned());
    }
    sudo.push("--".to_owned());
    sudo.extend_from_slice(command);
    match attempt(&sudo) {
        Outcome::Done => Outcome::Done,
        _ => Outcome::NeedsRoot,
    }
}

fn attempt(command: &[String]) -> Outcome {
    let Some((program, arguments)) = command.split_first() else {
        return Outcome::Done;
    };
    let mut child = Command::new(program);
    child.args(arguments).stdout(Stdio::from(io::stderr()));
    match child.status() {
        Ok(status) if status.success() => Outcome::Done,
        Ok(status) => Outcome::Failed(format!("it ended with {status}")),
        Err(error) => Outcome::Failed(format!("cannot run {program}: {error}")),
    }
}
