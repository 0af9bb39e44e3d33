//! One whole life of an instance, the same on every service manager that is
//! supported.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result};

#[test]
fn a_life_in_user_mode_on_systemd_257() -> Result<()> {
    one_life(Seat::alice(&Machine::shared(Systemd::V257)?))
}

#[test]
fn a_life_in_user_mode_on_systemd_252() -> Result<()> {
    one_life(Seat::alice(&Machine::shared(Systemd::V252)?))
}

#[test]
fn a_life_in_system_mode_on_systemd_257() -> Result<()> {
    one_life(Seat::root(&Machine::shared(Systemd::V257)?))
}

#[test]
fn a_life_in_system_mode_on_systemd_252() -> Result<()> {
    one_life(Seat::root(&Machine::shared(Systemd::V252)?))
}

fn one_life(seat: Seat<'_>) -> Result<()> {
    kit::install(seat, "shell", &["shell-gateway"])?;
    assert_eq!(seat.run("aegisctl run -- echo hello")?.stdout, b"hello\n");

    let instance = Instance::start(seat, "conform", "--kit shell --expose 18070:7")?;
    let daemon = instance.daemon_pid("gateway")?;
    let qemu = instance.qemu_pid()?.context("no QEMU")?;
    let info = instance.info()?;
    assert!(
        info.lines().any(|line| line == "Gateway:     running"),
        "{info}"
    );
    assert_eq!(instance.exec_ok("hostname")?, "conform");
    assert_eq!(instance.exec("exit 7")?.code(), 7);

    instance.act("pause")?;
    assert_eq!(instance.state()?, "paused");
    instance.act("resume")?;
    seat.kill_aegisd()?;
    seat.wait_for_aegisd()?;
    assert_eq!(instance.qemu_pid()?, Some(qemu));

    instance.act("stop")?;
    assert_eq!(seat.active_state(&instance.socket_unit())?, "active");
    assert_eq!(instance.daemon_pid("gateway")?, daemon);
    assert_eq!(instance.exec_ok("echo awake")?, "awake");

    seat.run(&format!("kill -KILL {daemon}"))?.success()?;
    wait_until(DEADLINE, "the daemon to be restarted", || {
        Ok(seat
            .main_pid(&instance.daemon_unit("gateway"))?
            .is_some_and(|pid| pid != daemon))
    })?;

    instance.act("disable")?;
    assert_eq!(seat.active_state(&instance.socket_unit())?, "inactive");
    assert_eq!(
        seat.active_state(&instance.daemon_unit("gateway"))?,
        "inactive"
    );
    instance.act("enable")?;
    instance.daemon_pid("gateway")?;

    let (slice, socket, vm) = (instance.slice(), instance.socket_unit(), instance.vm_unit());
    instance.delete()?;
    wait_until(DEADLINE, "all units of the instance to be gone", || {
        let units = seat.units()?;
        Ok(![slice.as_str(), socket.as_str(), vm.as_str()]
            .iter()
            .any(|unit| units.iter().any(|listed| listed == unit)))
    })
}
