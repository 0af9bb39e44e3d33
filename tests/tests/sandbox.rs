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
    nothing_else(Seat::alice(&Machine::shared(Systemd::V257)?))
}

#[test]
fn a_daemon_reaches_its_own_config_and_nothing_else_on_systemd_252() -> Result<()> {
    nothing_else(Seat::alice(&Machine::shared(Systemd::V252)?))
}

#[test]
fn a_daemon_reaches_its_own_config_and_nothing_else_in_system_mode() -> Result<()> {
    nothing_else(Seat::root(&Machine::shared(Systemd::V257)?))
}

#[test]
fn a_daemon_reaches_its_own_config_and_nothing_else_in_system_mode_on_systemd_252() -> Result<()> {
    nothing_else(Seat::root(&Machine::shared(Systemd::V252)?))
}

/// Both buses, both managers' private sockets, the neighbours' sockets, files and
/// processes, its own VM's socket and the home.
fn nothing_else(seat: Seat<'_>) -> Result<()> {
    let machine = seat.machine();
    let neighbour = Instance::start(seat, "box-neighbour", "")?;
    let owner = seat.main_pid(&neighbour.vm_unit())?.context("no VM")?;
    let qemu = neighbour.qemu_pid()?.context("no QEMU")?;
    let managers = machine.run(User::Root, "pgrep -x systemd")?.success()?;
    let handle = format!("box-{}", seat.scope().trim_start_matches('-'));
    machine.write_file(User::Alice, "/home/alice/secret", b"x")?;
    let own = format!("{}/{handle}", seat.kits());
    let mut forbidden = [
        "connect /run/dbus/system_bus_socket",
        "connect /run/systemd/private",
        "connect /run/user/1000/bus",
        "connect /run/user/1000/systemd/private",
        "read /home/alice/secret",
        "read /etc/shadow",
        "read /dev/kvm",
        "list /dev/disk",
        "write /usr/bin/written",
        "write /etc/written",
    ]
    .map(str::to_owned)
    .to_vec();
    forbidden.extend([
        format!("connect {}", neighbour.control_socket()),
        format!("connect {}/vm/{handle}/control.sock", seat.runtime()),
        format!("connect {}/bus.sock", seat.runtime()),
        format!("read {}/registry.db", seat.home()),
        format!("read {}/vm.json", neighbour.folder()),
        format!("list {}", neighbour.folder()),
    ]);
    let others = [owner.to_string(), qemu.to_string()];
    for pid in managers
        .split_whitespace()
        .chain(others.iter().map(String::as_str))
    {
        forbidden.extend(["signal", "trace", "environ"].map(|kind| format!("{kind} {pid}")));
    }
    let hidden = [
        "write /home/alice/written".to_owned(),
        "write /run/user/1000/written".to_owned(),
    ];
    let mut allowed = vec![format!("read {own}/targets")];
    if seat.user() == User::Alice {
        // In system mode root made the folder before, for the list of targets.
        allowed.push(format!("write {own}/state"));
    }
    let all = forbidden.iter().chain(&hidden).chain(&allowed);
    let targets: String = all.map(|line| line.to_owned() + "\n").collect();

    let (_instance, tried) = probe(seat, &handle, &targets)?;

    let result_of = |attempt: &String| {
        let prefix = format!("{attempt}: ");
        let mut lines = tried.lines().filter_map(|line| line.strip_prefix(&prefix));
        lines.next_back().map(str::to_owned)
    };
    for attempt in &forbidden {
        let result = result_of(attempt);
        let result = result.with_context(|| format!("{attempt} was not tried:\n{tried}"))?;
        assert_ne!(result, "reached", "{attempt}:\n{tried}");
    }
    for attempt in &allowed {
        assert_eq!(
            result_of(attempt).as_deref(),
            Some("reached"),
            "{attempt}:\n{tried}"
        );
    }
    // These may succeed in a file system of the unit's own.
    for path in ["/home/alice/written", "/run/user/1000/written"] {
        assert!(tried.contains(path), "{path} was not tried:\n{tried}");
        let written = machine.run(User::Root, &format!("test -e {path}"))?;
        assert!(!written.status.success(), "{path} was written");
    }
    // The test's own paths are right: outside of the sandbox all is there.
    let there = format!(
        "test -S /run/dbus/system_bus_socket && test -S /run/user/1000/bus \
         && test -S {} && test -r /home/alice/secret && kill -0 {owner}",
        neighbour.control_socket()
    );
    machine.run(User::Root, &there)?.success()?;
    Ok(())
}

