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

/// The architectures of guests, as uname(1) calls them.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Builds what guests of every architecture boot from, but for their kernels.
pub(crate) fn guests() -> Result<()> {
    ARCHITECTURES.into_iter().try_for_each(guest)
}

/// Builds initramfs and base image, and the fallback kernel where there is one.
fn guest(architecture: &str) -> Result<()> {
    succeed(Command::new(cache::repository().join("guest/build")).arg(architecture))
}

/// Builds the guest kernels that the cache has not; prints where they are.
pub(crate) fn kernels() -> Result<()> {
    let build = cache::repository().join("guest/kernel/build");
    succeed(Command::new(build).args(ARCHITECTURES))
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
    guest(std::env::consts::ARCH)
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
