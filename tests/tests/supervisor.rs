//! The conformance suite of aegisd's supervisor: run inside the machines, since it needs
//! the service manager it speaks to around it, and here against a stand-in for launchd.

use std::fs;
use std::path::Path;
use std::process::Command;

use aegis_tests::cache;
use aegis_tests::machine::{Machine, Systemd, User};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

#[test]
fn the_supervisor_conforms_on_systemd_257() -> Result<()> {
    conforms(Systemd::V257)
}

#[test]
fn the_supervisor_conforms_on_systemd_252() -> Result<()> {
    conforms(Systemd::V252)
}

/// What launchd declares it cannot do is of no concern there; `declared` sees to that.
const NOT_OF_LAUNCHD: [&str; 3] = ["sandbox::", "credentials::", "reloads::"];

#[test]
fn the_supervisor_conforms_on_a_stand_in_for_launchd() -> Result<()> {
    let suite = built_suite()?;
    let shim = Path::new(&suite).ancestors().nth(2);
    let shim = shim.context("the suite lies below target/release")?;
    let mut command = Command::new(&suite);
    command.args(["--ignored", "--test-threads", "6"]);
    for module in NOT_OF_LAUNCHD {
        command.args(["--skip", module]);
    }
    let stand_in = cache::repository().join("tests/stand_ins/launchctl.py");
    let output = command
        .env("AEGIS_LAUNCHCTL", stand_in)
        .env("AEGIS_SHIM", shim.join("aegis-shim"))
        .output()
        .context("running the suite")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}");
    Ok(())
}

fn conforms(systemd: Systemd) -> Result<()> {
    // Of its own: the suite has units that no aegisd knows.
    let name = format!("test-supervisor-{}", systemd.number());
    let machine = Machine::temporary(&name, systemd)?;
    let suite = "/tmp/supervisor_conformance";
    machine.write_file(User::Alice, suite, &fs::read(built_suite()?)?)?;
    // Reloads without a pause apart: one that meets a restart of systemd 252 has it
    // counted again.
    let line = format!(
        "chmod 755 {suite} && {suite} --ignored --test-threads 2 --skip reloads:: --skip declared:: 2>&1 \
         && {suite} --ignored reloads:: 2>&1"
    );
    let output = machine.run(User::Alice, &line)?;
    ensure!(output.code() == 0, "{}", output.text());
    Ok(())
}

/// The suite's program, as cargo says where it put it.
fn built_suite() -> Result<String> {
    // All packages, as they were tested before: for one alone cargo would build its
    // dependencies again, with the features that this one wants.
    let output = Command::new(env!("CARGO"))
        .args(["test", "--release", "--no-run"])
        .args(["--workspace", "--exclude", "aegis-tests"])
        .args(["--test", "supervisor_conformance", "--message-format=json"])
        .output()
        .context("running cargo")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let mut messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let program = messages.find_map(|message| {
        let is_suite = message["target"]["name"] == "supervisor_conformance";
        let path = message["executable"].as_str().filter(|_| is_suite);
        path.map(str::to_owned)
    });
    program.context("cargo did not name the conformance suite's program")
}
