//! The machine itself: that what the other system tests stand on is real, and
//! that it leaves nothing behind.

use std::path::Path;
use std::time::Duration;

use aegis_tests::cache;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result};

fn is_the_systemd_it_says(systemd: Systemd) -> Result<()> {
    let machine = Machine::shared(systemd)?;
    for (user, manager) in [(User::Root, "--system"), (User::Alice, "--user")] {
        let version = machine.run(user, &format!("systemctl {manager} show -p Version"))?;
        let expected = format!("Version={}.", systemd.number());
        assert!(
            version.success()?.starts_with(&expected),
            "{}",
            version.text()
        );
        let state = machine.run(user, &format!("systemctl {manager} is-system-running"))?;
        assert_eq!(state.success()?, "running");
    }
    assert_eq!(
        machine.run(User::Root, "cat /proc/1/comm")?.success()?,
        "systemd"
    );
    Ok(())
}

#[test]
fn systemd_257_is_pid_1_with_a_user_manager() -> Result<()> {
    is_the_systemd_it_says(Systemd::V257)
}

#[test]
fn systemd_252_is_pid_1_with_a_user_manager() -> Result<()> {
    is_the_systemd_it_says(Systemd::V252)
}

#[test]
fn a_transient_unit_of_alice_runs_and_ends() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let start = "busctl --user -- call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
         org.freedesktop.systemd1.Manager StartTransientUnit 'ssa(sv)a(sa(sv))' \
         machine-test.service fail \
         1 ExecStart 'a(sasb)' 1 /bin/sh 3 /bin/sh -c 'id -un >$HOME/machine-test' false 0";
    machine.run(User::Alice, start)?.success()?;
    wait_until(
        Duration::from_secs(30),
        "the unit to end and be forgotten",
        || {
            let state = machine.run(
                User::Alice,
                "systemctl --user show -p LoadState machine-test",
            )?;
            Ok(state.text() == "LoadState=not-found")
        },
    )?;
    let written = machine.run(User::Alice, "cat machine-test && rm machine-test")?;
    assert_eq!(written.success()?, "alice");
    Ok(())
}

#[test]
fn streams_and_exit_code_are_those_of_the_command() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let output = machine.run_with_input(User::Alice, "cat; echo warned >&2; exit 7", b"said")?;
    assert_eq!(
        (output.code(), output.text(), output.error_text()),
        (7, "said".into(), "warned".into())
    );
    assert_eq!(machine.run(User::Alice, "kill -KILL $$")?.code(), 137);
    let environment = machine.run(User::Alice, "env")?.success()?;
    assert!(
        environment
            .lines()
            .any(|line| line == "XDG_RUNTIME_DIR=/run/user/1000")
    );
    assert!(
        !environment.contains("CARGO"),
        "the host's environment leaked: {environment}"
    );
    Ok(())
}

#[test]
fn files_survive_a_reboot_and_nothing_survives_a_stop() -> Result<()> {
    let mut machine = Machine::temporary("test-reboot", Systemd::V257)?;
    machine.write_file(User::Alice, "/home/alice/notes/kept", b"yes")?;
    machine.write_file(User::Alice, "/run/user/1000/lost", b"no")?;
    let first = machine.leader_pid();
    let boot = "cat /etc/machine-id";
    let identity = machine.run(User::Root, boot)?.success()?;

    machine.reboot()?;
    assert_ne!(machine.leader_pid(), first);
    assert_eq!(machine.read_file("/home/alice/notes/kept")?, b"yes");
    assert!(
        !machine
            .run(User::Alice, "test -e /run/user/1000/lost")?
            .status
            .success()
    );
    assert_eq!(
        machine.run(User::Root, boot)?.success()?,
        identity,
        "another machine-id"
    );

    let mut survivor = machine.command(User::Alice, "exec sleep 1000").spawn()?;
    let leader = machine.leader_pid();
    machine.stop()?;
    survivor.wait()?;
    assert!(!Path::new(&format!("/proc/{leader}")).exists());
    assert!(Machine::attach("test-reboot")?.is_none());
    assert!(!cache::directory()?.join("machines/test-reboot").exists());
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    assert!(!mounts.contains("test-reboot"), "{mounts}");
    for mount in mounts.lines().filter(|line| line.contains(" cgroup2 ")) {
        let mount = mount.split(' ').nth(1).context("a mount has a target")?;
        for group in std::fs::read_dir(mount)? {
            let group = group?.file_name();
            assert!(
                !group.to_string_lossy().contains("test-reboot"),
                "left: {}",
                group.display()
            );
        }
    }
    Ok(())
}

#[test]
fn a_machine_that_died_is_no_obstacle() -> Result<()> {
    let machine = Machine::temporary("test-dead", Systemd::V257)?;
    let pid = machine.leader_pid();
    std::process::Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status()?;
    wait_until(Duration::from_secs(30), "the machine to be gone", || {
        Ok(Machine::attach("test-dead")?.is_none())
    })?;
    let again = Machine::ensure("test-dead", Systemd::V257)?;
    assert_eq!(again.run(User::Alice, "id -un")?.success()?, "alice");
    again.stop()
}
