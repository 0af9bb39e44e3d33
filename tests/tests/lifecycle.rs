//! The life of an instance, verb by verb, as its user and the service manager
//! see it.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::session::Session;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result};

/// The symbol must be named, so that a person can look it up.
fn assert_refused(output: &aegis_tests::machine::Output, symbol: &str) {
    assert!(!output.status.success(), "{}", output.text());
    assert!(
        output.error_text().contains(symbol),
        "no {symbol} in: {}",
        output.error_text()
    );
}

#[test]
fn every_verb_works_and_is_idempotent() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "life-verbs", "")?;
    let qemu = instance.qemu_pid()?;
    assert!(qemu.is_some());

    for (verb, state) in [
        ("pause", "paused"),
        ("resume", "running"),
        ("stop", "stopped"),
        ("disable", "disabled"),
        ("enable", "stopped"),
        ("disable", "disabled"),
    ] {
        instance.act(verb)?;
        assert_eq!(instance.state()?, state, "{verb}");
        let again = instance.try_act(verb)?;
        again.success().with_context(|| format!("{verb} twice"))?;
        assert_eq!(instance.state()?, state, "{verb} twice");
    }
    instance.act("enable")?;
    instance.start_again()?;
    assert_eq!(instance.state()?, "running");
    let second = instance.qemu_pid()?;
    assert_ne!(second, qemu);
    instance.start_again()?;
    assert_eq!(
        instance.qemu_pid()?,
        second,
        "a start of what runs changes nothing"
    );

    instance.act("delete")?;
    assert_refused(&instance.try_act("info")?, "NotFound");
    assert_refused(&instance.try_act("delete")?, "NotFound");
    Ok(())
}

#[test]
fn what_does_not_fit_the_state_is_refused() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "life-wrong", "")?;
    instance.act("stop")?;
    assert_refused(&instance.try_act("pause")?, "WrongState");
    assert_refused(&instance.try_act("resume")?, "WrongState");
    assert_eq!(instance.state()?, "stopped");
    instance.act("disable")?;
    assert_refused(&instance.exec("true")?, "Disabled");
    assert_refused(&instance.try_act("pause")?, "");
    assert_eq!(instance.state()?, "disabled");
    Ok(())
}

#[test]
fn list_and_json_show_what_is_there() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "life-list", "")?;

    let list = seat.aegis_ok("instance list")?;
    let line = list.lines().find(|line| line.contains("life-list"));
    assert!(line.is_some_and(|line| line.contains("running")), "{list}");
    assert!(
        !list.contains('\u{1b}'),
        "colour without a terminal: {list}"
    );

    for command in [
        "instance list",
        "instance info life-list",
        "status",
        "doctor",
        "version",
        "kit list",
    ] {
        let line = format!(
            "aegisctl {command} --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"version\"])'"
        );
        let version = seat
            .run(&line)?
            .success()
            .with_context(|| command.to_owned())?;
        assert!(!version.is_empty(), "{command} --json has no version");
    }
    assert!(
        seat.run("aegis instance info life-list")?
            .success()?
            .contains("life-list")
    );
    instance.delete()?;
    assert!(!seat.aegis_ok("instance list")?.contains("life-list"));
    Ok(())
}

#[test]
fn a_stopped_vm_is_woken_by_the_next_use() -> Result<()> {
    let machine = Machine::temporary("test-life-wake", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = serving(seat, "life-wake", 18090)?;
    let port = "curl --silent --show-error --max-time 100 http://127.0.0.1:18090/index.html";
    assert_eq!(seat.run(port)?.success()?, "served");

    let knock = format!(
        "python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect(\"{}\")'",
        instance.control_socket()
    );
    for aegisd_lives in [true, false] {
        for (what, knock) in [("a port", port), ("the control socket", knock.as_str())] {
            let said = instance.act("stop")?;
            assert!(
                said.contains("next use"),
                "stop must say what wakes it: {said}"
            );
            assert_eq!(seat.active_state(&instance.vm_unit())?, "inactive");
            assert_eq!(seat.active_state(&instance.socket_unit())?, "active");
            if !aegisd_lives {
                seat.systemctl("stop aegisd.service")?.success()?;
            }

            seat.run(knock)?
                .success()
                .with_context(|| what.to_owned())?;

            wait_until(DEADLINE, "the VM to be up", || {
                Ok(seat.active_state(&instance.vm_unit())? == "active")
            })?;
        }
    }
    instance.act("stop")?;
    assert_eq!(instance.exec_ok("echo awake")?, "awake");

    instance.act("disable")?;
    assert!(
        !seat.run(port)?.status.success(),
        "a disabled instance's port is open"
    );
    assert!(!seat.run(&knock)?.status.success());
    instance.act("enable")?;
    assert_eq!(
        seat.run(port)?.success()?,
        "served",
        "enable opens the port again"
    );
    Ok(())
}

/// An instance whose command is a web server behind a port.
fn serving<'a>(seat: Seat<'a>, handle: &str, port: u16) -> Result<Instance<'a>> {
    let command = "mkdir -p /www && echo served >/www/index.html && exec httpd -f -p 80 -h /www";
    Instance::start(
        seat,
        handle,
        &format!("--expose {port}:80 -- sh -c '{command}'"),
    )
}

