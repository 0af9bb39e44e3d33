//! The D-Bus interface in the hands of clients that are not ours.

use aegis_tests::instance::Instance;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use anyhow::Result;

const LIFE_CYCLE: &[u8] = include_bytes!("../clients/life_cycle.py");

fn drive(seat: Seat<'_>, handle: &str) -> Result<()> {
    let _cleaner = Instance::expected(seat, handle)?;
    let script = "/tmp/life_cycle.py";
    seat.machine().write_file(seat.user(), script, LIFE_CYCLE)?;
    let printed = seat
        .run(&format!(
            "python3 {script} {handle} {}; code=$?; rm {script}; exit $code",
            seat.scope()
        ))?
        .success()?;
    let states = printed.lines().last().unwrap_or_default();
    assert_eq!(
        states,
        "states: starting running paused running stopping stopped disabled stopped disabled",
        "{printed}"
    );
    Ok(())
}

#[test]
fn a_python_client_follows_a_whole_life_by_signals_alone() -> Result<()> {
    drive(Seat::alice(&Machine::shared(Systemd::V257)?), "dbus-life")
}

#[test]
fn a_python_client_follows_a_whole_life_in_system_mode() -> Result<()> {
    drive(Seat::root(&Machine::shared(Systemd::V257)?), "dbus-life")
}

#[test]
fn introspection_shows_every_interface() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let _instance = Instance::start(seat, "dbus-look", "")?;
    let tree = seat
        .run("busctl --user tree --list org.aegisvm.Aegis1")?
        .success()?;
    let path = "/org/aegisvm/Aegis1/instance/dbus_2dlook";
    assert!(tree.lines().any(|line| line == path), "{tree}");
    for (object, interface, members) in [
        (
            "/org/aegisvm/Aegis1",
            "Manager",
            &[
                "CreateInstance",
                "GetInstance",
                "Check",
                "StopAll",
                "Version",
                "Lingering",
            ][..],
        ),
        (
            path,
            "Instance",
            &[
                "Start", "Stop", "Enable", "Disable", "Delete", "Pause", "Resume", "Exec",
                "OpenLogs", "State", "Daemons",
            ],
        ),
    ] {
        let line = format!(
            "busctl --user introspect org.aegisvm.Aegis1 {object} org.aegisvm.Aegis1.{interface}"
        );
        let shown = seat.run(&line)?.success()?;
        for member in members {
            let member = format!(".{member} ");
            assert!(shown.contains(&member), "{member}in {shown}");
        }
    }
    Ok(())
}

#[test]
fn a_stranger_may_not_call_aegisd_in_system_mode() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    Seat::root(&machine).aegis_ok("status")?;
    let call = "busctl --system call org.aegisvm.Aegis1 /org/aegisvm/Aegis1 \
                org.aegisvm.Aegis1.Manager CreateInstance 'sa{sv}a{sv}' stranger 0 0";
    let refused = machine.run(aegis_tests::machine::User::Alice, call)?;
    assert!(!refused.status.success(), "{}", refused.text());
    assert!(
        !Seat::root(&machine)
            .aegis_ok("instance list")?
            .contains("stranger")
    );
    Ok(())
}
