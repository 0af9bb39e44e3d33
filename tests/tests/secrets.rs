//! Secrets from the user to the guest and to daemons, and the places where they
//! must never be seen.

use std::time::Duration;

use aegis_tests::canary::found;
use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_for;
use anyhow::{Context, Result};

/// Values that occur nowhere by chance.
const NAMED: &str = "zq7-named-hunter2-named";
const OWN: &str = "zq7-own-correct-horse-own";
const NEWER: &str = "zq7-newer-tr0ub4dor-newer";

/// Forgets what the daemon wrote down, so that it is seen to do it again.
fn forget(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let folder = format!("{}/{}", seat.kits(), instance.handle());
    let line = format!("rm -f {folder}/environment");
    seat.machine().run(User::Root, &line)?.success().map(drop)
}

fn secrets_reach_their_users_and_nobody_else(machine: &Machine, seat: Seat<'_>) -> Result<()> {
    kit::install(seat, "secret", &["secret-daemon"])?;
    // Whatever goes over the bus is watched.
    let bus = match seat.user() {
        User::Alice => "--user",
        User::Root => "--system",
    };
    seat.run(&format!(
        "busctl {bus} monitor --json=short >/tmp/bus.log 2>&1 & echo $! >/tmp/bus.pid; sleep 1"
    ))?;
    seat.set_secret("API_KEY", NAMED)?;
    let instance = Instance::expected(seat, "keeper")?;
    let started = seat.run(&format!(
        "OWN={OWN} aegisctl instance start --name keeper --kit secret \
         --env API_KEY --env RENAMED=secret.API_KEY --env OWN --env PLAIN=plain"
    ))?;
    let said = started.error_text();
    started.success()?;
    assert!(
        said.contains("OWN is no secret: its value of this environment is kept encrypted"),
        "{said}"
    );
    for (variable, value) in [
        ("API_KEY", NAMED),
        ("RENAMED", NAMED),
        ("OWN", OWN),
        ("PLAIN", "plain"),
    ] {
        assert_eq!(instance.exec_ok(&format!("echo ${variable}"))?, value);
        // The command's own environment, not the session's.
        let command =
            format!("tr '\\0' '\\n' </proc/$(pidof sleep)/environ | grep -c ^{variable}=");
        assert_eq!(instance.exec_ok(&command)?, "1", "{variable}");
        kit::wait_until_given(seat, &instance, variable, value)?;
    }
    let exec = instance.exec_with("--env OTHER=secret.API_KEY", "sh -c 'echo $OTHER'")?;
    assert_eq!(exec.success()?.trim(), NAMED);
    seat.run("kill $(cat /tmp/bus.pid)")?;
    let watched = seat.run("grep -c org.aegisvm.Aegis1 /tmp/bus.log")?.text();
    assert!(
        watched.trim().parse::<u32>()? > 10,
        "the bus was watched: {watched}"
    );
    for value in [NAMED, OWN] {
        assert_eq!(found(seat, value)?, "", "{value}");
    }
    // The owner of the VM has them in its memory, not in its environment.
    let pid = seat.main_pid(&instance.vm_unit())?.context("a VM runs")?;
    let line = format!("grep -ca {NAMED} /proc/{pid}/environ; true");
    assert_eq!(machine.run(User::Root, &line)?.text().trim(), "0");
    // What stands in the unit is where to ask.
    let unit = seat.systemctl(&format!("cat '{}'", instance.daemon_unit("keeper")))?;
    let asked = format!("LoadCredential=aegis:{}/credentials.sock", seat.runtime());
    assert!(unit.success()?.lines().any(|line| line == asked));
    starts_need_no_aegisd(seat, &instance)?;
    a_new_value_counts_from_the_next_start(seat, &instance)?;
    a_secret_in_use_stays(seat, &instance)?;
    a_lost_key_is_said(seat, &instance)?;
    instance.delete()
}

