//! What a kit says that it needs, and secrets given by the star.

use aegis_tests::instance::Instance;
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use anyhow::{Result, ensure};

/// All that is missing is told at once, and nothing is made.
fn is_told(seat: Seat<'_>, flags: &str, expected: &[&str]) -> Result<()> {
    let start = format!("instance start --name needy --kit needy {flags}");
    let refused = seat.aegis(&start)?;
    let said = refused.error_text();
    ensure!(refused.code() == 1, "{said}");
    let errors = said.lines().filter(|line| line.starts_with("error: "));
    ensure!(errors.count() == 1, "{said}");
    for words in expected {
        ensure!(said.contains(words), "no {words} in {said}");
    }
    let listed = seat.aegis_ok("instance list --quiet")?;
    ensure!(!listed.contains("needy"), "it was made: {listed}");
    Ok(())
}

fn a_kit_says_what_it_needs(seat: Seat<'_>) -> Result<()> {
    kit::install(seat, "needy", &["secret-daemon"])?;
    is_told(
        seat,
        "",
        &["'NEEDY_A', 'NEEDY_B'", "--env NEEDY_A --env NEEDY_B"],
    )?;
    is_told(
        seat,
        "--env OTHER=secret.NEEDY_MISSING",
        &["'NEEDY_MISSING'", "'NEEDY_A', 'NEEDY_B'"],
    )?;
    seat.set_secret("NEEDY_A", "first of them")?;
    is_told(seat, "--env '*'", &["'NEEDY_B'", "give it: --env NEEDY_B"])?;
    seat.set_secret("NEEDY_B", "second of them")?;
    seat.set_secret("SPARE", "one that nobody asked for")?;
    for all in ["--env '*'", "--secret '*'"] {
        let start = format!("instance start --name needy --kit needy {all} --env PLAIN=1");
        let started = seat.aegis(&start)?;
        let said = started.error_text();
        started.success()?;
        ensure!(said.contains("NEEDY_C"), "the config's variable: {said}");
        let instance = Instance::existing(seat, "needy");
        let has = instance.exec_ok("echo $NEEDY_A, $NEEDY_B, $SPARE, $PLAIN")?;
        ensure!(
            has == "first of them, second of them, one that nobody asked for, 1",
            "{has}"
        );
        instance.delete()?;
    }
    // One by one, and no other.
    let start = "instance start --name needy --kit needy --secret NEEDY_A --env NEEDY_B=plain";
    seat.aegis_ok(start)?;
    let instance = Instance::existing(seat, "needy");
    let has = instance.exec_ok("echo $NEEDY_A, $NEEDY_B, $SPARE.")?;
    ensure!(has == "first of them, plain, .", "{has}");
    instance.delete()?;
    for name in ["NEEDY_A", "NEEDY_B", "SPARE"] {
        seat.aegis_ok(&format!("secret delete {name}"))?;
    }
    Ok(())
}

#[test]
fn a_kit_of_a_user_says_what_it_needs() -> Result<()> {
    let machine = Machine::temporary("test-required", Systemd::V257)?;
    a_kit_says_what_it_needs(Seat::alice(&machine))
}

#[test]
fn a_kit_of_a_user_says_what_it_needs_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-required-252", Systemd::V252)?;
    a_kit_says_what_it_needs(Seat::alice(&machine))
}
