//! A running guest: exec, pause and resume, and what it takes of memory.

use aegis_core::spec::DEFAULT_MEMORY_MIB;
use anyhow::Result;

use super::tools::{Instance, aegis, output, property, resident};
use crate::row::Row;
use crate::samples::Samples;

const RUNS: usize = 25;

pub(super) fn measure() -> Result<Vec<Row>> {
    let instance = Instance::start("bench-session", &["--", "sleep", "infinity"])?;
    let client = Samples::time(RUNS, || aegis(&["version"]).map(drop))?;
    let exec = Samples::time(RUNS, || {
        aegis(&["exec", "bench-session", "--", "true"]).map(drop)
    })?;
    let round_trip = Samples::time(RUNS, || {
        aegis(&["instance", "pause", "bench-session"])?;
        aegis(&["instance", "resume", "bench-session"]).map(drop)
    })?;
    let ping = Samples::time(RUNS, || {
        let object = ["org.aegisvm.Aegis1", "/org/aegisvm/Aegis1"];
        let method = ["org.freedesktop.DBus.Peer", "Ping"];
        output(
            "busctl",
            &[&["--user", "call"], &object[..], &method[..]].concat(),
        )
        .map(drop)
    })?;
    let vmm = resident(&property("aegis-vm-bench-session.service", "MainPID")?)?;
    let qemu = resident(&instance.qemu()?)?;
    Ok(vec![
        Row::new("`exec -- true` in a running guest", "ms", exec.median())
            .against("`aegisctl version`, which asks aegisd", client.median()),
        Row::new(
            "`instance pause`, then `instance resume`",
            "ms",
            round_trip.median(),
        )
        .against("two pings of aegisd by busctl", 2.0 * ping.median()),
        Row::new("resident memory of aegis-vmm", "MB", vmm),
        Row::new(
            format!("resident memory of its QEMU, a guest of {DEFAULT_MEMORY_MIB} MB at rest"),
            "MB",
            qemu,
        ),
    ])
}
