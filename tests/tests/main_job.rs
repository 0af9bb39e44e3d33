//! The main job: an instance and its kit's daemon under the user's own service
//! manager, and what each of them survives.

use std::time::Duration;

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::wait::{wait_for, wait_until};
use anyhow::{Context, Result};

fn with_a_daemon<'a>(seat: Seat<'a>, handle: &str) -> Result<Instance<'a>> {
    kit::install(seat, "shell", &["shell-gateway"])?;
    Instance::start(seat, handle, "--kit shell")
}

#[test]
fn starting_an_instance_of_a_kit_starts_its_daemon() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install_example(seat)?;
    let instance = Instance::start(seat, "job-start", "--kit echo")?;

    let unit = instance.daemon_unit("echo-gateway");
    assert_eq!(unit, "aegis-kit-job-start:echo-gateway.service");
    wait_until(DEADLINE, "the daemon to run", || {
        Ok(seat.active_state(&unit)? == "active")
    })?;
    assert_eq!(seat.active_state(&instance.vm_unit())?, "active");
    assert_eq!(seat.unit_property(&unit, "Slice")?, instance.slice());
    let info = instance.info()?;
    assert!(
        info.lines().any(|line| line == "Gateway:     running"),
        "{info}"
    );
    wait_until(DEADLINE, "the daemon's first words", || {
        Ok(seat.journal(&unit, "cat")?.contains("hello from job-start"))
    })?;
    assert_eq!(instance.exec_ok("echo from the guest")?, "from the guest");
    Ok(())
}

#[test]
fn a_daemon_gets_its_arguments_environment_and_config() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.run(&format!("rm -rf {}/job-given", seat.kits()))?
        .success()?;
    let instance = with_a_daemon(seat, "job-given")?;
    let unit = instance.daemon_unit("gateway");
    wait_until(DEADLINE, "the daemon's first words", || {
        let journal = seat.journal(&unit, "cat")?;
        Ok(
            journal.contains("serving job-given with [one] [two words] and from the kit")
                && journal.contains(r#""greeting""#),
        )
    })?;

    // What a person wrote is not overwritten by the default, and is picked up.
    let config = format!("{}/job-given/gateway.json", seat.kits());
    machine.write_file(User::Alice, &config, b"{\"greeting\":\"good day\"}")?;
    wait_until(DEADLINE, "the daemon to have the new config", || {
        Ok(seat.journal(&unit, "cat")?.contains("good day"))
    })?;
    instance.act("disable")?;
    instance.act("enable")?;
    assert!(String::from_utf8(machine.read_file(&config)?)?.contains("good day"));
    Ok(())
}

#[test]
fn a_killed_daemon_is_restarted_with_growing_delay() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = with_a_daemon(seat, "job-restart")?;
    let unit = instance.daemon_unit("gateway");

    let mut delays = Vec::new();
    let mut pid = instance.daemon_pid("gateway")?;
    for restarts in 1..=4 {
        seat.run(&format!("kill -KILL {pid}"))?.success()?;
        pid = wait_for(DEADLINE, "another process of the daemon", || {
            Ok(seat.main_pid(&unit)?.filter(|&new| new != pid))
        })?;
        assert_eq!(
            seat.unit_property(&unit, "NRestarts")?,
            restarts.to_string()
        );
        delays.push(microseconds(
            &seat.unit_property(&unit, "RestartUSecNext")?,
        )?);
    }
    assert!(
        delays.is_sorted_by(|earlier, later| earlier < later),
        "{delays:?}"
    );
    // A process is there before its unit counts as started.
    wait_until(DEADLINE, "the daemon to be shown as running", || {
        Ok(instance.info_value("Gateway")?.as_deref() == Some("running"))
    })
}

/// Reads a time span of systemd, e.g. `1.745s` or `2min 3s`.
fn microseconds(text: &str) -> Result<Duration> {
    text.split(' ')
        .map(|part| {
            let digits = part.trim_end_matches(|character: char| character.is_alphabetic());
            let number: f64 = digits.parse().with_context(|| format!("{text:?}"))?;
            let unit = match &part[digits.len()..] {
                "us" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "min" => 60.0,
                other => anyhow::bail!("the unit {other:?} in {text:?}"),
            };
            Ok(Duration::from_secs_f64(number * unit))
        })
        .sum()
}