#[test]
fn a_port_carries_many_connections_and_a_paused_vm_is_resumed_by_one() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = serving(seat, "life-port", 18091)?;
    let url = "http://127.0.0.1:18091/index.html";
    let many = format!(
        "seq 40 | xargs -P 8 -I{{}} curl --silent --show-error --max-time 100 {url} | sort | uniq -c"
    );
    assert_eq!(seat.run(&many)?.success()?.trim(), "40 served");

    instance.act("pause")?;
    let one = format!("curl --silent --show-error --max-time 100 {url}");
    assert_eq!(seat.run(&one)?.success()?, "served");
    assert_eq!(instance.state()?, "running");

    // Nothing listens behind this one: the client is told, not kept waiting.
    let _closed = Instance::start(seat, "life-closed", "--expose 18092:81")?;
    let refused = seat.run("curl --silent --max-time 60 http://127.0.0.1:18092/")?;
    assert!(
        matches!(refused.code(), 52 | 56),
        "curl said {}",
        refused.code()
    );
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_left() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let mut holder = Session::start(
        seat,
        "python3 -c 'import socket, time; s = socket.create_server((\"127.0.0.1\", 18093)); print(\"held\", flush=True); time.sleep(1000)'",
    )?;
    holder.wait_for_line("held")?;
    let instance = Instance::expected(seat, "life-taken")?;
    let refused = seat.aegis("instance start --name life-taken --expose 18093:80")?;
    assert_refused(&refused, "PortInUse");
    assert!(refused.error_text().contains("18093"));
    assert_eq!(seat.active_state(&instance.vm_unit())?, "inactive");
    Ok(())
}

#[test]
fn the_guest_is_a_proper_system() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "life-guest", "--memory 200 --cpus 2 --env WORD=known")?;

    assert_eq!(instance.exec_ok("hostname")?, "life-guest");
    assert_eq!(instance.exec_ok("nproc")?, "2");
    assert_eq!(instance.exec_ok("echo $WORD")?, "known");
    let memory: u64 = instance
        .exec_ok("awk '/MemTotal/ { print $2 }' /proc/meminfo")?
        .parse()?;
    assert!((120 * 1024..=200 * 1024).contains(&memory), "{memory} KiB");

    let guest: i64 = instance.exec_ok("date +%s")?.parse()?;
    let host: i64 = seat.run("date +%s")?.success()?.parse()?;
    assert!(
        (guest - host).abs() <= 5,
        "the clock is {} s off",
        guest - host
    );

    instance.exec_ok("for i in 1 2 3 4 5; do (sleep 0.1 &); done")?;
    wait_until(DEADLINE, "orphans to be reaped", || {
        let states = instance.exec_ok("cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f2,3")?;
        Ok(!states.contains(" Z") && !states.contains("(sleep)"))
    })?;
    instance.exec_ok("echo x >/dev/null; test -c /dev/null; test -d /proc/self; test -d /sys/class; touch /root/x /tmp/y")?;
    Ok(())
}

#[test]
fn the_writable_layer_survives_a_stop_and_not_a_delete() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "life-disk", "")?;
    instance.exec_ok("echo kept >/root/file && rm /etc/issue 2>/dev/null; true")?;
    instance.act("stop")?;
    assert_eq!(instance.exec_ok("cat /root/file")?, "kept");
    instance.delete()?;
    let instance = Instance::start(seat, "life-disk", "")?;
    assert!(!instance.exec("test -e /root/file")?.status.success());
    Ok(())
}

