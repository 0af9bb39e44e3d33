//! Daemons, aegisd and QEMUs killed at random moments, and a daemon that is killed
//! until its delay is the longest. The whole storm is a part of `make soak`.

use std::time::Duration;

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kill_storm::{self, Extent};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result};
use serde_json::Value;

#[test]
fn after_a_storm_of_kills_and_a_reboot_everything_is_as_wanted() -> Result<()> {
    let mut machine = Machine::temporary("test-storm", Systemd::V257)?;
    let report = kill_storm::blow(&mut machine, Extent::SHORT)?;
    println!("{report}");
    let failures = report.failures().join("\n\n");
    assert!(failures.is_empty(), "{failures}");
    Ok(())
}

#[test]
fn delays_grow_to_the_longest_and_begin_anew_after_a_healthy_run() -> Result<()> {
    grow_and_begin_anew(Systemd::V257)
}

#[test]
fn delays_grow_to_the_longest_and_begin_anew_after_a_healthy_run_on_systemd_252() -> Result<()> {
    grow_and_begin_anew(Systemd::V252)
}

/// The kit's longest delay is 2 s, and after 6 s of running its delays begin anew.
fn grow_and_begin_anew(systemd: Systemd) -> Result<()> {
    let machine = Machine::shared(systemd)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "capped", &["storm-daemon"])?;
    let instance = kit::make_at_rest(seat, "kill-capped", "capped")?;
    let mut failures = 0;
    loop {
        kill(seat, &instance)?;
        failures += 1;
        if is_longest(seat, &instance)? {
            break;
        }
        assert!(failures < 12, "the longest delay is not reached");
    }
    assert!(failures > 2, "the delays have grown step by step");
    kill(seat, &instance)?;
    assert!(is_longest(seat, &instance)?, "they grow no further");

    let unit = instance.daemon_unit("daemon");
    wait_until(DEADLINE, "the restarts to be forgotten", || {
        Ok(seat.unit_property(&unit, "NRestarts")? == "0")
    })?;
    if systemd == Systemd::V252 {
        // To the manager the wait in aegis-shim is a part of the run.
        wait_until(DEADLINE, "the daemon to have run long enough", || {
            let began = record(seat, &instance)?["began"].as_u64();
            let began = Duration::from_millis(began.context("began")?);
            Ok(uptime(seat)? > began + Duration::from_secs(6))
        })?;
    }
    kill(seat, &instance)?;
    assert!(!is_longest(seat, &instance)?, "they begin anew");
    assert_eq!(seat.unit_property(&unit, "NRestarts")?, "1");
    Ok(())
}

/// Kills the daemon and waits until another process is the daemon itself.
fn kill(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let pid = instance.daemon_pid("daemon")?;
    seat.run(&format!("kill -KILL {pid}"))?.success()?;
    let unit = instance.daemon_unit("daemon");
    wait_until(DEADLINE, "the daemon to run again", || {
        let processes = seat.processes(&unit)?;
        Ok(processes
            .iter()
            .any(|process| process.pid != pid && process.name == "sleep"))
    })
}

/// Whether the next restart comes after the longest delay.
fn is_longest(seat: Seat<'_>, instance: &Instance<'_>) -> Result<bool> {
    if seat.machine().systemd() == Systemd::V257 {
        let next = seat.unit_property(&instance.daemon_unit("daemon"), "RestartUSecNext")?;
        return Ok(next == "2s");
    }
    // There aegis-shim keeps count: the sixth failure in a row is the first after
    // which 0.1 s doubled each time is more than 2 s.
    let failures = record(seat, instance)?["failures"].as_u64();
    Ok(failures.context("failures")? >= 6)
}

/// What aegis-shim keeps of the daemon's runs.
fn record(seat: Seat<'_>, instance: &Instance<'_>) -> Result<Value> {
    let path = format!("{}/daemon-daemon/back-off.json", instance.folder());
    let text = seat.machine().read_file(&path)?;
    serde_json::from_slice(&text).with_context(|| path)
}

/// How long the host has run.
fn uptime(seat: Seat<'_>) -> Result<Duration> {
    let text = seat.run("cut -d' ' -f1 /proc/uptime")?.success()?;
    Ok(Duration::from_secs_f64(text.parse().context("an uptime")?))
}
