//! The verbs of every day against a guest that runs: what needs a real service
//! manager, a real journal or a real guest. One instance serves them all.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::session::Session;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result};
use serde_json::Value;

/// Says what it hears and lives on.
const COMMAND: &str = "sh -c 'trap \"echo got USR1\" USR1; echo up; while :; do sleep 0.2; done'";

#[test]
fn every_day_in_user_mode_on_257() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    every_day(Seat::alice(&machine), "verbs-user")
}

#[test]
fn every_day_in_user_mode_on_252() -> Result<()> {
    let machine = Machine::shared(Systemd::V252)?;
    every_day(Seat::alice(&machine), "verbs-old")
}

#[test]
fn units_at_rest_get_other_ports_and_another_policy_at_once() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    units_at_rest_change_at_once(Seat::alice(&machine), "verbs-rest")
}

#[test]
fn units_at_rest_get_other_ports_and_another_policy_at_once_on_systemd_252() -> Result<()> {
    let machine = Machine::shared(Systemd::V252)?;
    units_at_rest_change_at_once(Seat::alice(&machine), "verbs-rest")
}

#[test]
fn every_day_in_system_mode_on_252() -> Result<()> {
    let machine = Machine::shared(Systemd::V252)?;
    every_day(Seat::root(&machine), "verbs-system")
}

