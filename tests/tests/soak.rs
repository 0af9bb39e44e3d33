//! Short forms of the long runs of `make soak`.

use std::time::Duration;

use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::soak::{self, Extent, Figures};
use anyhow::{Result, ensure};

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