/// A unit that starts while there is no aegisd starts it.
fn starts_need_no_aegisd(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let unit = instance.daemon_unit("keeper");
    for reload in [false, true] {
        if reload {
            seat.systemctl("daemon-reload")?.success()?;
        }
        forget(seat, instance)?;
        seat.systemctl("stop aegisd.service")?.success()?;
        assert_eq!(seat.active_state("aegisd.service")?, "inactive");
        seat.systemctl(&format!("kill --signal=KILL {unit}"))?
            .success()?;
        kit::wait_until_given(seat, instance, "API_KEY", NAMED)?;
        seat.wait_for_aegisd()?;
    }
    // The same for a VM that a use of it wakes.
    instance.act("stop")?;
    seat.systemctl("stop aegisd.service")?.success()?;
    let socket = instance.control_socket();
    let connect = format!(
        "python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect(\"{socket}\")'"
    );
    seat.machine().run(User::Root, &connect)?.success()?;
    instance.wait_for_state("running")?;
    assert_eq!(instance.exec_ok("echo $OWN")?, OWN);
    Ok(())
}

fn a_new_value_counts_from_the_next_start(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    seat.set_secret("API_KEY", NEWER)?;
    assert_eq!(
        kit::given(seat, instance, "API_KEY")?.as_deref(),
        Some(NAMED)
    );
    let unit = instance.daemon_unit("keeper");
    seat.systemctl(&format!("restart {unit}"))?.success()?;
    kit::wait_until_given(seat, instance, "API_KEY", NEWER)?;
    instance.act("stop")?;
    assert_eq!(instance.exec_ok("echo $API_KEY")?, NEWER);
    Ok(())
}

fn a_secret_in_use_stays(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let refused = seat.aegis("secret delete API_KEY")?;
    assert_eq!(refused.code(), 1);
    let said = refused.error_text();
    assert!(said.contains("is used by keeper (SecretInUse)"), "{said}");
    seat.aegis_ok("secret delete --force API_KEY")?;
    instance.act("stop")?;
    let refused = seat.aegis("instance start --name keeper")?;
    let said = refused.error_text();
    assert_eq!(refused.code(), 1, "{said}");
    assert!(
        said.contains("there is no secret 'API_KEY' (SecretNotFound)"),
        "{said}"
    );
    assert!(
        said.contains("hint: set it: aegisctl secret set API_KEY"),
        "{said}"
    );
    // The daemon says it too, is tried again, and runs once the secret is there.
    let unit = instance.daemon_unit("keeper");
    forget(seat, instance)?;
    seat.systemctl(&format!("restart --no-block {unit}"))?
        .success()?;
    wait_for(DEADLINE, "the daemon to say what it lacks", || {
        let log = seat.journal(&unit, "cat")?;
        Ok(log.contains("there is no secret 'API_KEY'").then_some(()))
    })?;
    seat.set_secret("API_KEY", NAMED)?;
    kit::wait_until_given(seat, instance, "API_KEY", NAMED)
}

fn a_lost_key_is_said(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let key = format!("{}/secrets.key", seat.home());
    let mode = seat.run(&format!("stat -c %a {key}"))?.success()?;
    assert_eq!(mode.trim(), "600");
    instance.exec_ok("true")?;
    seat.run(&format!("mv {key} {key}.away"))?.success()?;
    let listed = seat.aegis_ok("secret list")?;
    assert!(listed.contains("lost, set it again"), "{listed}");
    // A VM that runs keeps what it was started with.
    instance.exec_ok("echo $OWN")?;
    instance.act("stop")?;
    let refused = seat.aegis("exec keeper -- true")?;
    let said = refused.error_text();
    assert!(said.contains("(SecretKeyLost)"), "{said}");
    assert!(said.contains("aegisctl secret set API_KEY"), "{said}");
    seat.run(&format!("mv {key}.away {key}"))?.success()?;
    assert_eq!(instance.exec_ok("echo $OWN")?, OWN);
    Ok(())
}