#[test]
fn a_stop_lets_the_command_end_in_order() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let command = "trap \"echo ending; echo yes >/root/ended; exit 0\" TERM; echo up; while :; do sleep 0.1; done";
    let instance = Instance::start(
        seat,
        "life-order",
        &format!("--no-terminal -- sh -c '{command}'"),
    )?;
    wait_until(DEADLINE, "the command to be up", || {
        Ok(seat.aegis_ok("logs life-order")?.contains("up"))
    })?;

    instance.act("stop")?;
    assert_eq!(seat.aegis_ok("logs life-order")?, "up\nending");
    assert_eq!(instance.state()?, "stopped", "reading logs wakes nobody");
    assert_eq!(instance.exec_ok("cat /root/ended")?, "yes");

    // One that will not end is killed after the grace period.
    let command = "trap \"\" TERM; echo up; while :; do sleep 0.1; done";
    let stubborn = Instance::start(
        seat,
        "life-stubborn",
        &format!("--no-terminal -- sh -c '{command}'"),
    )?;
    wait_until(DEADLINE, "the command to be up", || {
        Ok(seat.aegis_ok("logs life-stubborn")?.contains("up"))
    })?;
    stubborn.act("stop --grace 1")?;
    assert_eq!(stubborn.state()?, "stopped");
    assert_eq!(
        seat.unit_property(&stubborn.vm_unit(), "Result")?,
        "success"
    );
    Ok(())
}

#[test]
fn logs_are_kept_and_followed() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let command = "echo out; echo err >&2; i=0; while [ -e /root/../tmp ]; do i=$((i+1)); echo line $i; sleep 0.2; done";
    let _instance = Instance::start(
        seat,
        "life-logs",
        &format!("--no-terminal -- sh -c '{command}'"),
    )?;
    let mut follow = Session::start(seat, "aegisctl logs --follow life-logs")?;
    follow.wait_for_line("out")?;
    follow.wait_for_line("line 1")?;
    for number in 2..10 {
        assert_eq!(
            follow.line()?,
            format!("line {number}"),
            "no line is lost or doubled"
        );
    }
    follow.signal("INT")?;
    follow.wait()?;
    let split = seat.run("aegisctl logs life-logs 2>/dev/null")?.success()?;
    assert!(split.contains("out") && !split.contains("err"), "{split}");
    Ok(())
}

#[test]
fn a_command_that_ended_is_shown_with_its_end() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "life-ended", "-- sh -c 'echo bye; exit 9'")?;
    instance.wait_for_state("stopped")?;
    let info = instance.info()?;
    assert!(info.contains("exit") && info.contains('9'), "{info}");
    assert!(seat.aegis_ok("logs life-ended")?.contains("bye"));
    Ok(())
}

#[test]
fn people_understand_what_the_service_manager_shows() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "shell", &["shell-gateway"])?;
    let instance = Instance::start(seat, "life-units", "--kit shell")?;
    for unit in [
        instance.vm_unit(),
        instance.socket_unit(),
        instance.daemon_unit("gateway"),
        instance.slice(),
    ] {
        let description = seat.unit_property(&unit, "Description")?;
        assert!(
            description != unit && description.contains("life-units") && description.contains(' '),
            "{unit}: {description:?}"
        );
    }
    for unit in [instance.vm_unit(), instance.daemon_unit("gateway")] {
        let group = seat.unit_property(&unit, "ControlGroup")?;
        let expected = format!("/aegis.slice/{}/{unit}", instance.slice());
        assert!(group.ends_with(&expected), "{group}");
    }
    assert!(
        instance.qemu_pid()?.is_some(),
        "QEMU runs under the VM's unit"
    );
    let status = seat.systemctl(&format!("status {}", instance.vm_unit()))?;
    assert!(status.text().contains("Status:"), "{}", status.text());
    // Nothing of a user's and no secret is in argv.
    for unit in [instance.vm_unit(), instance.daemon_unit("gateway")] {
        let start = seat.unit_property(&unit, "ExecStart")?;
        let argv = start
            .split("argv[]=")
            .nth(1)
            .and_then(|rest| rest.split(" ;").next());
        let argv = argv.with_context(|| start.clone())?;
        let plain = |c: char| c.is_ascii_alphanumeric() || " /_.,:=@+-".contains(c);
        assert!(argv.chars().all(plain), "{argv}");
        assert_eq!(seat.unit_property(&unit, "Environment")?, "");
    }
    Ok(())
}

