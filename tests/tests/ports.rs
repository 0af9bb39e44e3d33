//! Exposed ports: they listen whatever the VM does, come and go at once, and carry
//! connections as they are.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::{Seat, quote};
use aegis_tests::session::Session;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result, ensure};

/// A web server that only the guest itself can reach, and a few that are less polite:
/// one that gives back what it gets, one that goes without having read, one that notes
/// how its connection ended, one that never reads.
const SERVERS: &str = "mkdir -p /www && echo served >/www/index.html
nc -ll -p 81 -e cat &
nc -ll -p 82 -e sleep 2 &
nc -ll -p 83 -e sh -c 'cat >/dev/null 2>&1; echo $? >/tmp/end' &
nc -ll -p 84 -e sleep 1000 &
exec httpd -f -p 127.0.0.1:80 -h /www";

fn serving<'a>(seat: Seat<'a>, handle: &str, flags: &str) -> Result<Instance<'a>> {
    let command = quote(SERVERS);
    Instance::start(seat, handle, &format!("{flags} -d -- sh -c {command}"))
}

fn fetch(seat: Seat<'_>, port: u16) -> Result<String> {
    let url = format!("http://127.0.0.1:{port}/index.html");
    let curl = format!("curl --silent --show-error --max-time 100 {url}");
    let fetched = seat.run(&curl)?.success();
    fetched.with_context(|| format!("port {port}"))
}

fn is_open(seat: Seat<'_>, port: u16) -> Result<bool> {
    let listening = seat.run("ss -Hltn || cat /proc/net/tcp")?.success()?;
    let (decimal, hex) = (format!(":{port} "), format!(":{port:04X} 00000000:0000 0A"));
    Ok(listening.contains(&decimal) || listening.contains(&hex))
}

/// The numbers on the host of the ports that `info` shows.
fn numbers(instance: &Instance<'_>) -> Result<Vec<u16>> {
    let shown = instance.info_value("Ports")?.unwrap_or_default();
    let number = |port: &str| port.split(':').nth(1)?.parse().ok();
    let numbers: Option<Vec<u16>> = shown.split(", ").map(number).collect();
    numbers.with_context(|| format!("the ports are {shown:?}"))
}

fn aegisd_sockets(seat: Seat<'_>, verb: &str) -> Result<()> {
    seat.systemctl(&format!(
        "{verb} aegisd.socket aegisd-credentials.socket aegisd.service"
    ))?
    .success()
    .map(drop)
}

/// In every state of the VM a port is added, serves, and is closed.
fn ports_come_and_go(seat: Seat<'_>) -> Result<()> {
    let instance = serving(seat, "port-moves", "--expose 80")?;
    let chosen = numbers(&instance)?[0];
    assert_eq!(
        fetch(seat, chosen)?,
        "served",
        "nothing but the guest itself reaches it"
    );
    let qemu = instance.qemu_pid()?;

    let said = seat.aegis_ok("instance expose port-moves 18401:80 127.0.0.1:18402:80/tcp")?;
    assert!(said.contains("127.0.0.1:18401:80"), "{said}");
    for port in [18401, 18402, chosen] {
        assert_eq!(fetch(seat, port)?, "served");
    }
    seat.aegis_ok("instance unexpose port-moves 18402")?;
    assert!(!is_open(seat, 18402)?);
    instance.act("pause")?;
    seat.aegis_ok("instance update port-moves --expose 18403:80")?;
    seat.aegis_ok("instance unexpose port-moves 18401:80")?;
    assert!(!is_open(seat, 18401)?);
    assert_eq!(instance.state()?, "paused");
    assert_eq!(fetch(seat, 18403)?, "served");
    assert_eq!(instance.qemu_pid()?, qemu, "the same VM all the time");
    assert_eq!(instance.info_value("Pending")?, None);

    // Asleep, and with nobody but the service manager there.
    instance.act("stop")?;
    seat.aegis_ok("instance expose port-moves 18404:80")?;
    aegisd_sockets(seat, "stop")?;
    assert_eq!(fetch(seat, 18404)?, "served");
    assert_eq!(fetch(seat, 18403)?, "served");
    // A crash of the owner: who comes next waits, and is served by the next VM.
    let owner = seat.main_pid(&instance.vm_unit())?.context("no owner")?;
    seat.run(&format!("kill -KILL {owner}"))?.success()?;
    assert!(is_open(seat, 18404)?);
    assert_eq!(fetch(seat, 18404)?, "served");
    aegisd_sockets(seat, "start")?;

    let unknown = seat.aegis("instance unexpose port-moves 18402")?;
    assert!(
        unknown.error_text().contains("no port 18402"),
        "{unknown:?}"
    );
    instance.act("disable")?;
    assert!(!is_open(seat, chosen)?);
    instance.act("enable")?;
    assert_eq!(numbers(&instance)?, [chosen, 18403, 18404]);
    assert!(is_open(seat, chosen)? && is_open(seat, 18404)?);
    instance.delete()?;
    assert!(!is_open(seat, chosen)?);
    Ok(())
}

#[test]
fn ports_change_while_the_vm_runs_sleeps_and_is_paused() -> Result<()> {
    let machine = Machine::temporary("test-ports", Systemd::V257)?;
    ports_come_and_go(Seat::alice(&machine))
}

#[test]
fn ports_change_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-ports-252", Systemd::V252)?;
    ports_come_and_go(Seat::alice(&machine))
}