fn every_day(seat: Seat<'_>, handle: &str) -> Result<()> {
    kit::install(seat, "shell", &["shell-gateway"])?;
    let flags = format!("--kit shell --label team=verbs -- {COMMAND}");
    let instance = Instance::start(seat, handle, &flags)?;
    seat.aegis_ok(&format!("wait {handle} --condition ready --timeout 60s"))?;
    let events = format!("events --json --filter name={handle} --filter event=state");
    let mut events = Session::start(seat, &format!("aegisctl {events} 2>&1"))?;
    events.wait_for_line("Waiting for events; Ctrl-C ends it")?;

    lists_find_it(seat, handle)?;
    the_guest_is_looked_into(seat, handle)?;
    logs_are_merged(seat, handle)?;
    settings_change(seat, &instance)?;

    let before = instance.qemu_pid()?;
    instance.act("restart")?;
    assert_eq!(instance.state()?, "running");
    assert_ne!(instance.qemu_pid()?, before);
    assert_eq!(
        json(seat, &format!("instance inspect {handle}"))?["instances"][0]["pending"],
        Value::from(Vec::<Value>::new())
    );
    assert_eq!(instance.exec_ok("echo $ADDED")?, "later");
    assert!(listens(seat, &instance, 18131)?);
    assert_eq!(
        seat.unit_property(&instance.vm_unit(), "Restart")?,
        "on-failure"
    );
    assert_eq!(
        seat.unit_property(&instance.vm_unit(), "RestartPreventExitStatus")?,
        "",
        "as with --restart no"
    );

    instance.act("stop")?;
    let asleep = seat.aegis_ok("instance prune --dry-run")?;
    assert!(!asleep.contains(handle), "it only sleeps: {asleep}");
    instance.act("disable")?;
    // Its command was stopped with the VM, so it never ended by itself.
    let code = seat.aegis_ok(&format!("wait {handle} --timeout 5s"))?;
    assert_eq!(code.trim(), "-");
    let filter = format!("--filter name={handle}");
    let pruned = seat.aegis_ok(&format!("instance prune --force {filter}"))?;
    assert_eq!(pruned.trim(), format!("Deleted 1 instance: {handle}"));
    assert!(seat.units()?.iter().all(|unit| !unit.contains(handle)));
    wait_until(DEADLINE, "the events of all that", || {
        let lines = events.lines_so_far();
        Ok(lines
            .iter()
            .any(|line| line.contains(r#""state":"disabled""#)))
    })
}

fn units_at_rest_change_at_once(seat: Seat<'_>, handle: &str) -> Result<()> {
    let instance = kit::make_at_rest_of(seat, handle, "1 ports as 1 18132:80")?;
    assert!(listens(seat, &instance, 18132)?);
    instance.act("update --restart always --expose 18133:80 --expose-remove 18132")?;
    assert!(listens(seat, &instance, 18133)? && !listens(seat, &instance, 18132)?);
    assert_eq!(
        seat.unit_property(&instance.vm_unit(), "Restart")?,
        "always"
    );
    let shown = json(seat, &format!("instance info {handle}"))?;
    assert_eq!(shown["instance"]["restart_policy"], "always");
    assert_eq!(
        shown["instance"]["ports"],
        serde_json::json!(["127.0.0.1:18133:80"])
    );
    assert_eq!(shown["instance"]["stopped_by_hand"], serde_json::json!({}));

    let other = kit::make_at_rest_of(seat, "verbs-taken", "1 ports as 1 18134:80")?;
    let refused = instance.try_act("update --expose 18134:80")?;
    assert!(refused.error_text().contains("PortInUse"), "{refused:?}");
    assert!(listens(seat, &instance, 18133)?, "as it was before");
    other.delete()
}

/// Whether the socket of a port that leads to 80 in the guest is open.
fn listens(seat: Seat<'_>, instance: &Instance<'_>, port: u16) -> Result<bool> {
    let socket = instance.port_unit(&format!("127.0.0.1:{port}:80"));
    Ok(seat.active_state(&socket)? == "active")
}

fn json(seat: Seat<'_>, arguments: &str) -> Result<Value> {
    let text = seat.aegis_ok(&format!("--json {arguments}"))?;
    serde_json::from_str(&text).with_context(|| format!("{arguments}: {text}"))
}

fn lists_find_it(seat: Seat<'_>, handle: &str) -> Result<()> {
    let found =
        seat.aegis_ok("instance list -q --filter label=team=verbs --filter state=running")?;
    assert!(found.lines().any(|line| line == handle), "{found}");
    let line = "instance list --format '{{.Name}} {{.Kit}} {{.Labels.team}}'";
    let found = seat.aegis_ok(line)?;
    let wanted = format!("{handle} shell verbs");
    assert!(found.lines().any(|line| line == wanted), "{found}");
    Ok(())
}

fn the_guest_is_looked_into(seat: Seat<'_>, handle: &str) -> Result<()> {
    let top = json(seat, &format!("top {handle}"))?;
    let processes = top["processes"].as_array().context("processes")?;
    let command = processes.iter().find(|process| {
        process["command"]
            .as_str()
            .is_some_and(|c| c.starts_with("sh -c trap"))
    });
    let command = command.with_context(|| top.to_string())?;
    assert_eq!(command["user"], "root");
    assert!(
        command["memory_kib"].as_u64().is_some_and(|kib| kib > 0),
        "{command}"
    );

    // Before its trap is set the signal would end it.
    wait_until(DEADLINE, "the command to be up", || {
        Ok(seat.aegis_ok(&format!("logs {handle} --command"))?.trim() == "up")
    })?;
    seat.aegis_ok(&format!("kill -s USR1 {handle}"))?;
    wait_until(DEADLINE, "the signal to be heard", || {
        Ok(seat
            .aegis_ok(&format!("logs {handle} --command"))?
            .contains("got USR1"))
    })?;

    let stats = json(seat, &format!("stats --no-stream {handle}"))?;
    let row = &stats["stats"][0];
    assert_eq!(
        (&row["handle"], &row["daemons"]),
        (&handle.into(), &1.into()),
        "{row}"
    );
    let unit = &row["units"].as_array().context("units")?;
    assert_eq!(unit.len(), 2, "the VM and its daemon");
    // These machines have no controllers: what is not accounted for is null, not 0.
    assert!(
        row["memory"].is_null() || row["memory"].as_u64() > Some(0),
        "{row}"
    );
    Ok(())
}

fn logs_are_merged(seat: Seat<'_>, handle: &str) -> Result<()> {
    let mut text = String::new();
    wait_until(DEADLINE, "lines of both", || {
        text = seat.aegis_ok(&format!("logs {handle}"))?;
        Ok(text.contains("[gateway] serving"))
    })?;
    assert!(text.lines().any(|line| line == "up"), "{text}");
    let daemon = seat.aegis_ok(&format!("logs {handle} --daemon gateway"))?;
    let begin = format!("serving {handle} with [one] [two words] and from the kit\nconfig ");
    assert!(daemon.starts_with(&begin), "{daemon}");
    let last = seat.aegis_ok(&format!("logs {handle} --daemon gateway --tail 1"))?;
    assert_eq!(Some(last.trim_end()), daemon.lines().last());
    let all = seat.aegis_ok(&format!("logs {handle} --all --timestamps"))?;
    assert!(all.contains("[service manager] Started"), "{all}");
    assert!(all.contains("[vm] running"), "{all}");
    assert_eq!(
        all.matches(" up\n").count(),
        1,
        "not its copy in the journal: {all}"
    );
    let none = seat.aegis_ok(&format!("logs {handle} --since 0s"))?;
    assert_eq!(none, "");
    let mut follow = Session::start(seat, &format!("aegisctl logs {handle} --follow --tail 0"))?;
    // Nothing tells from when on it follows, so what it shall hear is said again.
    wait_until(DEADLINE, "the signal to be followed", || {
        seat.aegis_ok(&format!("kill -s USR1 {handle}"))?;
        Ok(follow.lines_so_far().iter().any(|line| line == "got USR1"))
    })?;
    let unit = format!("aegis-kit-{handle}:gateway.service");
    seat.systemctl(&format!("kill --signal=KILL {unit}"))?
        .success()?;
    follow.wait_for_line(&format!(
        "[gateway] serving {handle} with [one] [two words] and from the kit"
    ))?;
    follow.signal("INT")?;
    Ok(())
}

fn settings_change(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let vm = instance.vm_unit();
    let before = seat.unit_property(&vm, "MemoryMax")?;
    let at_start = "--memory 192 --env ADDED=later --restart on-failure --expose 18131:80";
    let text = instance.act(&format!(
        "update --cpu-quota 300 --tasks-max 300 {at_start}"
    ))?;
    assert!(
        text.contains("When its VM starts next: env, memory, restart"),
        "{text}"
    );
    assert!(listens(seat, instance, 18131)?, "while the VM runs");
    assert_eq!(seat.unit_property(&vm, "CPUQuotaPerSecUSec")?, "3s");
    assert_eq!(seat.unit_property(&vm, "TasksMax")?, "300");
    assert_eq!(
        seat.unit_property(&vm, "MemoryMax")?,
        before,
        "its guest has the memory"
    );
    let refused = instance.try_act("update --memory 1 --tasks-max 400")?;
    assert!(
        refused.error_text().contains("InvalidArgument"),
        "{}",
        refused.error_text()
    );
    assert_eq!(seat.unit_property(&vm, "TasksMax")?, "300", "all or none");
    Ok(())
}