#[test]
fn a_stop_by_systemctl_is_adopted() -> Result<()> {
    let machine = Machine::temporary("test-life-adopt", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "shell", &["shell-gateway"])?;
    let instance = Instance::start(seat, "life-adopt", "--kit shell")?;
    let daemon = instance.daemon_unit("gateway");

    seat.systemctl(&format!("stop {}", instance.vm_unit()))?
        .success()?;
    instance.wait_for_state("stopped")?;
    seat.systemctl(&format!("stop {daemon}"))?.success()?;
    wait_until(DEADLINE, "the stop to be shown", || {
        Ok(instance
            .info_value("Gateway")?
            .is_some_and(|value| value != "running"))
    })?;

    // Other work makes aegisd reconcile; what a person stopped stays stopped.
    let other = Instance::start(seat, "life-adopt-other", "")?;
    other.delete()?;
    assert_eq!(instance.state()?, "stopped");
    assert_eq!(seat.active_state(&daemon)?, "inactive");

    assert_eq!(instance.exec_ok("echo awake")?, "awake");
    instance.act("disable")?;
    instance.act("enable")?;
    instance.daemon_pid("gateway")?;

    seat.systemctl(&format!("stop {}", instance.slice()))?
        .success()?;
    wait_until(DEADLINE, "the stop of all to be shown", || {
        Ok(instance.state()? != "running")
    })?;
    instance.start_again()?;
    assert_eq!(instance.state()?, "running");
    Ok(())
}

#[test]
fn units_that_vanished_without_a_stop_are_made_again() -> Result<()> {
    let machine = Machine::temporary("test-life-vanish", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    kit::install(seat, "shell", &["shell-gateway"])?;
    let instance = Instance::start(seat, "life-vanish", "--kit shell")?;
    let first = instance.daemon_pid("gateway")?;

    // The user's whole service manager goes and comes: no transient unit is left.
    machine
        .run(User::Root, "systemctl restart user@1000.service")?
        .success()?;

    wait_until(DEADLINE, "the daemon to run again", || {
        Ok(seat
            .main_pid(&instance.daemon_unit("gateway"))?
            .is_some_and(|pid| pid != first))
    })?;
    wait_until(DEADLINE, "the socket to listen again", || {
        Ok(seat.active_state(&instance.socket_unit())? == "active")
    })?;
    assert_eq!(instance.exec_ok("echo back")?, "back");
    Ok(())
}

#[test]
fn down_stops_the_control_plane_alone_and_down_all_everything() -> Result<()> {
    let machine = Machine::temporary("test-life-down", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    assert_eq!(seat.active_state("aegisd.service")?, "active");
    assert_eq!(
        seat.systemctl("is-enabled aegisd.service")?.text(),
        "enabled"
    );
    kit::install(seat, "shell", &["shell-gateway"])?;
    let instance = Instance::start(seat, "life-down", "--kit shell")?;
    let qemu = instance.qemu_pid()?;
    let daemon = instance.daemon_pid("gateway")?;

    let said = seat.aegis_ok("down")?;
    assert!(
        said.contains("life-down"),
        "it says what keeps running: {said}"
    );
    assert_eq!(seat.active_state("aegisd.service")?, "inactive");
    assert_eq!(instance.qemu_pid()?, qemu);
    assert_eq!(instance.daemon_pid("gateway")?, daemon);

    seat.aegis_ok("up")?;
    assert_eq!(instance.state()?, "running");
    assert_eq!(instance.qemu_pid()?, qemu);

    seat.aegis_ok("down --all")?;
    assert_eq!(seat.active_state("aegisd.service")?, "inactive");
    for unit in [
        instance.vm_unit(),
        instance.socket_unit(),
        instance.daemon_unit("gateway"),
    ] {
        assert_eq!(seat.active_state(&unit)?, "inactive", "{unit}");
    }
    assert_eq!(machine.run(User::Root, "pgrep qemu")?.text(), "");

    seat.aegis_ok("up")?;
    wait_until(DEADLINE, "the socket to listen again", || {
        Ok(seat.active_state(&instance.socket_unit())? == "active")
    })?;
    assert_eq!(instance.state()?, "stopped");
    instance.start_again()?;
    assert_eq!(instance.state()?, "running");
    Ok(())
}

#[test]
fn progress_goes_to_standard_error_and_colour_only_to_terminals() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let run = seat.aegis("run -- echo only this")?;
    assert_eq!(run.text(), "only this");
    let terminal = |environment: &str, command: &str| {
        seat.run(&format!(
            "{environment} script --quiet --return --command '{command}' /dev/null </dev/null"
        ))
    };
    let _instance = Instance::start(seat, "life-colour", "")?;
    let coloured = terminal("", "aegisctl instance list")?;
    assert!(coloured.text().contains("\u{1b}["), "{}", coloured.text());
    let plain = terminal("NO_COLOR=1", "aegisctl instance list")?;
    assert!(!plain.text().contains("\u{1b}["), "{}", plain.text());
    Ok(())
}
