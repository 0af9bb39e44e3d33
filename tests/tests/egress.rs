//! What a guest reaches of the network, tried by a program that is root in the guest and
//! asks nobody; and what becomes of that when parts of it fail.

use aegis_tests::compile::compile;
use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::outside::{INNER, OWN, Outside, PUBLIC};
use aegis_tests::seat::Seat;
use aegis_tests::session::Session;
use aegis_tests::wait::{wait_for, wait_until};
use anyhow::{Context, Result, ensure};

/// Where the guest sees the program.
const DIAL: &str = "/clients/dial";
/// The flags that show it.
const SHOWN: &str = "--volume /srv/clients:/clients:ro";
const GATEWAY: &str = "192.0.0.1";

fn install_dialer(machine: &Machine) -> Result<()> {
    let program = compile("clients/dial.c")?;
    machine.write_file(User::Root, "/srv/clients/dial", &program)?;
    let open = "chmod 755 /srv/clients /srv/clients/dial";
    machine.run(User::Root, open)?.success().map(drop)
}

/// A machine's seat with a network around it, and an instance on it.
fn begin<'a>(seat: Seat<'a>, handle: &str, flags: &str) -> Result<(Outside<'a>, Instance<'a>)> {
    install_dialer(seat.machine())?;
    let outside = Outside::lay(seat.machine())?;
    let instance = Instance::start(seat, handle, &format!("{SHOWN} {flags}"))?;
    Ok((outside, instance))
}

fn dial(instance: &Instance<'_>, words: &str) -> Result<String> {
    Ok(instance.exec(&format!("{DIAL} {words}"))?.text())
}

fn reaches(instance: &Instance<'_>, address: &str, port: u16) -> Result<bool> {
    let said = dial(instance, &format!("tcp {address} {port}"))?;
    Ok(said.trim() == "reached: outside")
}

/// Waits until the guest reaches the public host.
fn wait_for_network(instance: &Instance<'_>) -> Result<()> {
    wait_until(DEADLINE, "the guest to have its network", || {
        reaches(instance, PUBLIC[0], 80)
    })
}

fn assert_policy(instance: &Instance<'_>) -> Result<()> {
    wait_for_network(instance)?;
    for address in PUBLIC {
        ensure!(reaches(instance, address, 80)?, "{address} is not reached");
    }
    for address in INNER.iter().chain(&OWN).chain(&[
        "198.51.100.1",
        "198.51.100.2",
        GATEWAY,
        "fd61:6567:6973::1",
        "0.0.0.1",
        "2002:a09:909::1",
    ]) {
        let said = dial(instance, &format!("tcp {address} 80"))?;
        // At once, by a word of the gateway.
        let refused = ["No route to host", "Permission denied"];
        ensure!(
            refused.iter().any(|words| said.contains(words)),
            "{address}: {said}"
        );
    }
    Ok(())
}

/// Every class of address on every kind of start; then packets that are not as they
/// should be.
fn policy(seat: Seat<'_>) -> Result<()> {
    let (outside, instance) = begin(seat, "egress-open", "")?;
    assert_policy(&instance)?;
    instance.act("restart")?;
    assert_policy(&instance)?;
    instance.act("pause")?;
    instance.act("resume")?;
    assert_policy(&instance)?;

    dial(&instance, &format!("udp 10.1.2.3 {} 9", PUBLIC[0]))?;
    dial(&instance, &format!("udp 192.0.0.3 {} 9", PUBLIC[0]))?;
    dial(
        &instance,
        &format!("udp6 fd61:6567:6973::3 {} 9", PUBLIC[1]),
    )?;
    dial(&instance, "udp 192.0.0.2 10.9.9.9 9")?;
    let odd = format!("odd eth0 {} {} 9", PUBLIC[0], PUBLIC[1]);
    let said = dial(&instance, &odd)?;
    ensure!(said.contains("sent"), "{said}");
    dial(&instance, &format!("udp 192.0.0.2 {} 9", PUBLIC[0]))?;
    wait_until(DEADLINE, "what is right to come out", || {
        let came = outside.datagrams()?;
        Ok(["from 192.0.0.2", "plain of IPv4", "plain of IPv6"]
            .iter()
            .all(|words| came.contains(words)))
    })?;
    let came = outside.datagrams()?;
    let mut lines: Vec<&str> = came.lines().map(str::trim).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["from 192.0.0.2", "plain of IPv4", "plain of IPv6"]);

    jailed(seat, &instance)?;
    instance.delete()
}

