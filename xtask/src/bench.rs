//! `make bench`: builds what is measured and what measures, and lets it run.

use std::process::Command;

use aegis_tests::cache;
use anyhow::Result;
use clap::Args;

use crate::build::{self, cargo, succeed};

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Only groups whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

/// Measures, and writes the figures down if all of them were asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    build::programs()?;
    build::guests()?;
    // Another kernel would measure something else.
    build::kernels()?;
    succeed(cargo().args(["build", "--release", "--package", "aegis-bench"]))?;
    let mut bench = Command::new(cache::repository().join("target/release/aegis-bench"));
    let only = arguments.only.iter().flat_map(|only| ["--only", only]);
    succeed(bench.args(only))
}
