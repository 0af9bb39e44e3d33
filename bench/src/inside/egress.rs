//! The way out of a guest beside passt without one.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::tools::{Instance, aegis, wait_for};
use crate::row::Row;
use crate::samples::Samples;

/// A host beside the machine that writes so many bytes to whoever connects.
pub(crate) const SOURCE: (&str, u16) = ("93.184.215.14", 90);
pub(crate) const BYTES: usize = 100 << 20;

const RUNS: usize = 5;
const NAME: &str = "bench-egress";

pub(super) fn measure() -> Result<Vec<Row>> {
    let instance = Instance::start(
        NAME,
        &["--idle-pause", "never", "-d", "--", "sleep", "1000"],
    )?;
    instance.bring("/tmp/fetch")?;
    let (address, port) = SOURCE;
    let port = port.to_string();
    let guest = || {
        let taken = aegis(&["exec", NAME, "--", "/tmp/fetch", address, &port])?;
        anyhow::Ok(taken.trim().parse::<usize>().ok() == Some(BYTES))
    };
    // The network comes a moment after the guest.
    wait_for("the guest's network", || {
        Ok(guest().ok().filter(|all| *all))
    })?;
    let ours = Samples::time(RUNS, || {
        ensure!(guest()?, "the guest did not get all bytes");
        Ok(())
    })?;
    let theirs = Samples::time(RUNS, bare)?;
    let unfiltered = Samples::time(RUNS, || taken(&mut plain()))?;
    let what = "time for 100 MB from another host into the guest";
    Ok(vec![
        Row::new(what, "ms", ours.median())
            .against("pasta: passt without guest and filter", theirs.median()),
        Row::new("– the same", "ms", ours.median()).against("the host itself", unfiltered.median()),
    ])
}

/// The same bytes through passt's sibling, into a namespace instead of a guest.
fn bare() -> Result<()> {
    let mut command = Command::new("pasta");
    command.args(["--config-net", "--quiet", "--", "socat"]);
    taken(with_source(&mut command))
}

fn plain() -> Command {
    let mut command = Command::new("socat");
    with_source(&mut command);
    command
}

fn with_source(command: &mut Command) -> &mut Command {
    let (address, port) = SOURCE;
    command.args(["-u", &format!("TCP:{address}:{port}"), "STDOUT"])
}

fn taken(command: &mut Command) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("running a peer")?;
    let mut out = child.stdout.take().context("no standard output")?;
    let count = std::io::copy(&mut out, &mut std::io::sink()).context("reading a peer")?;
    child.wait().context("waiting for a peer")?;
    ensure!(usize::try_from(count)? == BYTES, "a peer got {count} bytes");
    Ok(())
}