#[test]
fn ports_change_in_system_mode() -> Result<()> {
    let machine = Machine::temporary("test-ports-system", Systemd::V257)?;
    ports_come_and_go(Seat::root(&machine))
}

#[test]
fn a_chosen_number_is_kept_by_the_next_run_of_the_manager() -> Result<()> {
    let machine = Machine::temporary("test-ports-kept", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    let instance = serving(seat, "port-kept", "--expose 80")?;
    let range = seat.run("cat /proc/sys/net/ipv4/ip_local_port_range")?;
    let range = range.success()?;
    let range: Vec<u16> = range
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let chosen = numbers(&instance)?;
    ensure!(chosen[0] < range[0] || chosen[0] > range[1], "{chosen:?}");
    let other = Instance::start(seat, "port-other", "--expose 80 --expose 81")?;
    assert!(!numbers(&other)?.contains(&chosen[0]));

    seat.machine()
        .run(User::Root, "systemctl restart user@1000.service")?
        .success()?;
    wait_until(DEADLINE, "the port to listen again", || {
        is_open(seat, chosen[0])
    })?;
    assert_eq!(fetch(seat, chosen[0])?, "served");
    assert_eq!(numbers(&instance)?, chosen);
    other.delete()?;
    instance.delete()
}

#[test]
fn who_has_a_port_is_named() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let first = Instance::start(seat, "port-first", "--expose 18411:80")?;
    let refused = seat.aegis("instance start --name port-second --expose 18411:80")?;
    let text = refused.error_text();
    assert!(text.contains("PortInUse"), "{text}");
    assert!(text.contains("the instance 'port-first'"), "{text}");

    let hold = "import socket, time; s = socket.create_server((\"127.0.0.1\", 18412)); print(\"held\", flush=True); time.sleep(1000)";
    let mut holder = Session::start(seat, &format!("python3 -c '{hold}'"))?;
    holder.wait_for_line("held")?;
    let refused = seat.aegis("instance expose port-first 18412:80")?;
    let text = refused.error_text();
    assert!(text.contains("(python3)"), "{text}");
    assert_eq!(numbers(&first)?, [18411], "nothing of it is left");

    // One of root's, which a user cannot look into.
    let listen = hold.replace("18412", "18413").replace("1000)", "60)");
    let listen = format!("python3 -c '{listen}' >/tmp/held 2>&1 & sleep 2; cat /tmp/held");
    let held = machine.run(User::Root, &listen)?.success()?;
    assert_eq!(held, "held");
    let refused = seat.aegis("instance expose port-first 18413:80")?;
    let text = refused.error_text();
    assert!(text.contains("a process of another user"), "{text}");
    first.delete()
}

#[test]
fn connections_are_carried_as_they_are() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let client = include_bytes!("../clients/port_peer.py");
    machine.write_file(seat.user(), "/home/alice/clients/port_peer.py", client)?;
    let peer = |arguments: &str| -> Result<String> {
        let line = format!("python3 clients/port_peer.py {arguments}");
        let output = seat.run(&line)?.success();
        output.with_context(|| arguments.to_owned())
    };
    let flags =
        "--expose 18420:80 --expose 18421:81 --expose 18422:82 --expose 18423:83 --expose 18424:84";
    let instance = serving(seat, "port-carry", flags)?;
    assert_eq!(peer("half 18421")?, "there and back");
    assert_eq!(peer("reset 18422")?, "reset");
    peer("break 18423")?;
    wait_until(DEADLINE, "the guest to see the end", || {
        Ok(instance.exec("test -s /tmp/end")?.status.success())
    })?;
    assert_eq!(instance.exec_ok("cat /tmp/end")?, "1", "a reset is no end");
    let sent: u64 = peer("flood 18424")?.parse()?;
    assert!(sent < 64 << 20, "{sent} bytes were taken that nobody reads");
    assert_eq!(
        peer("half 18421")?,
        "there and back",
        "beside one that is stuck"
    );

    // A connection outlives aegisd.
    let mut held = Session::start(
        seat,
        "python3 -c 'import socket, sys\ns = socket.create_connection((\"127.0.0.1\", 18421))\nprint(\"open\", flush=True)\nsys.stdin.readline()\ns.sendall(b\"still here\")\nprint(s.recv(99).decode(), flush=True)'",
    )?;
    held.wait_for_line("open")?;
    seat.kill_aegisd()?;
    seat.wait_for_aegisd()?;
    held.write(b"\n")?;
    held.wait_for_line("still here")?;
    instance.delete()
}

#[test]
fn a_thousand_connections_start_one_vm_and_all_are_served() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let client = include_bytes!("../clients/port_peer.py");
    machine.write_file(seat.user(), "/home/alice/clients/port_peer.py", client)?;
    let instance = serving(seat, "port-crowd", "--expose 18430:80")?;
    instance.act("stop")?;
    let starts = || -> Result<usize> {
        let journal = seat.journal(&instance.vm_unit(), "cat")?;
        Ok(journal.lines().filter(|line| *line == "running").count())
    };
    let before = starts()?;
    let served = seat.run("python3 clients/port_peer.py crowd 18430 1000")?;
    assert_eq!(served.success()?.trim(), "1000");
    wait_until(DEADLINE, "the journal to say so", || Ok(starts()? > before))?;
    assert_eq!(starts()?, before + 1, "one VM was started, once");
    instance.delete()
}