#[test]
fn a_daemon_in_system_mode_is_not_root() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::root(&machine);
    let (instance, _tried) = probe(seat, "box-uid", "read /etc/shadow\n")?;
    let pid = instance.daemon_pid("probe")?;
    let user = seat.run(&format!("stat -c %U /proc/{pid}"))?.success()?;
    assert_ne!(user, "root");
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
fn the_exposure_scores_are_as_pinned() -> Result<()> {
    exposure(Seat::alice(&Machine::shared(Systemd::V257)?), [3.4, 1.7])
}

#[test]
fn the_exposure_scores_are_as_pinned_on_systemd_252() -> Result<()> {
    exposure(Seat::alice(&Machine::shared(Systemd::V252)?), [3.4, 1.7])
}

#[test]
fn the_exposure_scores_are_as_pinned_in_system_mode() -> Result<()> {
    exposure(Seat::root(&Machine::shared(Systemd::V257)?), [3.2, 1.4])
}

#[test]
fn the_exposure_scores_are_as_pinned_in_system_mode_on_systemd_252() -> Result<()> {
    exposure(Seat::root(&Machine::shared(Systemd::V252)?), [3.2, 1.4])
}

/// What `systemd-analyze security` says of a VM's unit and of a daemon's, 0 to 10;
/// less is better. A better score is pinned anew, so that it cannot be lost again.
fn exposure(seat: Seat<'_>, pinned: [f64; 2]) -> Result<()> {
    kit::install(seat, "shell", &["shell-gateway"])?;
    let instance = Instance::start(seat, "box-score", "--kit shell")?;
    let mut scores = [0.0; 2];
    let units = [instance.vm_unit(), instance.daemon_unit("gateway")];
    for (score, unit) in scores.iter_mut().zip(units) {
        let line = format!(
            "systemd-analyze {} security --no-pager '{unit}' | tail -n 1",
            seat.scope()
        );
        let said = seat.run(&line)?.success()?;
        *score = said
            .split_whitespace()
            .find_map(|word| word.parse::<f64>().ok())
            .with_context(|| said.clone())?;
    }
    assert_eq!(scores, pinned, "VM and daemon");
    Ok(())
}

#[test]
fn doctor_tries_the_sandbox_instead_of_trusting_settings() -> Result<()> {
    let machine = Machine::temporary("test-doctor-sandbox", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let verdict = || -> Result<String> {
        let json = seat.aegis("doctor --json")?.text();
        let told: serde_json::Value = serde_json::from_str(&json).with_context(|| json.clone())?;
        let rows = told["checks"].as_array().context("rows")?;
        let row = rows.iter().find(|row| row["id"] == "sandbox");
        Ok(row.context("no row of the sandbox")?.to_string())
    };
    let before = verdict()?;
    assert!(before.contains("tried"), "{before}");
    let units = seat.systemctl("list-units --all --no-legend --plain 'aegis-check*'")?;
    assert_eq!(units.text(), "", "the trial leaves no unit");

    // A filter of system calls, as containers have one: every sysctl looks fine.
    let filter = b"[Service]\nRestrictNamespaces=~user\n";
    let path = "/etc/systemd/system/user@.service.d/forbid.conf";
    machine.write_file(User::Root, path, filter)?;
    let apply = "systemctl daemon-reload && systemctl restart user@1000.service";
    machine.run(User::Root, apply)?.success()?;
    let after = verdict()?;
    assert!(
        after.contains("fail") && after.contains("may not make"),
        "{after}"
    );
    let refused = seat.aegis("instance start --name box-forbidden")?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.code() != 0 && told.contains("confined"), "{told}");
    assert!(
        told.contains("doctor") || told.contains("--insecure"),
        "{told}"
    );
    Ok(())
}
