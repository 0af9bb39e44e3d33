//! What an instance daemon and a VM cannot reach.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result};

/// Starts an instance whose probe daemon tries `targets`, and gives the lines it
/// prints, each `KIND TARGET: RESULT`.
fn probe<'a>(seat: Seat<'a>, handle: &str, targets: &str) -> Result<(Instance<'a>, String)> {
    kit::install(seat, "probe", &["probe-daemon"])?;
    let list = format!("{}/{handle}/targets", seat.kits());
    let instance = Instance::expected(seat, handle)?;
    seat.machine()
        .write_file(seat.user(), &list, targets.as_bytes())?;
    let unit = instance.daemon_unit("probe");
    // A machine that lives on has the lines of earlier runs of the test.
    let earlier = seat.journal(&unit, "cat")?.len();
    seat.aegis_ok(&format!("instance start --name {handle} --kit probe"))?;
    let mut tried = String::new();
    wait_until(DEADLINE, "the probe to have tried all", || {
        let journal = seat.journal(&unit, "cat")?;
        tried = journal.get(earlier..).unwrap_or_default().to_owned();
        Ok(tried.lines().any(|line| line == "probed"))
    })
    .with_context(|| tried.clone())?;
    Ok((instance, tried))
}

#[test]
fn a_daemon_reaches_its_own_config_and_nothing_else_of_its_user() -> Result<()> {
    nothing_else_of_its_user(Systemd::V257)
}

#[test]
fn a_daemon_reaches_its_own_config_and_nothing_else_of_its_user_on_systemd_252() -> Result<()> {
    nothing_else_of_its_user(Systemd::V252)
}

fn nothing_else_of_its_user(systemd: Systemd) -> Result<()> {
    let machine = Machine::shared(systemd)?;
    let seat = Seat::alice(&machine);
    let neighbour = Instance::start(seat, "box-neighbour", "")?;
    let owner = seat.main_pid(&neighbour.vm_unit())?.context("no VM")?;
    machine.write_file(User::Alice, "/home/alice/secret", b"x")?;
    let own = format!("{}/box-user", seat.kits());
    let forbidden = [
        "connect /run/user/1000/bus".to_owned(),
        "connect /run/user/1000/systemd/private".to_owned(),
        format!("connect {}", neighbour.control_socket()),
        format!("connect {}/vm/box-user/control.sock", seat.runtime()),
        "read /home/alice/secret".to_owned(),
        format!("read {}/registry.db", seat.home()),
        format!("read {}/vm.json", neighbour.folder()),
        format!("list {}", neighbour.folder()),
        "write /usr/bin/written".to_owned(),
        format!("trace {owner}"),
        format!("environ {owner}"),
    ];
    let hidden = [
        "write /home/alice/written".to_owned(),
        "write /run/user/1000/written".to_owned(),
    ];
    let allowed = [format!("read {own}/targets"), format!("write {own}/state")];
    let targets: String = forbidden
        .iter()
        .chain(&hidden)
        .chain(&allowed)
        .map(|line| line.to_owned() + "\n")
        .collect();

    let (_instance, tried) = probe(seat, "box-user", &targets)?;

    let reached = |attempt: &String| {
        tried
            .lines()
            .any(|line| line == format!("{attempt}: reached"))
    };
    for attempt in &forbidden {
        assert!(!reached(attempt), "{attempt} succeeded:\n{tried}");
        assert!(
            tried.contains(attempt.as_str()),
            "{attempt} was not tried:\n{tried}"
        );
    }
    for attempt in &allowed {
        assert!(reached(attempt), "{attempt} failed:\n{tried}");
    }
    // These may succeed in a file system of the unit's own.
    for path in ["/home/alice/written", "/run/user/1000/written"] {
        assert!(tried.contains(path), "{path} was not tried:\n{tried}");
        assert!(
            !seat.run(&format!("test -e {path}"))?.status.success(),
            "{path} was written"
        );
    }
    // The test's own paths are right: outside of the sandbox all is there.
    seat.run(&format!(
        "test -S /run/user/1000/bus && test -S {} && test -r secret",
        neighbour.control_socket()
    ))?
    .success()?;
    Ok(())
}

#[test]
fn a_daemon_cannot_signal_processes_of_its_user_on_systemd_257() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let manager = seat.run("pgrep -u alice -x systemd")?.success()?;
    let (_instance, tried) = probe(seat, "box-signal", &format!("signal {manager}\n"))?;
    assert!(!tried.contains("reached"), "{tried}");
    Ok(())
}

