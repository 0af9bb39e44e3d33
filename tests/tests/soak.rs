//! Short forms of the long runs of `make soak`.

use std::time::Duration;

use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::soak::{self, Extent, Figures};
use anyhow::{Result, ensure};

const FLEET: &[u8] = include_bytes!("../clients/fleet.py");

fn check(figures: &Figures) -> Result<()> {
    let failures = figures.failures.join("\n");
    ensure!(failures.is_empty(), "{failures}\n\n{}", figures.text);
    Ok(())
}

#[test]
fn lives_one_after_the_other_leave_nothing_and_grow_nothing() -> Result<()> {
    let machine = Machine::temporary("test-soak-lives", Systemd::V257)?;
    let extent = Extent {
        times: 10,
        within: Some(Duration::from_secs(40)),
    };
    check(&soak::lives(Seat::alice(&machine), extent)?)
}

#[test]
fn a_crowd_of_sessions_is_served_and_leaves_nothing() -> Result<()> {
    let machine = Machine::temporary("test-soak-crowd", Systemd::V257)?;
    check(&soak::crowd(Seat::alice(&machine), 100)?)
}

#[test]
fn rounds_of_use_end_as_they_began() -> Result<()> {
    let machine = Machine::temporary("test-soak-rounds", Systemd::V257)?;
    let extent = Extent {
        times: 5,
        within: Some(Duration::from_secs(60)),
    };
    check(&soak::rounds(Seat::alice(&machine), extent)?)
}

#[test]
fn a_thousand_instances_that_come_together_come_to_rest() -> Result<()> {
    let machine = Machine::temporary("test-soak-fleet", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    let script = "/tmp/fleet.py";
    seat.machine().write_file(seat.user(), script, FLEET)?;
    seat.run(&format!("python3 {script} 1000 100"))?.success()?;
    let listed = seat.aegis_ok("instance list --quiet --filter enabled=true")?;
    assert_eq!(listed.lines().count(), 100);
    Ok(())
}
