//! aegisd may die at any moment of any operation: what runs goes on, and once
//! it is back, units, folders and records tell the same story.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_tests::agreement::wait_for_agreement;
use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::session::Session;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result, bail};

/// The moments of the kill after the operation began: a little different in
/// each run, so that many runs meet many moments.
fn moments(latest: Duration) -> Vec<Duration> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let jitter = f64::from(now.subsec_millis()) / 1000.0;
    let count = 5;
    (0..count)
        .map(|index| latest.mul_f64((f64::from(index) + jitter) / f64::from(count)))
        .collect()
}

/// Begins an operation by the client, kills aegisd when `moment` has passed,
/// and waits for the end of both.
fn interrupt(seat: Seat<'_>, arguments: &str, moment: Duration) -> Result<()> {
    let operation = Session::start(seat, &format!("aegisctl {arguments}"))?;
    // The one place where time itself is what is tested.
    std::thread::sleep(moment);
    seat.kill_aegisd()?;
    operation.wait()?;
    seat.wait_for_aegisd()
}

#[test]
fn during_create() -> Result<()> {
    let machine = Machine::temporary("test-killed-create", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    kit::install(seat, "shell", &["shell-gateway"])?;
    for (index, moment) in moments(Duration::from_millis(2500)).into_iter().enumerate() {
        let handle = format!("create-{index}");
        interrupt(
            seat,
            &format!("instance start --name {handle} --kit shell"),
            moment,
        )?;
        if wait_for_agreement(seat)?.contains(&handle) {
            // An intent that was recorded is carried out.
            let instance = Instance::existing(seat, &handle);
            instance
                .start_again()
                .with_context(|| format!("killed after {moment:?}"))?;
            assert_eq!(instance.exec_ok("echo up")?, "up");
            instance.daemon_pid("gateway")?;
            instance.delete()?;
        }
        assert!(!wait_for_agreement(seat)?.contains(&handle));
    }
    Ok(())
}

#[test]
fn during_start_the_same_qemu_goes_on() -> Result<()> {
    let machine = Machine::temporary("test-killed-start", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "killed-start", "")?;
    for moment in moments(Duration::from_millis(2500)) {
        instance.act("stop")?;
        let operation = Session::start(seat, "aegisctl instance start --name killed-start")?;
        std::thread::sleep(moment);
        let before = instance.qemu_pid()?;
        seat.kill_aegisd()?;
        operation.wait()?;
        seat.wait_for_aegisd()?;
        instance
            .start_again()
            .with_context(|| format!("killed after {moment:?}"))?;
        let after = instance.qemu_pid()?;
        assert!(after.is_some());
        if before.is_some() {
            assert_eq!(after, before, "killed after {moment:?}");
        }
        assert_eq!(instance.exec_ok("echo up")?, "up");
    }
    wait_for_agreement(seat)?;
    Ok(())
}

#[test]
fn during_exec_the_session_goes_on_streaming() -> Result<()> {
    let machine = Machine::temporary("test-killed-exec", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "killed-exec", "")?;
    let qemu = instance.qemu_pid()?;
    let mut counting = Session::start(
        seat,
        "aegisctl exec killed-exec -- sh -c 'i=0; while [ $i -lt 10000 ]; do i=$((i+1)); echo $i; sleep 0.05; done'",
    )?;
    let mut echo = Session::start(seat, "aegisctl exec killed-exec -- sh -c 'cat; exit 5'")?;
    counting.wait_for_line("1")?;
    let mut expected = 2;
    for round in 0..3 {
        seat.kill_aegisd()?;
        for _ in 0..40 {
            assert_eq!(counting.line()?, expected.to_string());
            expected += 1;
        }
        echo.write(format!("round {round}\n").as_bytes())?;
        assert_eq!(echo.line()?, format!("round {round}"));
        seat.wait_for_aegisd()?;
    }
    assert_eq!(echo.wait()?.code, 5, "the exit code needs no aegisd");
    counting.signal("INT")?;
    assert_eq!(counting.wait()?.code, 130, "nor does a signal");
    assert_eq!(instance.qemu_pid()?, qemu);

    for moment in moments(Duration::from_millis(300)) {
        interrupt(seat, "exec killed-exec -- sleep 0.1", moment)?;
    }
    assert_eq!(instance.qemu_pid()?, qemu);
    wait_until(DEADLINE, "no exec to be left", || {
        Ok(!instance.exec_ok("ps")?.contains("sleep 0"))
    })
}

#[test]
fn during_stop() -> Result<()> {
    let machine = Machine::temporary("test-killed-stop", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "shell", &["shell-gateway"])?;
    let instance = Instance::start(seat, "killed-stop", "--kit shell")?;
    let daemon = instance.daemon_pid("gateway")?;
    for moment in moments(Duration::from_millis(800)) {
        interrupt(seat, "instance stop killed-stop", moment)?;
        instance
            .act("stop")
            .with_context(|| format!("killed after {moment:?}"))?;
        assert_eq!(instance.state()?, "stopped");
        assert_eq!(instance.qemu_pid()?, None);
        assert_eq!(instance.daemon_pid("gateway")?, daemon);
        instance.start_again()?;
    }
    wait_for_agreement(seat)?;
    Ok(())
}

#[test]
fn during_disable_and_delete() -> Result<()> {
    let machine = Machine::temporary("test-killed-delete", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "shell", &["shell-gateway"])?;
    for verb in ["disable", "delete"] {
        for (index, moment) in moments(Duration::from_millis(1000)).into_iter().enumerate() {
            let handle = format!("{verb}-{index}");
            let instance = Instance::start(seat, &handle, "--kit shell")?;
            interrupt(seat, &format!("instance {verb} {handle}"), moment)?;
            if wait_for_agreement(seat)?.contains(&handle) {
                instance
                    .act(verb)
                    .with_context(|| format!("killed after {moment:?}"))?;
            } else if verb == "disable" {
                bail!("{handle} vanished");
            }
            wait_until(DEADLINE, "everything of it to be stopped", || {
                Ok(seat.active_state(&instance.vm_unit())? == "inactive"
                    && seat.active_state(&instance.socket_unit())? == "inactive"
                    && seat.active_state(&instance.daemon_unit("gateway"))? == "inactive")
            })?;
            drop(instance);
            assert!(wait_for_agreement(seat)?.is_empty());
        }
    }
    Ok(())
}

#[test]
fn during_a_run() -> Result<()> {
    let machine = Machine::temporary("test-killed-run", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    for moment in moments(Duration::from_millis(4000)) {
        interrupt(seat, "run -- sleep 0.5", moment)?;
        let mut left = BTreeSet::new();
        wait_until(DEADLINE, "the run's instance to be gone", || {
            left = wait_for_agreement(seat)?;
            Ok(left.is_empty())
        })
        .with_context(|| format!("killed after {moment:?}; left {left:?}"))?;
        assert_eq!(machine.run(User::Root, "pgrep qemu")?.text(), "");
    }
    // A session that has begun does not even notice.
    let mut run = Session::start(seat, "aegisctl run -- sh -c 'echo up; cat; exit 6'")?;
    run.wait_for_line("up")?;
    seat.kill_aegisd()?;
    run.write(b"still here\n")?;
    run.wait_for_line("still here")?;
    assert_eq!(run.wait()?.code, 6);
    seat.wait_for_aegisd()?;
    assert!(wait_for_agreement(seat)?.is_empty());
    Ok(())
}
