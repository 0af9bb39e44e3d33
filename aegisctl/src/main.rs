//! `aegisctl`, the AegisVM client, also installed as `aegis`.
//!
//! Every command is parse → call → render: its file in [`commands`] holds its
//! flags, calls aegisd over D-Bus and prints the answer. Policy is aegisd's.
//! Data goes to stdout, everything else to stderr. [`session`] is the part that
//! carries the streams of `run` and `exec`.

// The properties of an instance are more keys than `json!` expands by default.
#![recursion_limit = "256"]

mod cli;
mod client;
mod commands;
mod environment;
mod exit_code;
mod failure;
mod flags;
#[cfg(test)]
mod generated;
mod images;
mod job;
mod journalctl;
mod launchd;
mod listing;
mod moment;
mod original;
mod session;
mod systemd;
mod typed;
mod ui;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let code = catch_unwind(AssertUnwindSafe(|| cli::main(std::env::args_os())));
    ExitCode::from(code.unwrap_or(exit_code::INTERNAL))
}
