//! Build and test automation: what the Makefile's targets do.
//!
//! One file per command; `make help` lists them for people.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

mod bench;
mod build;
mod cross;
mod dist;
mod licences;
mod progress;
mod shell;
mod soak;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aegis_tests::install::{Package, Plan};
use aegis_tests::machine::Systemd;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the programs of the host.
    Build,
    /// Build the initramfs and base image of guests of every architecture, and the fallback kernel.
    Guest,
    /// Build the guest kernels.
    Kernel,
    /// Make the Debian system of a test machine.
    Root {
        /// The version of systemd in it: 257 or 252.
        #[arg(long, default_value = "257")]
        systemd: String,
    },
    /// Run every suite, from a fresh checkout if need be.
    Test(test::Arguments),
    /// Run what is too long for `test`, and write its figures down.
    Soak(soak::Arguments),
    /// Measure speed and memory beside floors and peers of the same run.
    Bench(bench::Arguments),
    /// Remove what was built.
    Clean,
    /// Run a command, a script or a prompt in a test machine.
    Shell(shell::Arguments),
    /// Stop the machines that `shell` booted.
    ShellStop(shell::StopArguments),
    /// Install what is built.
    Install {
        /// Directory that stands for the root of the file system.
        #[arg(long, default_value = "/")]
        destdir: PathBuf,
        /// Where the installation lives once it is in place.
        #[arg(long, default_value = "/usr")]
        prefix: String,
    },
    /// Remove what `install` put there, and nothing else.
    Uninstall {
        /// Directory that stands for the root of the file system.
        #[arg(long, default_value = "/")]
        destdir: PathBuf,
        /// Where the installation lives.
        #[arg(long, default_value = "/usr")]
        prefix: String,
    },
    /// Build every package, into target/dist.
    Dist,
    /// Check that everything compiles for the platforms that this machine is not.
    CheckCross,
    /// Gather the licences of what is linked in, into target/licences.
    Licences,
}

fn install(destdir: &Path, prefix: &str) -> anyhow::Result<()> {
    for package in Package::INSTALLED {
        Plan::of(package, prefix)?.install(destdir)?;
    }
    Ok(())
}

fn uninstall(destdir: &Path, prefix: &str) -> anyhow::Result<()> {
    for package in Package::INSTALLED {
        Plan::of(package, prefix)?.uninstall(destdir, prefix)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let result = match Arguments::parse().command {
        Task::Build => build::programs().map(done),
        Task::Guest => build::guests().map(done),
        Task::Kernel => build::kernels().map(done),
        Task::Root { systemd } => Systemd::from_number(&systemd)
            .and_then(build::root)
            .map(done),
        Task::Test(arguments) => test::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments).map(done),
        Task::Clean => build::clean().map(done),
        Task::Shell(arguments) => shell::run(&arguments),
        Task::ShellStop(arguments) => shell::stop(&arguments).map(done),
        Task::Install { destdir, prefix } => install(&destdir, &prefix).map(done),
        Task::Uninstall { destdir, prefix } => uninstall(&destdir, &prefix).map(done),
        Task::Dist => dist::run().map(done),
        Task::CheckCross => cross::run().map(done),
        Task::Licences => licences::write().map(done),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(125)
    })
}
