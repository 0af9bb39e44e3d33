//! Build and test automation: what the Makefile's targets do.
//!
//! One file per command; `make help` lists them for people.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

mod progress;
mod shell;

use std::path::PathBuf;
use std::process::ExitCode;

use aegis_tests::install::Plan;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
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
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Task::Shell(arguments) => shell::run(&arguments),
        Task::ShellStop(arguments) => shell::stop(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Install { destdir, prefix } => Plan::read(&prefix)
            .and_then(|plan| plan.install(&destdir))
            .map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(125)
    })
}
