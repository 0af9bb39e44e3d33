//! `make shell`: a prompt or one command in a machine that lives on.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use aegis_tests::machine::{Machine, Systemd, User, exit_code, running};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::build;
use crate::progress::step;

/// Which user a command runs as, and so which mode AegisVM is used in.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// alice, an ordinary user with her own service manager.
    User,
    /// root and the system's service manager.
    System,
}

/// Arguments of `shell`. Without a command or script it opens a prompt.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// One command line for `sh -c`, run without a terminal of its own.
    #[arg(long, conflicts_with = "script")]
    run: Option<String>,
    /// A file with a shell script to run likewise.
    #[arg(long)]
    script: Option<PathBuf>,
    /// The version of systemd: 257 or 252.
    #[arg(long, default_value = "257")]
    systemd: String,
    /// Whose service manager to use.
    #[arg(long, value_enum, default_value = "user")]
    mode: Mode,
    /// The machine's name, if several are wanted side by side.
    #[arg(long)]
    name: Option<String>,
}

/// Arguments of `shell-stop`.
#[derive(Args, Debug)]
pub(crate) struct StopArguments {
    /// Only this machine instead of all.
    #[arg(long)]
    name: Option<String>,
}

/// Runs what is asked for and gives its exit code.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let systemd = Systemd::from_number(&arguments.systemd)?;
    let default_name = format!("aegis-{}", systemd.number());
    let name = arguments.name.as_deref().unwrap_or(&default_name);
    build::first_time()?;
    build::root(systemd)?;
    let booting = format!("Booting the machine {name}");
    let machine = step(&booting, Duration::from_secs(4), || {
        Machine::ensure(name, systemd)
    })?;
    machine.update_software()?;

    let user = match arguments.mode {
        Mode::User => User::Alice,
        Mode::System => User::Root,
    };
    let mut command = match (&arguments.run, &arguments.script) {
        (Some(line), _) => machine.command(user, line),
        (None, Some(path)) => {
            let script = std::fs::read_to_string(path)
                .with_context(|| format!("reading the script {}", path.display()))?;
            machine.command_with(user, &[], interpreter(&script), &script)
        }
        (None, None) => prompt(&machine, user),
    };
    let status = command.status().context("entering the machine")?;
    Ok(ExitCode::from(
        u8::try_from(exit_code(status)).unwrap_or(255),
    ))
}

/// A login shell. On a terminal it gets a terminal of the machine, whose names
/// under /dev are right there.
fn prompt(machine: &Machine, user: User) -> Command {
    let terminal = std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
    let line = if std::io::stdin().is_terminal() {
        "exec script --quiet --return --command 'exec bash --login' /dev/null"
    } else {
        "exec bash --login"
    };
    machine.command_with(user, &[("TERM", &terminal)], "sh", line)
}

/// The shell that a script asks for in its first line; `sh` unless bash.
fn interpreter(script: &str) -> &'static str {
    match script.lines().next() {
        Some(first) if first.starts_with("#!") && first.contains("bash") => "bash",
        _ => "sh",
    }
}

/// Stops one machine or all.
pub(crate) fn stop(arguments: &StopArguments) -> Result<()> {
    let names = match &arguments.name {
        Some(name) => vec![name.clone()],
        None => running()?,
    };
    for name in names {
        if let Some(machine) = Machine::attach(&name)? {
            let stopping = format!("Stopping the machine {name}");
            step(&stopping, Duration::from_secs(3), || machine.stop())?;
        }
    }
    Ok(())
}
