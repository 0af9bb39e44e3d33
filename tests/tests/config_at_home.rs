//! System mode: the config of an instance's daemons in the home of the user who made
//! the instance, brought to the daemons without trusting that home.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd, Temporary, User};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result};

/// What the instance is called, and so its config folders.
const HANDLE: &str = "at-home";
const FOLDER: &str = "/home/alice/.aegis/kits/at-home";
const FILE: &str = "/home/alice/.aegis/kits/at-home/gateway.json";
const SYSTEM_FILE: &str = "/etc/aegis/kits/at-home/gateway.json";

#[test]
fn config_in_the_home_of_who_made_the_instance_counts_in_system_mode() -> Result<()> {
    counts(Systemd::V257)
}

#[test]
fn config_in_the_home_of_who_made_the_instance_counts_in_system_mode_on_systemd_252() -> Result<()>
{
    counts(Systemd::V252)
}

/// A machine of its own: alice becomes one of those who may manage the system's
/// instances.
fn machine(name: &str, systemd: Systemd) -> Result<Temporary> {
    let machine = Machine::temporary(name, systemd)?;
    let line = "usermod --append --groups aegis alice";
    machine.run(User::Root, line)?.success()?;
    let seat = Seat::root(&machine);
    kit::install(seat, "shell", &["shell-gateway"])?;
    Ok(machine)
}

/// Makes the instance of the kit for a user, without a guest.
fn make(seat: Seat<'_>, user: User, handle: &str) -> Result<()> {
    let call = "busctl --system -- call org.aegisvm.Aegis1 /org/aegisvm/Aegis1 \
                org.aegisvm.Aegis1.Manager CreateInstance 'sa{sv}a{sv}'";
    let line = format!("{call} {handle} 1 kit s shell 1 start b false");
    seat.machine().run(user, &line)?.success()?;
    let socket = format!("aegis-vm-{handle}.socket");
    wait_until(DEADLINE, "the instance to be made", || {
        Ok(seat.active_state(&socket)? == "active")
    })
}

/// Waits for words of the daemon.
fn says(seat: Seat<'_>, instance: &Instance<'_>, words: &str) -> Result<()> {
    let unit = instance.daemon_unit("gateway");
    wait_until(DEADLINE, words, || {
        Ok(seat.journal(&unit, "cat")?.contains(words))
    })
    .with_context(|| seat.journal(&unit, "cat").unwrap_or_default())
}

/// Waits for words of `instance info`.
fn shows(instance: &Instance<'_>, words: &str) -> Result<()> {
    wait_until(DEADLINE, words, || Ok(instance.info()?.contains(words)))
        .with_context(|| instance.info().unwrap_or_default())
}

