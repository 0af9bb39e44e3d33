//! `make bench`: speed and memory of AegisVM, each beside a floor or a peer of the
//! same run.
//!
//! ```text
//!  on the host: boot a machine, carry this program in ──► there, as alice: measure
//!               report, docs/BENCHMARKS.md ◄── a line of JSON for each row
//! ```
//!
//! A machine of its own, so that nothing but the measurement runs there; the host
//! is shared, so only ratios mean something.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

mod host;
mod inside;
mod report;
mod row;
mod sample_image;
mod samples;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Measure AegisVM beside floors and peers")]
struct Arguments {
    /// Only groups whose name contains this: cold, session, link, sleep, egress, daemon, kits, fleet, images
    #[arg(long, global = true)]
    only: Option<String>,
    #[command(subcommand)]
    command: Option<Inside>,
}

#[derive(Debug, Subcommand)]
enum Inside {
    /// Measure here, where AegisVM is installed, and print rows
    #[command(hide = true)]
    Inside,
    /// Be the service that only answers
    #[command(hide = true)]
    Answer,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let only = arguments.only.as_deref();
    let done = match arguments.command {
        Some(Inside::Inside) => inside::run(only),
        Some(Inside::Answer) => inside::answer(),
        None => host::run(only),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