/// The processes of the network are the service's own user's, and see nothing.
fn jailed(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let root = |line: &str| seat.machine().run(User::Root, line)?.success();
    let owner = match seat.user() {
        User::Alice => "alice",
        User::Root => "aegis",
    };
    for name in ["passt", "aegis-egress"] {
        let pid = process(seat, instance, name)?.context(name)?;
        assert_eq!(root(&format!("stat -c %U /proc/{pid}"))?, owner, "{name}");
        for path in ["home", "run/user", "run/dbus", "etc/passwd", "srv"] {
            let seen = seat
                .machine()
                .run(User::Root, &format!("test -e /proc/{pid}/root/{path}"))?;
            ensure!(!seen.status.success(), "{name} sees /{path}");
        }
        let status = root(&format!("cat /proc/{pid}/status"))?;
        ensure!(status.contains("NoNewPrivs:\t1"), "{name}: {status}");
    }
    let filter = process(seat, instance, "aegis-egress")?.context("no filter")?;
    let links = root(&format!("cut -d: -f1 -s /proc/{filter}/net/dev"))?;
    let links: Vec<&str> = links.split_whitespace().collect();
    assert_eq!(links, ["lo"], "the filter has no network");
    let listens = root("ss -Hltnp | grep passt || true")?;
    assert_eq!(listens, "", "passt listens");
    Ok(())
}

fn process(seat: Seat<'_>, instance: &Instance<'_>, name: &str) -> Result<Option<u32>> {
    let processes = seat.processes(&instance.vm_unit())?;
    let mut found = processes
        .iter()
        .filter(|process| process.name.starts_with(name));
    Ok(found.next().map(|process| process.pid))
}

#[test]
fn a_guest_reaches_public_addresses_and_no_others() -> Result<()> {
    let machine = Machine::temporary("test-egress", Systemd::V257)?;
    policy(Seat::alice(&machine))
}

#[test]
fn a_guest_reaches_public_addresses_and_no_others_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-egress-252", Systemd::V252)?;
    policy(Seat::alice(&machine))
}

#[test]
fn a_guest_reaches_public_addresses_and_no_others_in_system_mode() -> Result<()> {
    let machine = Machine::temporary("test-egress-system", Systemd::V257)?;
    policy(Seat::root(&machine))
}

#[test]
fn a_guest_reaches_public_addresses_and_no_others_in_system_mode_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-egress-system-252", Systemd::V252)?;
    policy(Seat::root(&machine))
}

fn allowed(seat: Seat<'_>) -> Result<()> {
    let hosts = "--allow-host 10.9.9.9:80 --allow-host fd00:9::/64 --allow-host 127.0.0.1:80";
    let (_outside, instance) = begin(seat, "egress-allowed", hosts)?;
    wait_for_network(&instance)?;
    for (address, port, reached) in [
        ("10.9.9.9", 80, true),
        ("10.9.9.9", 81, false),
        ("192.168.9.9", 80, false),
        ("fd00:9::9", 80, true),
        ("fd00:ec2::254", 80, false),
        (GATEWAY, 80, true),
        (GATEWAY, 81, false),
        ("fd61:6567:6973::1", 80, false),
        (OWN[0], 80, false),
    ] {
        assert_eq!(
            reaches(&instance, address, port)?,
            reached,
            "{address}:{port}"
        );
    }
    let info = instance.info()?;
    ensure!(info.contains("reaches too: 10.9.9.9:80"), "{info}");

    // Other settings hold from the next start on.
    let changed = instance.act(
        "update --allow-host-remove 10.9.9.9:80 --allow-host-remove 127.0.0.1:80 --allow-host 192.168.9.9",
    )?;
    ensure!(
        changed.contains("When its VM starts next: network"),
        "{changed}"
    );
    ensure!(reaches(&instance, "10.9.9.9", 80)?, "not while its VM runs");
    instance.act("restart")?;
    wait_for_network(&instance)?;
    for (address, reached) in [("10.9.9.9", false), ("192.168.9.9", true), (GATEWAY, false)] {
        assert_eq!(reaches(&instance, address, 80)?, reached, "{address}");
    }
    let refused = seat.aegis("instance start --name egress-wrong --allow-host 10.9.9.9/8")?;
    let text = refused.error_text();
    ensure!(text.contains("the network is 10.0.0.0/8"), "{text}");
    instance.delete()
}

