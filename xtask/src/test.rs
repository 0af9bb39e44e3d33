//! `make test`: every suite in turn, each with its time, and one sum at the end.

mod suite;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use aegis_tests::machine::{Machine, Systemd};
use anyhow::{Context, Result};
use clap::Args;

use crate::build;
use crate::progress::step;
use suite::{Counts, Runner, Suite};

/// Arguments of `test`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Leave the test machines running, to look into a failure.
    #[arg(long)]
    keep: bool,
    /// Only suites whose title contains this.
    #[arg(long)]
    only: Option<String>,
}

/// A machine that the suites share, under the name they know it by.
const MACHINES: [(Systemd, &str); 2] = [(Systemd::V257, "test-257"), (Systemd::V252, "test-252")];

/// The like with kernels of their own, which the first test that needs one boots.
const OWN_KERNEL: [(Systemd, &str); 2] = [
    (Systemd::V257, "test-kernel-257"),
    (Systemd::V252, "test-kernel-252"),
];

/// Runs the suites and gives success only if nothing failed.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let start = Instant::now();
    let wanted = |suite: &&Suite| {
        arguments
            .only
            .as_ref()
            .is_none_or(|only| suite.title.contains(only.as_str()))
    };
    let suites: Vec<&Suite> = suite::ALL.iter().filter(wanted).collect();
    let runner = Runner::find();
    let mut sum = Counts::default();
    let mut times = Vec::new();
    let mut is_set_up = false;
    for suite in &suites {
        if suite.needs_set_up() && !is_set_up {
            set_up()?;
            is_set_up = true;
        }
        println!("\n== {}", suite.title);
        let begin = Instant::now();
        let counts = runner.run(suite)?;
        times.push((suite.title, begin.elapsed(), counts));
        sum += counts;
    }
    if !arguments.keep {
        stop_machines()?;
    }
    println!();
    for (title, time, counts) in &times {
        println!("{:>5} s  {title}: {counts}", time.as_secs());
    }
    println!("{:>5} s  all suites", start.elapsed().as_secs());
    println!("{sum}");
    Ok(if sum.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds and boots what the tests need, from a fresh checkout if need be.
fn set_up() -> Result<()> {
    println!("\n== set-up");
    let start = Instant::now();
    build::programs()?;
    build::guests()?;
    build::kernels()?;
    stop_machines()?;
    for (systemd, name) in MACHINES {
        build::root(systemd)?;
        let booting = format!("Booting the machine {name}");
        step(&booting, Duration::from_secs(4), || {
            Machine::ensure(name, systemd)
        })?;
    }
    println!("set-up took {} s", start.elapsed().as_secs());
    Ok(())
}

fn stop_machines() -> Result<()> {
    for (_, name) in MACHINES.into_iter().chain(OWN_KERNEL) {
        if let Some(machine) = Machine::attach(name)? {
            machine
                .stop()
                .with_context(|| format!("stopping the machine {name}"))?;
        }
    }
    Ok(())
}
