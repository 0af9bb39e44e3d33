//! What the end of a command leads to, with a real service manager.

use std::time::Duration;

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::wait::{wait_for, wait_until};
use anyhow::{Context, Result};

/// How often the command has said that it began.
fn begins(seat: Seat<'_>, handle: &str) -> Result<usize> {
    let log = seat.aegis_ok(&format!("logs {handle}"))?;
    Ok(log.lines().filter(|line| *line == "begin").count())
}

#[test]
fn a_failure_is_restarted_as_often_as_it_may() -> Result<()> {
    restarted_as_often_as_it_may(Systemd::V257)
}

#[test]
fn a_failure_is_restarted_as_often_as_it_may_by_systemd_252() -> Result<()> {
    restarted_as_often_as_it_may(Systemd::V252)
}

fn restarted_as_often_as_it_may(systemd: Systemd) -> Result<()> {
    let machine = Machine::shared(systemd)?;
    let seat = Seat::alice(&machine);
    let flags = "--restart on-failure:2 -- sh -c 'echo begin; sleep 1; exit 3'";
    let instance = Instance::start(seat, "restart-twice", flags)?;
    wait_until(DEADLINE, "it to be given up", || {
        Ok(instance.info()?.contains("given up after 2 restarts"))
    })
    .with_context(|| instance.info().unwrap_or_default())?;
    assert_eq!(begins(seat, "restart-twice")?, 3);
    assert_eq!(instance.state()?, "stopped");
    // A start by name counts anew.
    instance.start_again()?;
    wait_until(DEADLINE, "it to be started again", || {
        Ok(begins(seat, "restart-twice")? >= 5)
    })
}

#[test]
fn an_end_in_order_is_restarted_by_always_alone() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let command = "-- sh -c 'echo begin; sleep 1'";
    let once = Instance::start(
        seat,
        "restart-once",
        &format!("--restart on-failure {command}"),
    )?;
    let always = Instance::start(
        seat,
        "restart-always",
        &format!("--restart always {command}"),
    )?;
    wait_until(DEADLINE, "a second run", || {
        Ok(begins(seat, "restart-always")? >= 2)
    })?;
    let info = always.info()?;
    assert!(info.contains("Restart:     always"), "{info}");
    assert!(info.contains("Restarts:"), "{info}");
    // Stopping is a wish that the policy respects.
    always.act("stop")?;
    assert_eq!(always.state()?, "stopped");
    let before = begins(seat, "restart-always")?;
    once.wait_for_state("stopped")?;
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(begins(seat, "restart-always")?, before);
    assert_eq!(begins(seat, "restart-once")?, 1);
    Ok(())
}

#[test]
fn without_a_policy_a_lost_vm_stays_down_until_it_is_used() -> Result<()> {
    lost_vm_stays_down(Systemd::V257)
}

#[test]
fn without_a_policy_a_lost_vm_stays_down_until_it_is_used_on_systemd_252() -> Result<()> {
    lost_vm_stays_down(Systemd::V252)
}

fn lost_vm_stays_down(systemd: Systemd) -> Result<()> {
    let machine = Machine::shared(systemd)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "restart-lost", "")?;
    let owner = seat.main_pid(&instance.vm_unit())?.context("no owner")?;
    seat.run(&format!("kill -KILL {owner}"))?.success()?;
    instance.wait_for_state("failed")?;
    assert_eq!(seat.active_state(&instance.socket_unit())?, "active");
    assert_eq!(instance.exec_ok("echo woken")?, "woken");

    let kept = Instance::start(seat, "restart-kept", "--restart on-failure")?;
    let owner = seat.main_pid(&kept.vm_unit())?.context("no owner")?;
    seat.run(&format!("kill -KILL {owner}"))?.success()?;
    wait_for(DEADLINE, "another owner", || {
        Ok(seat.main_pid(&kept.vm_unit())?.filter(|&pid| pid != owner))
    })?;
    kept.wait_for_state("running")
}

#[test]
fn connections_wait_for_the_back_off_after_an_end() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let flags = "--expose 18123:80 -- sh -c 'echo begin; exit 1'";
    let instance = Instance::start(seat, "restart-rest", flags)?;
    let connect = "python3 -c 'import socket; s = socket.create_connection((\"127.0.0.1\", 18123)); s.recv(1)'";
    // Ends in a row make the wait long enough to be looked at.
    wait_until(DEADLINE, "a rest that is seen", || {
        drop(seat.run(connect)?);
        Ok(instance
            .info()?
            .contains("connections are reset for a while"))
    })
    .with_context(|| instance.info().unwrap_or_default())?;
    let info = instance.info()?;
    assert!(info.contains("Next start:"), "{info}");
    assert!(info.contains("the command exited with 1"), "{info}");
    // A use by hand does not wait.
    assert_eq!(instance.exec_ok("echo by hand")?, "by hand");
    Ok(())
}

#[test]
fn want_of_memory_in_the_guest_is_shown() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    // Two of these are more than there is, and one of them alone is not.
    let fill = "dd if=/dev/zero of=/dev/null bs=55M count=40";
    let flags = format!("--memory 96M -- sh -c '{fill} & {fill}; wait; echo ended; exit 9'");
    let instance = Instance::start(seat, "restart-oom", &flags)?;
    wait_until(DEADLINE, "the end to be shown", || {
        Ok(instance.info()?.contains("the guest ran out of memory"))
    })
    .with_context(|| instance.info().unwrap_or_default())?;
    let shown = seat.aegis_ok("--json instance info restart-oom")?;
    assert!(shown.contains("\"oom\":true,\"oom_host\":false"), "{shown}");
    Ok(())
}

#[test]
fn a_policy_starts_vms_after_a_reboot() -> Result<()> {
    let mut machine = Machine::temporary("test-restart-reboot", Systemd::V257)?;
    {
        let seat = Seat::alice(&machine);
        seat.aegis_ok("up")?;
        for (handle, policy) in [
            ("boot-always", "always"),
            ("boot-unless", "unless-stopped"),
            ("boot-stopped", "unless-stopped"),
            ("boot-failure", "on-failure"),
        ] {
            let instance = Instance::start(seat, handle, &format!("--restart {policy}"))?;
            // Kept beyond the value: a drop would delete it before the reboot.
            std::mem::forget(instance);
        }
        seat.aegis_ok("instance stop boot-stopped")?;
    }

    machine.reboot()?;

    let seat = Seat::alice(&machine);
    for handle in ["boot-always", "boot-unless"] {
        wait_until(DEADLINE, &format!("{handle} to run"), || {
            Ok(seat.active_state(&format!("aegis-vm-{handle}.service"))? == "active")
        })?;
    }
    for handle in ["boot-stopped", "boot-failure"] {
        let unit = format!("aegis-vm-{handle}");
        assert_eq!(seat.active_state(&format!("{unit}.socket"))?, "active");
        assert_eq!(seat.active_state(&format!("{unit}.service"))?, "inactive");
    }
    Ok(())
}