#[test]
fn what_is_allowed_is_reached_too() -> Result<()> {
    let machine = Machine::temporary("test-egress-allowed", Systemd::V257)?;
    allowed(Seat::alice(&machine))
}

#[test]
fn what_is_allowed_is_reached_too_with_the_tools_of_debian_12() -> Result<()> {
    let machine = Machine::temporary("test-egress-allowed-252", Systemd::V252)?;
    allowed(Seat::alice(&machine))
}

fn names(seat: Seat<'_>) -> Result<()> {
    let machine = seat.machine();
    let (outside, instance) = begin(seat, "egress-names", "")?;
    outside.name_server("127.0.0.53", "93.184.215.53")?;
    outside.name_server(PUBLIC[0], "93.184.215.54")?;
    outside.name_server("192.168.9.9", "93.184.215.55")?;
    wait_for_network(&instance)?;
    let resolver = |server: &str| {
        // As programs write it: another file in its place.
        let line = format!(
            "echo nameserver {server} >/etc/resolv.new && chmod 644 /etc/resolv.new && mv -f /etc/resolv.new /etc/resolv.conf"
        );
        machine.run(User::Root, &line)?.success()
    };
    // The stub of systemd-resolved, a server of the Internet, one of the office.
    for (server, answer) in [
        ("127.0.0.53", "93.184.215.53"),
        (PUBLIC[0], "93.184.215.54"),
        ("192.168.9.9", "93.184.215.55"),
    ] {
        resolver(server)?;
        let said = instance.exec_ok("nslookup -type=a short.example")?;
        ensure!(said.contains(answer), "{server}: {said}");
        let said = dial(&instance, &format!("name {GATEWAY} long.example"))?;
        assert_eq!(said.trim(), answer, "by TCP");
    }
    ensure!(
        !reaches(&instance, "192.168.9.9", 80)?,
        "to ask it is not to reach it"
    );
    resolver("127.0.0.99")?;
    let said = instance.exec("nslookup -type=a short.example")?;
    ensure!(said.text().contains("SERVFAIL"), "{said:?}");
    instance.delete()
}

#[test]
fn names_are_the_hosts_whatever_its_name_servers_are() -> Result<()> {
    let machine = Machine::temporary("test-egress-names", Systemd::V257)?;
    names(Seat::alice(&machine))
}

#[test]
fn names_are_the_hosts_in_system_mode_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-egress-names-252", Systemd::V252)?;
    names(Seat::root(&machine))
}

/// Each of the two processes is killed under a connection.
fn killed(seat: Seat<'_>) -> Result<()> {
    let (_outside, instance) = begin(seat, "egress-killed", "")?;
    wait_for_network(&instance)?;
    let qemu = instance.qemu_pid()?;
    for name in ["passt", "aegis-egress"] {
        let line = format!(
            "aegisctl exec {} -- {DIAL} hold {} 81",
            instance.handle(),
            PUBLIC[0]
        );
        let mut held = Session::start(seat, &line)?;
        held.wait_for_line("held")?;
        let before = process(seat, &instance, name)?.context(name)?;
        seat.machine()
            .run(User::Root, &format!("kill -KILL {before}"))?
            .success()?;
        // Not left to wait for ever, and not taken for an orderly end.
        held.wait_for_line("broken off: Software caused connection abort")?;
        wait_for_network(&instance)?;
        assert_eq!(instance.qemu_pid()?, qemu, "the VM goes on");
        let after = wait_for(DEADLINE, "another process", || {
            process(seat, &instance, name)
        })?;
        assert_ne!(after, before);
        ensure!(!reaches(&instance, INNER[0], 80)?, "the policy is the same");
    }
    assert_eq!(instance.state()?, "running");
    instance.delete()
}

#[test]
fn a_network_that_died_comes_back_and_its_connections_are_reset() -> Result<()> {
    let machine = Machine::temporary("test-egress-killed", Systemd::V257)?;
    killed(Seat::alice(&machine))
}