#[test]
fn pausing_and_stopping_the_vm_keeps_the_daemons_process() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = with_a_daemon(seat, "job-pause")?;
    let daemon = instance.daemon_pid("gateway")?;
    let qemu = instance.qemu_pid()?.context("no QEMU")?;

    instance.act("pause")?;
    assert_eq!(instance.state()?, "paused");
    assert_eq!(instance.daemon_pid("gateway")?, daemon);
    assert_eq!(instance.qemu_pid()?, Some(qemu));
    instance.act("resume")?;
    assert_eq!(instance.state()?, "running");
    assert_eq!(instance.qemu_pid()?, Some(qemu));

    instance.act("stop")?;
    assert_eq!(instance.state()?, "stopped");
    assert_eq!(instance.qemu_pid()?, None);
    assert_eq!(instance.daemon_pid("gateway")?, daemon);
    assert_eq!(instance.info_value("Gateway")?.as_deref(), Some("running"));
    instance.start_again()?;
    assert_eq!(instance.daemon_pid("gateway")?, daemon);
    Ok(())
}

#[test]
fn killing_aegisd_keeps_the_daemons_and_qemus_processes() -> Result<()> {
    let machine = Machine::temporary("test-job-killed", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = with_a_daemon(seat, "job-killed")?;
    let daemon = instance.daemon_pid("gateway")?;
    let qemu = instance.qemu_pid()?.context("no QEMU")?;

    for _ in 0..3 {
        seat.kill_aegisd()?;
        seat.wait_for_aegisd()?;
        assert_eq!(instance.state()?, "running");
        assert_eq!(instance.daemon_pid("gateway")?, daemon);
        assert_eq!(instance.qemu_pid()?, Some(qemu));
    }
    assert_eq!(instance.info_value("Gateway")?.as_deref(), Some("running"));
    Ok(())
}

#[test]
fn disable_stops_the_daemon_enable_starts_it_and_delete_removes_it() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = with_a_daemon(seat, "job-disable")?;
    let unit = instance.daemon_unit("gateway");
    let config = format!("{}/job-disable/gateway.json", seat.kits());
    let first = instance.daemon_pid("gateway")?;

    instance.act("disable")?;
    assert_eq!(seat.active_state(&unit)?, "inactive");
    instance.act("enable")?;
    assert_ne!(instance.daemon_pid("gateway")?, first);

    seat.run(&format!("test -e {config}"))?.success()?;
    instance.act("delete")?;
    assert_eq!(seat.unit_property(&unit, "LoadState")?, "not-found");
    assert!(
        seat.run(&format!("test -e {config}"))?.status.success(),
        "a user's config is kept"
    );
    Ok(())
}

#[test]
fn daemons_of_two_instances_are_independent() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "python", &["python-daemon"])?;
    let one = Instance::start(seat, "job-one", "--kit python")?;
    let two = Instance::start(seat, "job-two", "--kit python")?;
    let of_two = [two.daemon_pid("first")?, two.daemon_pid("second")?];
    assert_ne!(of_two[0], of_two[1], "a kit may have several daemons");

    let info = one.info()?;
    assert!(
        info.lines().any(|line| line == "First:       running"),
        "{info}"
    );
    assert!(
        info.contains("python-daemon: running"),
        "without a label the binary's name is shown: {info}"
    );
    wait_until(DEADLINE, "each daemon to know its own instance", || {
        Ok(seat
            .journal(&one.daemon_unit("first"), "cat")?
            .contains("listening for job-one")
            && seat
                .journal(&two.daemon_unit("first"), "cat")?
                .contains("listening for job-two"))
    })?;
    one.act("disable")?;
    assert_eq!(
        [two.daemon_pid("first")?, two.daemon_pid("second")?],
        of_two
    );
    Ok(())
}

#[test]
fn a_daemon_that_never_comes_up_is_retried_ever_more_slowly() -> Result<()> {
    retried_ever_more_slowly(Systemd::V257)
}

