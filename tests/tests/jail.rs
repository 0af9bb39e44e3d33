//! What code that runs as QEMU can reach: a program in its place tries. QEMU's own
//! filter of system calls would come on top.

use aegis_tests::compile::compile;
use aegis_tests::instance::Instance;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use anyhow::{Context, Result, ensure};

/// The place of QEMU, which the machine then does without.
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// A file that the jail shows, since libraries lie there.
const TARGETS: &str = "/usr/lib/aegis-jail-targets";

#[test]
fn the_jail_has_no_way_out() -> Result<()> {
    let machine = Machine::temporary("test-jail", Systemd::V257)?;
    no_way_out(Seat::alice(&machine))
}

#[test]
fn the_jail_has_no_way_out_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-jail-252", Systemd::V252)?;
    no_way_out(Seat::alice(&machine))
}

#[test]
fn the_jail_has_no_way_out_in_system_mode() -> Result<()> {
    let machine = Machine::temporary("test-jail-system", Systemd::V257)?;
    no_way_out(Seat::root(&machine))
}

#[test]
fn the_jail_has_no_way_out_in_system_mode_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-jail-system-252", Systemd::V252)?;
    no_way_out(Seat::root(&machine))
}

fn no_way_out(seat: Seat<'_>) -> Result<()> {
    let machine = seat.machine();
    let neighbour = Instance::start(seat, "jail-neighbour", "")?;
    let owner = seat.main_pid(&neighbour.vm_unit())?.context("no VM")?;
    let qemu = neighbour.qemu_pid()?.context("no QEMU")?;
    let manager = seat.run("pgrep -x systemd | tail -n 1")?.success()?;
    // Something of the host that listens on the network.
    let listen = "systemd-run --quiet --unit=jail-listener socat TCP-LISTEN:7777,fork /dev/null";
    machine.run(User::Root, listen)?.success()?;
    let mut forbidden: Vec<String> = [
        "connect /run/dbus/system_bus_socket",
        "connect /run/systemd/private",
        "connect /run/systemd/notify",
        "connect /run/systemd/journal/stdout",
        "connect /run/user/1000/bus",
        "connect /run/user/1000/systemd/private",
        "tcp 127.0.0.1:7777",
        "tcp 10.0.0.1:80",
        "read /etc/passwd",
        "read /etc/shadow",
        "read /home/alice/.profile",
        "read /dev/kvm",
        "read /dev/mem",
        "list /home",
        "list /run",
        "list /proc",
        "list /sys",
        "list /tmp",
        "read /proc/1/environ",
        "read /proc/self/environ",
        "write /written",
        "write /usr/lib/written",
        "write /tmp/written",
        "mount /usr/lib",
        "unshare user",
        "signal -1",
    ]
    .map(str::to_owned)
    .into();
    let own = format!("{}/instances/jail/vm.json", seat.home());
    forbidden.extend([
        format!("read {own}"),
        format!("read {}/vm.json", neighbour.folder()),
        format!("read {}/disk.img", neighbour.folder()),
        format!("read {}/registry.db", seat.home()),
        format!("connect {}", neighbour.control_socket()),
        format!("connect {}/vm/jail/control.sock", seat.runtime()),
    ]);
    for pid in [&owner.to_string(), &qemu.to_string(), &manager] {
        forbidden.extend([format!("signal {pid}"), format!("trace {pid}")]);
    }

    let jail = Instance::expected(seat, "jail")?;
    take_the_place_of_qemu(machine, &forbidden)?;
    let told = seat.aegis("instance start --name jail --accel tcg")?;
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    drop(jail);

    ensure!(told.contains("probed"), "the probe did not run: {told}");
    for attempt in &forbidden {
        let refused = told.contains(&format!("{attempt}: "));
        ensure!(refused, "{attempt} was not tried: {told}");
        let reached = told.contains(&format!("{attempt}: reached"));
        ensure!(!reached, "{attempt} succeeded: {told}");
    }
    // The test's own words are right: the listener listens.
    let answers = "timeout 5 bash -c '</dev/tcp/127.0.0.1/7777'";
    machine.run(User::Root, answers)?.success()?;
    Ok(())
}

/// Puts the probe where QEMU was, with what it is to try. A QEMU that runs goes on.
fn take_the_place_of_qemu(machine: &Machine, targets: &[String]) -> Result<()> {
    let program = compile("clients/jail_probe.c")?;
    machine.write_file(User::Root, &format!("{QEMU}.new"), &program)?;
    let replace = format!("chmod 755 {QEMU}.new && mv {QEMU}.new {QEMU}");
    machine.run(User::Root, &replace)?.success()?;
    let targets: String = targets.iter().map(|line| format!("{line}\n")).collect();
    machine.write_file(User::Root, TARGETS, targets.as_bytes())?;
    let readable = format!("chmod 644 {TARGETS}");
    machine.run(User::Root, &readable)?.success()?;
    Ok(())
}
