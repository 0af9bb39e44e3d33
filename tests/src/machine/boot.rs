//! Booting: from a cached root to a system that is up with alice's manager.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cgroup::Cgroup;
use super::leader::Leader;
use super::scratch::Scratch;
use super::{Ground, Machine, Root, User, directory_of, software};
use crate::wait::wait_until;

/// How long a boot may take. It takes about 2 s on an idle host; a host that
/// builds a kernel meanwhile needs several times that.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);

const SCRIPT: &str = include_str!("boot.sh");

/// Boots the machine with what is built of AegisVM; the caller holds its lock and knows
/// that it does not run.
pub(super) fn boot(name: &str, root: &Root) -> Result<Machine> {
    boot_with(name, root, software::install)
}

/// Boots it as Debian is, without AegisVM.
pub(super) fn boot_bare(name: &str, root: &Root) -> Result<Machine> {
    boot_with(name, root, |_, _| Ok(()))
}

/// `install` gets the machine's folder and its writable files.
fn boot_with(name: &str, root: &Root, install: fn(&Path, &Path) -> Result<()>) -> Result<Machine> {
    let systemd = root.systemd();
    if !root.is_built() {
        bail!(
            "the root with systemd {} is not built yet; run: make shell SYSTEMD={}",
            systemd.number(),
            systemd.number()
        );
    }
    let directory = directory_of(name)?;
    let scratch = Scratch::open(&directory, root.path())?;
    install(&directory, &scratch.writable)?;
    fs::write(directory.join("systemd"), systemd.number())
        .with_context(|| format!("writing into {}", directory.display()))?;
    let console_path = directory.join("console.log");
    let console = fs::File::create(&console_path)
        .with_context(|| format!("creating {}", console_path.display()))?;

    let script_path = directory.join("boot.sh");
    fs::write(&script_path, SCRIPT)
        .with_context(|| format!("writing {}", script_path.display()))?;

    let cgroup = Cgroup::create(name, &directory)?;
    // A session of its own, so that Ctrl-C at the caller's terminal ends the
    // caller and not the machine.
    let mut unshare = Command::new("setsid")
        .args(["sh", "-c", "echo 0 >\"$1\" && shift && exec \"$@\"", "boot"])
        .arg(cgroup.boot_file())
        .args([
            "unshare", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup",
        ])
        .args(["--fork", "--kill-child", "sh"])
        .arg(&script_path)
        .arg(name)
        .arg(&scratch.root)
        .arg(&scratch.overlay)
        .arg(&console_path)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(console.try_clone().context("sharing the console")?)
        .stderr(console)
        .spawn()
        .context("running setsid (apt-get install util-linux)")?;
    let leader = Leader::child_of(unshare.id()).with_context(|| {
        format!(
            "namespaces are refused here; a machine needs root with CAP_SYS_ADMIN. {}",
            fs::read_to_string(&console_path).unwrap_or_default().trim()
        )
    })?;
    // Whoever started it has to take its exit status, however long it runs.
    std::thread::spawn(move || unshare.wait());
    leader.save(&directory.join("leader"))?;

    let machine = Machine {
        name: name.to_owned(),
        systemd,
        directory,
        ground: Ground::Namespaces(cgroup),
        leader,
    };
    wait_until_up(&machine, BOOT_DEADLINE).with_context(|| {
        let log = fs::read_to_string(&console_path).unwrap_or_default();
        format!(
            "machine {name} did not boot; its console ({}): {log}",
            console_path.display()
        )
    })?;
    Ok(machine)
}

/// Waits for the system's manager and alice's.
pub(super) fn wait_until_up(machine: &Machine, deadline: Duration) -> Result<()> {
    wait_until(deadline, "systemd to answer", || {
        if !machine.leader.alive() {
            bail!("it ended");
        }
        Ok(machine
            .run(User::Root, "systemctl is-system-running")?
            .text()
            != "offline"
            && machine
                .run(User::Root, "test -S /run/dbus/system_bus_socket")?
                .status
                .success())
    })?;
    let state = machine
        .run(User::Root, "systemctl is-system-running --wait")?
        .text();
    if state != "running" {
        let failed = machine
            .run(User::Root, "systemctl --failed --no-legend --plain")?
            .text();
        bail!("it is {state}; failed units:\n{failed}");
    }
    wait_until(deadline, "alice's user manager", || {
        let line = "systemctl --user is-system-running --wait";
        Ok(machine.run(User::Alice, line)?.text() == "running")
    })
}