fn counts(systemd: Systemd) -> Result<()> {
    let machine = machine(&format!("test-home-{}", systemd.number()), systemd)?;
    let seat = Seat::root(&machine);
    let write = |text: &str| machine.write_file(User::Alice, FILE, text.as_bytes());
    make(seat, User::Alice, HANDLE)?;
    let instance = Instance::existing(seat, HANDLE);
    says(seat, &instance, "\"hello\"")?;
    shows(&instance, &format!("config: {SYSTEM_FILE}"))?;

    // The folder comes later, and nobody else may look into it.
    machine
        .run(User::Alice, &format!("umask 077; mkdir -p {FOLDER}"))?
        .success()?;
    write(r#"{"greeting": "at home"}"#)?;
    machine
        .run(User::Alice, &format!("chmod 600 {FILE}"))?
        .success()?;
    says(seat, &instance, "at home")?;
    shows(&instance, &format!("config: {FILE}"))?;
    let hash = machine
        .run(User::Alice, &format!("sha256sum {FILE} | cut -c1-12"))?
        .success()?;
    shows(&instance, &format!("sha256 {hash}"))?;

    let pid = instance.daemon_pid("gateway")?;
    write("{\n \"greeting\": }")?;
    shows(
        &instance,
        "config not applied: it is not valid JSON: expected value at line 2",
    )?;
    assert_eq!(instance.daemon_pid("gateway")?, pid);

    // As editors do it; then the whole folder is another one.
    let line = format!("echo '{{\"greeting\": \"renamed\"}}' >{FILE}~ && mv {FILE}~ {FILE}");
    machine.run(User::Alice, &line)?.success()?;
    says(seat, &instance, "renamed")?;
    machine
        .run(User::Alice, &format!("mv {FOLDER} {FOLDER}-old"))?
        .success()?;
    shows(&instance, &format!("config: {SYSTEM_FILE}"))?;
    write(r#"{"greeting": "another folder"}"#)?;
    says(seat, &instance, "another folder")?;

    // What happens while aegisd is away is found, and what was found before is not
    // done again.
    seat.systemctl("stop aegisd.service")?.success()?;
    write(r#"{"greeting": "meanwhile"}"#)?;
    seat.wait_for_aegisd()?;
    says(seat, &instance, "meanwhile")?;
    // The last change counts, whoever made it.
    machine.write_file(User::Root, SYSTEM_FILE, br#"{"greeting": "of the system"}"#)?;
    says(seat, &instance, "of the system")?;
    let pid = instance.daemon_pid("gateway")?;
    seat.kill_aegisd()?;
    seat.wait_for_aegisd()?;
    shows(&instance, &format!("config: {FILE}"))?;
    assert_eq!(instance.daemon_pid("gateway")?, pid);
    write(r#"{"greeting": "home again"}"#)?;
    says(seat, &instance, "home again")?;

    instance.act("delete --purge")?;
    machine
        .run(User::Alice, &format!("test -e {FILE}"))?
        .success()?;
    let started = machine.run(
        User::Alice,
        &format!("aegisctl --system instance start --name {HANDLE} --kit shell"),
    )?;
    let told = started.error_text();
    assert!(told.contains(&format!("its daemons use {FILE}")), "{told}");
    Ok(())
}

#[test]
fn nothing_of_others_is_read_by_way_of_a_home_in_system_mode() -> Result<()> {
    let machine = machine("test-home-tricks", Systemd::V257)?;
    let seat = Seat::root(&machine);
    let root = |line: &str| machine.run(User::Root, line)?.success();
    let alice = |line: &str| machine.run(User::Alice, line)?.success();
    root(
        "mkdir -p -m 700 /root/private && echo '{\"greeting\": \"secret\"}' >/root/private/gateway.json",
    )?;
    make(seat, User::Alice, HANDLE)?;
    let instance = Instance::existing(seat, HANDLE);
    says(seat, &instance, "\"hello\"")?;
    let pid = instance.daemon_pid("gateway")?;

    let tricks = [
        (
            format!("mkdir -p {FOLDER} && ln -s /root/private/gateway.json {FILE}"),
            format!("{FILE} is a link"),
        ),
        (
            format!("rm {FILE} && mkfifo {FILE}"),
            format!("{FILE} is not a file"),
        ),
        (
            format!("rm {FILE} && mkdir {FILE}"),
            format!("{FILE} is not a file"),
        ),
        (
            format!("rmdir {FILE} && truncate --size=2M {FILE}"),
            format!("{FILE} is larger than 1 MiB"),
        ),
        (
            format!("rm -r {FOLDER} && ln -s /root/private {FOLDER}"),
            format!("{FOLDER} is a link"),
        ),
    ];
    for (trick, words) in &tricks {
        alice(trick)?;
        shows(&instance, &format!("config not applied: {words}"))?;
    }
    // A link that is no symbolic one, which a lax kernel lets alice make.
    alice(&format!("rm {FOLDER} && mkdir {FOLDER}"))?;
    root(&format!(
        "mv /root/private/gateway.json /home/ && ln /home/gateway.json {FILE}"
    ))?;
    shows(
        &instance,
        &format!("config not applied: {FILE} does not belong to the user"),
    )?;
    alice(&format!("mv {FOLDER} {FOLDER}-others"))?;
    shows(&instance, &format!("config: {SYSTEM_FILE}"))?;
    assert_eq!(
        instance.daemon_pid("gateway")?,
        pid,
        "none of it was applied"
    );
    let said = seat.journal(&instance.daemon_unit("gateway"), "cat")?;
    assert!(!said.contains("secret"), "{said}");
    let brought = root("cat /etc/aegis/kits/at-home/gateway.json")?;
    assert!(brought.contains("hello"), "{brought}");

    // The daemon, in whose folder the copy is made, may have laid a link there.
    root(&format!(
        "rm {SYSTEM_FILE} && ln -s /root/private/target {SYSTEM_FILE}"
    ))?;
    machine.write_file(User::Alice, FILE, br#"{"greeting": "plain"}"#)?;
    says(seat, &instance, "plain")?;
    root("test ! -e /root/private/target")?;

    // One instance is one user's.
    make(seat, User::Root, "of-root")?;
    let of_root = Instance::existing(seat, "of-root");
    let file = "/home/alice/.aegis/kits/of-root/gateway.json";
    machine.write_file(User::Alice, file, br#"{"greeting": "mine"}"#)?;
    machine.write_file(User::Alice, FILE, br#"{"greeting": "later"}"#)?;
    says(seat, &instance, "later")?;
    shows(&of_root, "config: /etc/aegis/kits/of-root/gateway.json")?;
    let said = seat.journal(&of_root.daemon_unit("gateway"), "cat")?;
    assert!(!said.contains("mine"), "{said}");
    Ok(())
}