#[test]
fn a_network_that_died_comes_back_with_the_tools_of_debian_12() -> Result<()> {
    let machine = Machine::temporary("test-egress-killed-252", Systemd::V252)?;
    killed(Seat::alice(&machine))
}

/// No way out at the start, then one, then another one; and none of the program.
fn without(seat: Seat<'_>) -> Result<()> {
    let machine = seat.machine();
    install_dialer(machine)?;
    let outside = Outside::lay(machine)?;
    outside.disconnect()?;
    let instance = Instance::start(seat, "egress-without", SHOWN)?;
    let problem = |words: &str| {
        wait_until(DEADLINE, "info to tell", || {
            Ok(instance.info()?.contains(words))
        })
    };
    problem("no default route")?;
    ensure!(!reaches(&instance, PUBLIC[0], 80)?);
    outside.connect()?;
    wait_for_network(&instance)?;
    wait_until(DEADLINE, "the problem to be over", || {
        Ok(!instance.info()?.contains("not there"))
    })?;
    // A way that is lost and comes back serves on with the same process.
    let passt = process(seat, &instance, "passt")?;
    outside.disconnect()?;
    outside.connect()?;
    wait_for_network(&instance)?;
    assert_eq!(process(seat, &instance, "passt")?, passt);
    // An address that the host is given is the host's at once.
    let added = "ip addr add 93.184.215.77/32 dev lo";
    machine.run(User::Root, added)?.success()?;
    wait_until(DEADLINE, "the host's new address to be refused", || {
        let said = dial(&instance, "tcp 93.184.215.77 80")?;
        Ok(said.contains("No route to host"))
    })?;
    instance.act("stop")?;

    let move_away = "cd /usr/bin && for f in passt passt.avx2; do mv $f $f.away; done";
    machine.run(User::Root, move_away)?.success()?;
    instance.start_again()?;
    problem("passt is not installed")?;
    let doctor = seat.aegis("doctor")?.text();
    ensure!(doctor.contains("install the package passt"), "{doctor}");
    ensure!(!reaches(&instance, PUBLIC[0], 80)?);
    let back = "cd /usr/bin && for f in passt passt.avx2; do mv $f.away $f; done";
    machine.run(User::Root, back)?.success()?;
    wait_for_network(&instance)?;
    instance.delete()
}

#[test]
fn a_guest_starts_without_a_way_out_and_has_it_as_soon_as_the_host_has() -> Result<()> {
    let machine = Machine::temporary("test-egress-without", Systemd::V257)?;
    without(Seat::alice(&machine))
}

#[test]
fn a_guest_starts_without_a_way_out_with_the_tools_of_debian_12() -> Result<()> {
    let machine = Machine::temporary("test-egress-without-252", Systemd::V252)?;
    without(Seat::root(&machine))
}

#[test]
fn without_network_there_is_no_device_and_ports_serve() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let serve =
        "mkdir -p /www && echo served >/www/index.html && exec httpd -f -p 127.0.0.1:80 -h /www";
    let flags = format!("--network none --expose 18501:80 -d -- sh -c '{serve}'");
    let instance = Instance::start(seat, "egress-none", &flags)?;
    let devices = instance.exec_ok("ls /sys/class/net")?;
    let devices: Vec<&str> = devices
        .split_whitespace()
        .filter(|name| *name != "sit0")
        .collect();
    assert_eq!(devices, ["lo"]);
    assert_eq!(process(seat, &instance, "passt")?, None);
    assert_eq!(process(seat, &instance, "aegis-egress")?, None);
    let fetched = seat.run("curl --silent --max-time 100 http://127.0.0.1:18501/index.html")?;
    assert_eq!(fetched.success()?, "served");
    assert_eq!(instance.info_value("Network")?.as_deref(), Some("none"));
    let refused = seat.aegis("instance update egress-none --network none --allow-host 10.0.0.1")?;
    ensure!(
        refused.error_text().contains("without network"),
        "{refused:?}"
    );
    instance.act("update --network open")?;
    instance.act("restart")?;
    let devices = instance.exec_ok("ls /sys/class/net")?;
    ensure!(devices.contains("eth0"), "{devices}");
    let fetched = seat.run("curl --silent --max-time 100 http://127.0.0.1:18501/index.html")?;
    assert_eq!(fetched.success()?, "served");
    instance.delete()
}