#[test]
fn a_daemon_that_never_comes_up_is_retried_ever_more_slowly_by_systemd_252() -> Result<()> {
    retried_ever_more_slowly(Systemd::V252)
}

fn retried_ever_more_slowly(systemd: Systemd) -> Result<()> {
    let machine = Machine::shared(systemd)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "crashing", &["crashing-daemon"])?;
    let instance = Instance::start(seat, "job-crashing", "--kit crashing")?;
    let unit = instance.daemon_unit("daemon");

    let starts = wait_for(DEADLINE, "six starts of the daemon", || {
        let listed = seat.journal(&unit, "short-unix")?;
        let times: Vec<f64> = listed
            .lines()
            .filter(|line| line.ends_with(": crashing"))
            .filter_map(|line| line.split(' ').next()?.parse().ok())
            .collect();
        Ok((times.len() >= 6).then_some(times))
    })?;
    let delays: Vec<f64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(delays[4] > 2.0 * delays[0], "{delays:?}");
    assert!(delays[4] > 1.0, "{delays:?}");
    assert_ne!(seat.active_state(&unit)?, "failed", "it is never given up");
    Ok(())
}

#[test]
fn a_daemon_that_ended_is_shown_as_exited_and_not_restarted() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "done", &["done-daemon"])?;
    let ends = || -> Result<usize> {
        let journal = seat.journal("aegis-kit-job-done:daemon.service", "cat")?;
        Ok(journal.lines().filter(|line| *line == "done").count())
    };
    // A machine that lives on has the lines of earlier runs of this test.
    let earlier = ends()?;
    let instance = Instance::start(seat, "job-done", "--kit done")?;
    wait_until(DEADLINE, "the daemon to be shown as exited", || {
        Ok(instance
            .info_value("Worker")?
            .is_some_and(|value| value.starts_with("exited")))
    })?;
    // Whatever makes aegisd look again must not start it again.
    let other = Instance::start(seat, "job-done-other", "")?;
    other.act("disable")?;
    assert_eq!(ends()?, earlier + 1);
    Ok(())
}

#[test]
fn a_daemon_without_configuration_waits_for_it() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "unconfigured", &["unconfigured-daemon"])?;
    seat.run(&format!("rm -rf {}/job-waiting", seat.kits()))?
        .success()?;
    let instance = Instance::start(seat, "job-waiting", "--kit unconfigured")?;
    wait_until(DEADLINE, "the daemon to wait for its configuration", || {
        Ok(instance
            .info_value("Bot")?
            .is_some_and(|value| value.starts_with("waiting")))
    })?;

    let config = format!("{}/job-waiting/token.json", seat.kits());
    machine.write_file(User::Alice, &config, b"{}")?;
    wait_until(DEADLINE, "the configured daemon to run", || {
        Ok(instance
            .info_value("Bot")?
            .is_some_and(|value| value == "running"))
    })?;
    Ok(())
}

#[test]
fn the_daemons_of_enabled_instances_come_back_after_a_reboot() -> Result<()> {
    let mut machine = Machine::temporary("test-job-reboot", Systemd::V257)?;
    {
        let seat = Seat::alice(&machine);
        seat.aegis_ok("up")?;
        // Kept beyond the value: a drop would delete them before the reboot.
        std::mem::forget(with_a_daemon(seat, "job-reboot")?);
        let disabled = with_a_daemon(seat, "job-off")?;
        disabled.act("disable")?;
        std::mem::forget(disabled);
    }

    machine.reboot()?;

    let seat = Seat::alice(&machine);
    wait_until(DEADLINE, "the daemon to run again", || {
        Ok(seat.active_state("aegis-kit-job-reboot:gateway.service")? == "active")
    })?;
    assert_eq!(seat.active_state("aegis-vm-job-reboot.socket")?, "active");
    assert_eq!(
        seat.active_state("aegis-kit-job-off:gateway.service")?,
        "inactive"
    );
    assert_eq!(seat.active_state("aegis-vm-job-off.socket")?, "inactive");
    Ok(())
}