#[test]
fn secrets_of_a_user() -> Result<()> {
    let machine = Machine::temporary("test-secrets", Systemd::V257)?;
    secrets_reach_their_users_and_nobody_else(&machine, Seat::alice(&machine))
}

#[test]
fn secrets_of_the_system() -> Result<()> {
    let machine = Machine::temporary("test-secrets-root", Systemd::V257)?;
    secrets_reach_their_users_and_nobody_else(&machine, Seat::root(&machine))
}

#[test]
fn secrets_of_a_user_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-secrets-252", Systemd::V252)?;
    secrets_reach_their_users_and_nobody_else(&machine, Seat::alice(&machine))
}

#[test]
fn secrets_of_the_system_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-secrets-root-252", Systemd::V252)?;
    secrets_reach_their_users_and_nobody_else(&machine, Seat::root(&machine))
}

/// A program that asks on the credential socket from an address of its choice.
fn ask(seat: Seat<'_>, address: &str) -> String {
    format!(
        "python3 -c 'import socket
s = socket.socket(socket.AF_UNIX)
s.settimeout({})
s.bind({address})
s.connect(\"{}/credentials.sock\")
print(s.recv(99))'",
        Duration::from_secs(20).as_secs(),
        seat.runtime()
    )
}

/// The address of the manager's own for a VM that there is not.
const FORGED: &str = "b\"\\0abc/unit/aegis-vm-none.service/aegis\"";

/// Who is not the service manager gets nothing, whatever address it calls from.
#[test]
fn the_credential_socket_knows_who_asks() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::root(&machine);
    seat.aegis_ok("up")?;
    // The executor of the system manager is root, and so is this.
    let answered = machine.run(User::Root, &ask(seat, FORGED))?.success()?;
    assert!(answered.contains("there is no instance"), "{answered}");
    for odd in [
        "b\"\\0abc/unit/aegis-vm-none.service/other\"",
        "b\"\\0abc\"",
    ] {
        let refused = machine.run(User::Root, &ask(seat, odd))?.success()?;
        assert_eq!(refused.trim(), "b''", "{odd}");
    }
    let alice = machine.run(User::Alice, &ask(seat, FORGED))?;
    assert!(
        alice.error_text().contains("Permission"),
        "{}",
        alice.error_text()
    );
    Ok(())
}

/// In user mode every program has the user's rights: there the peer has to be in the
/// control group of the unit.
fn a_program_of_the_user_cannot_pose_as_the_manager(seat: Seat<'_>) -> Result<()> {
    seat.aegis_ok("up")?;
    let refused = seat.run(&ask(seat, FORGED))?.success()?;
    assert_eq!(refused.trim(), "b''");
    // What is left to it, as SECURITY.md says: to have the manager ask.
    let credential = format!(
        "systemd-run --user --quiet --collect --pipe --wait --unit=aegis-vm-none \
         -p LoadCredential=aegis:{}/credentials.sock sh -c 'cat \"$CREDENTIALS_DIRECTORY\"/aegis'",
        seat.runtime()
    );
    let answered = seat.run(&credential)?.success()?;
    assert!(answered.contains("there is no instance"), "{answered}");
    let log = seat.run("journalctl --user --quiet --output=cat --unit=aegisd.service")?;
    let reason = "asks for aegis-vm-none.service";
    assert!(log.text().contains(reason), "{}", log.text());
    Ok(())
}

#[test]
fn no_program_poses_as_the_manager_on_257() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    a_program_of_the_user_cannot_pose_as_the_manager(Seat::alice(&machine))
}

#[test]
fn no_program_poses_as_the_manager_on_systemd_252() -> Result<()> {
    let machine = Machine::shared(Systemd::V252)?;
    a_program_of_the_user_cannot_pose_as_the_manager(Seat::alice(&machine))
}
