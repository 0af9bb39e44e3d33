//! A run leaves nothing behind but lines in the journal.

use aegis_tests::instance::Instance;
use aegis_tests::inventory::{Inventory, is_remembered};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::session::Session;
use anyhow::Result;

#[test]
fn a_run_prints_hello_and_leaves_nothing() -> Result<()> {
    let machine = Machine::temporary("test-leaves-run", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    let before = Inventory::take(seat)?;

    let run = seat.run("aegisctl run -- echo hello")?;

    assert_eq!(run.stdout, b"hello\n", "{}", run.error_text());
    assert_eq!(run.code(), 0);
    before.wait_until_restored(seat, is_remembered)
}

#[test]
fn a_run_that_fails_or_is_interrupted_leaves_nothing() -> Result<()> {
    let machine = Machine::temporary("test-leaves-failed", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    let before = Inventory::take(seat)?;

    assert_eq!(seat.aegis("run -- sh -c 'exit 3'")?.code(), 3);
    assert_eq!(seat.aegis("run -- /no/such/command")?.code(), 127);
    let refused = seat.aegis("run --memory 1 -- true")?;
    assert!(!refused.status.success());
    before.wait_until_restored(seat, is_remembered)?;

    for signal in ["INT", "KILL"] {
        let mut run = Session::start(seat, "aegisctl run -- sh -c 'echo up; sleep 1000'")?;
        run.wait_for_line("up")?;
        run.signal(signal)?;
        run.wait()?;
        before.wait_until_restored(seat, is_remembered)?;
    }
    Ok(())
}

#[test]
fn a_client_killed_while_its_guest_boots_leaves_nothing() -> Result<()> {
    let machine = Machine::temporary("test-leaves-boot", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    let before = Inventory::take(seat)?;
    for milliseconds in [20, 100, 300, 800, 1500] {
        let line = format!(
            "timeout --signal=KILL {}s aegisctl run -- echo up",
            f64::from(milliseconds) / 1000.0
        );
        seat.run(&line)?;
        before.wait_until_restored(seat, is_remembered)?;
    }
    Ok(())
}

#[test]
fn a_deleted_instance_leaves_only_the_config_of_its_daemons() -> Result<()> {
    let machine = Machine::temporary("test-leaves-delete", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    kit::install(seat, "shell", &["shell-gateway"])?;
    let before = Inventory::take(seat)?;

    let instance = Instance::start(
        seat,
        "leaves-kept",
        "--kit shell --expose 18081:80 --workspace leaves",
    )?;
    instance.exec_ok("true")?;
    instance.act("delete")?;
    before.wait_until_restored(seat, |thing| {
        is_remembered(thing)
            || thing.contains("/.aegis/kits/leaves-kept")
            || thing.contains("/.aegis/workspaces")
    })?;

    let instance = Instance::start(seat, "leaves-kept", "--kit shell")?;
    instance.delete()?;
    before.wait_until_restored(seat, |thing| {
        is_remembered(thing) || thing.contains("/.aegis/workspaces")
    })
}