#[test]
fn a_daemon_in_system_mode_reaches_no_other_instance() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::root(&machine);
    let neighbour = Instance::start(seat, "box-other", "")?;
    let owner = seat.main_pid(&neighbour.vm_unit())?.context("no VM")?;
    let forbidden = [
        "write /etc/aegis/kits/written".to_owned(),
        format!("connect {}", neighbour.control_socket()),
        format!("read {}/vm.json", neighbour.folder()),
        format!("read {}/registry.db", seat.home()),
        "read /etc/shadow".to_owned(),
        "connect /run/systemd/private".to_owned(),
        format!("environ {owner}"),
        format!("trace {owner}"),
    ];
    let targets: String = forbidden
        .iter()
        .map(|line| line.to_owned() + "\n")
        .collect();
    let (_instance, tried) = probe(seat, "box-system", &targets)?;
    for attempt in &forbidden {
        assert!(!tried.contains(&format!("{attempt}: reached")), "{tried}");
    }
    let uid = seat.run("stat -c %U /proc/$(systemctl show -p MainPID --value 'aegis-kit-box-system:probe.service')")?;
    assert_ne!(uid.success()?, "root");
    Ok(())
}

#[test]
fn qemu_sees_no_file_and_no_network_of_the_host() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "box-qemu", "")?;
    let qemu = instance.qemu_pid()?.context("no QEMU")?;
    let root = |line: &str| machine.run(User::Root, line);

    for path in [
        "home/alice",
        "run/user/1000/bus",
        "etc/passwd",
        "home/alice/.aegis/registry.db",
        "proc/1",
    ] {
        let seen = root(&format!("test -e /proc/{qemu}/root/{path}"))?;
        assert!(!seen.status.success(), "QEMU sees /{path}");
    }
    for namespace in ["user", "net", "pid", "ipc", "uts", "mnt"] {
        let of = |pid: &str| -> Result<String> {
            root(&format!("readlink /proc/{pid}/ns/{namespace}"))?.success()
        };
        assert_ne!(of(&qemu.to_string())?, of("1")?, "{namespace}");
    }
    let links = root(&format!("cut -d: -f1 -s /proc/{qemu}/net/dev"))?.success()?;
    let links: Vec<&str> = links
        .split_whitespace()
        .filter(|name| *name != "lo")
        .collect();
    assert!(links.is_empty(), "{links:?}");
    let status = root(&format!("cat /proc/{qemu}/status"))?.success()?;
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "no {line:?} in {status}");
    }
    let limits = root(&format!("grep 'core file size' /proc/{qemu}/limits"))?.success()?;
    assert!(limits.contains(" 0 "), "{limits}");
    Ok(())
}

#[test]
fn every_unit_has_the_sandbox_from_the_first_on() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "shell", &["shell-gateway"])?;
    let instance = Instance::start(seat, "box-units", "--kit shell")?;
    for unit in [instance.vm_unit(), instance.daemon_unit("gateway")] {
        for (property, value) in [
            ("PrivateUsers", "yes"),
            ("ProtectSystem", "strict"),
            ("ProtectHome", "tmpfs"),
            ("PrivateTmp", "yes"),
            ("NoNewPrivileges", "yes"),
            ("LimitCORE", "0"),
            ("StartLimitIntervalUSec", "0"),
        ] {
            assert_eq!(
                seat.unit_property(&unit, property)?,
                value,
                "{property} of {unit}"
            );
        }
        assert_ne!(seat.unit_property(&unit, "SystemCallFilter")?, "", "{unit}");
        assert_ne!(
            seat.unit_property(&unit, "RestrictAddressFamilies")?,
            "",
            "{unit}"
        );
    }
    for path in [instance.control_socket(), instance.folder()] {
        let mode = seat.run(&format!("stat -c %a {path}"))?.success()?;
        assert!(mode == "600" || mode == "700", "{path} is {mode}");
    }
    Ok(())
}

#[test]
fn the_exposure_score_is_no_worse_than_pinned() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "shell", &["shell-gateway"])?;
    let instance = Instance::start(seat, "box-score", "--kit shell")?;
    for (unit, pinned) in [
        (instance.vm_unit(), VM_EXPOSURE),
        (instance.daemon_unit("gateway"), DAEMON_EXPOSURE),
    ] {
        let line = format!("systemd-analyze --user security --no-pager '{unit}' | tail -n 1");
        let said = seat.run(&line)?.success()?;
        let score = said
            .split_whitespace()
            .find_map(|word| word.parse::<f64>().ok())
            .with_context(|| said.clone())?;
        assert!(score <= pinned, "{unit}: {said}");
    }
    Ok(())
}

/// What `systemd-analyze security` says of the units, 0 to 10; less is better.
const VM_EXPOSURE: f64 = 5.0;
const DAEMON_EXPOSURE: f64 = 4.0;
