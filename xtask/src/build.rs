//! Building what AegisVM consists of: programs, guest files, kernel, roots.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use aegis_tests::cache;
use aegis_tests::install::{Entry, Plan};
use aegis_tests::machine::{Root, Systemd};
use anyhow::{Context, Result, bail};

use crate::licences;
use crate::progress::step;

/// The crates with a program that is installed on the host.
const PROGRAMS: [&str; 7] = [
    "aegisd",
    "aegisctl",
    "aegis-vmm",
    "aegis-shim",
    "aegis-egress",
    "aegis-image",
    "aegis-gateway",
];

/// Builds the programs of the host, and gathers the licences of what is linked into them.
pub(crate) fn programs() -> Result<()> {
    let packages = PROGRAMS.iter().flat_map(|program| ["--package", program]);
    let mut cargo = cargo();
    cargo.args(["build", "--release"]).args(packages);
    succeed(&mut cargo)?;
    licences::write()
}

/// Builds the guest's initramfs, base image and fallback kernel.
pub(crate) fn guest() -> Result<()> {
    succeed(&mut Command::new(cache::repository().join("guest/build")))
}

/// Builds the guest kernel unless the cache has it; prints where it is.
pub(crate) fn kernel() -> Result<()> {
    succeed(&mut Command::new(
        cache::repository().join("guest/kernel/build"),
    ))
}

/// Makes the root with this systemd unless the cache has it.
pub(crate) fn root(systemd: Systemd) -> Result<()> {
    let making = format!("Making a Debian system with systemd {}", systemd.number());
    step(&making, Duration::from_secs(90), || {
        Root::of(systemd)?.build()
    })
}

/// Builds everything if nothing is built yet, as in a fresh checkout. What is
/// there is taken as it is: rebuilding is for `make build`.
pub(crate) fn first_time() -> Result<()> {
    let plan = Plan::read("/usr")?;
    let is_program = |entry: &&Entry| entry.mode == 0o755;
    if plan.entries.iter().filter(is_program).any(Entry::is_built) {
        return Ok(());
    }
    programs()?;
    guest()
}

/// Removes what was built here. The cache with roots and kernels stays, since
/// it is shared and costs minutes to make.
pub(crate) fn clean() -> Result<()> {
    for name in aegis_tests::machine::running()? {
        eprintln!("machine {name} goes on running; make shell-stop stops it");
    }
    succeed(cargo().arg("clean"))
}

/// The cargo that runs us, in the repository.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(cache::repository());
    command
}

/// Runs a command whose output is for people, and fails if it does.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let name = Path::new(command.get_program()).display().to_string();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("running {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}
