//! Shared folders: what the guest sees of the host, and nothing beside it.

use std::fs;

use aegis_tests::cache;
use aegis_tests::instance::Instance;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use anyhow::Result;

/// Shares a folder, looks at it from both sides, and gives the file system's name.
fn shared_both_ways(seat: Seat<'_>, handle: &str) -> Result<String> {
    // Of the user who owns the VM.
    let (place, owner) = match seat.user() {
        User::Alice => ("/home/alice", "alice"),
        User::Root => ("/srv", "aegis"),
    };
    let folder = format!("{place}/shared-{handle}");
    let file = |name: &str| format!("{folder}/{name}");
    seat.machine()
        .write_file(seat.user(), &file("from-host"), b"hello guest\n")?;
    // Open to all: other users of the guest write too where the folder's mode lets
    // them. From the beginning, since guests remember a mode for a while.
    seat.run(&format!("chown -R {owner} {folder} && chmod 777 {folder}"))?
        .success()?;
    let instance = Instance::start(seat, handle, &format!("--workspace {folder}"))?;

    assert_eq!(instance.exec_ok("cat /workspace/from-host")?, "hello guest");
    instance.exec_ok("echo hello host >/workspace/from-guest && mkdir /workspace/made && mv /workspace/from-host /workspace/made/")?;
    assert_eq!(
        seat.run(&format!("cat {folder}/from-guest"))?.success()?,
        "hello host"
    );
    assert_eq!(
        seat.run(&format!("cat {folder}/made/from-host"))?
            .success()?,
        "hello guest"
    );
    let owners = seat.run(&format!("stat -c %U {folder}/from-guest {folder}/made"))?;
    assert_eq!(
        owners.success()?,
        format!("{owner}\n{owner}"),
        "the guest's root is nobody special here"
    );
    assert!(
        instance
            .exec_with("--user 1234", "touch /workspace/by-1234")?
            .status
            .success()
    );
    assert_eq!(
        seat.run(&format!("stat -c %U {folder}/by-1234"))?
            .success()?,
        owner
    );
    let made =
        "mkdir /workspace/of-1234 && ln -s from-guest /workspace/link && rm /workspace/by-1234";
    let made = instance.exec_with("--user 1234", &format!("sh -c '{made}'"))?;
    assert!(made.status.success(), "{}", made.error_text());

    instance.act("stop")?;
    assert_eq!(instance.exec_ok("cat /workspace/from-guest")?, "hello host");
    let kind = instance.exec_ok("grep ' /workspace ' /proc/mounts | cut -d' ' -f3")?;
    instance.delete()?;
    seat.run(&format!("test -e {folder}/from-guest && rm -r {folder}"))?
        .success()?;
    Ok(kind)
}

/// Emulated guests, which all guests of the tests are, have their folder by 9p.
fn shared_both_ways_by_9p(seat: Seat<'_>) -> Result<()> {
    assert_eq!(shared_both_ways(seat, "space-plan9")?, "9p");
    Ok(())
}

#[test]
fn a_folder_is_shared_both_ways() -> Result<()> {
    shared_both_ways_by_9p(Seat::alice(&Machine::shared(Systemd::V257)?))
}

#[test]
fn system_mode_shares_a_folder_both_ways() -> Result<()> {
    shared_both_ways_by_9p(Seat::root(&Machine::shared(Systemd::V257)?))
}

/// Runs programs of the folder from pages that held other code before.
#[test]
fn programs_of_a_folder_run() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.run("mkdir -p programs")?.success()?;
    let instance = Instance::start(seat, "space-run", "--workspace /home/alice/programs")?;
    instance.exec_ok("cp /bin/busybox /workspace/")?;
    let rounds = "cd /workspace; for i in 1 2 3 4 5 6; do echo 3 >/proc/sys/vm/drop_caches; \
        for what in 'sha256sum busybox' 'sort /etc/passwd' 'gzip -c busybox' 'sh -c true'; do \
        ./busybox $what >/dev/null || exit 1; done; done";
    instance.exec_ok(rounds)?;
    instance.delete()?;
    seat.run("rm -r programs")?.success()?;
    Ok(())
}

#[test]
fn a_folder_is_shared_both_ways_on_systemd_252() -> Result<()> {
    shared_both_ways_by_9p(Seat::alice(&Machine::shared(Systemd::V252)?))
}

fn symlinks_lead_nowhere(machine: &Machine) -> Result<()> {
    let seat = Seat::alice(machine);
    machine.write_file(User::Alice, "/home/alice/outside/secret", b"host secret\n")?;
    machine.write_file(User::Alice, "/home/alice/inside/sub/file", b"fine\n")?;
    seat.run(
        "cd inside && ln -sfn /home/alice/outside/secret absolute \
         && ln -sfn ../outside/secret relative && ln -sfn ../outside folder \
         && ln -sfn sub/file within",
    )?
    .success()?;
    let instance = Instance::start(seat, "space-links", "--workspace /home/alice/inside")?;
    assert_eq!(instance.exec_ok("cat /workspace/within")?, "fine");
    for path in [
        "absolute",
        "relative",
        "folder/secret",
        "../outside/secret",
        "sub/../../outside/secret",
    ] {
        let read = instance.exec(&format!("cat /workspace/{path}"))?;
        assert!(!read.status.success(), "{path}: {}", read.text());
        let write = instance.exec(&format!("echo stolen >/workspace/{path}"))?;
        assert!(!write.text().contains("host secret"), "{path}");
    }
    // A folder that becomes a link while it is used, and links made in the guest.
    instance.exec_ok("ln -s ../../../../home/alice/outside/secret /workspace/made")?;
    assert!(!instance.exec("cat /workspace/made")?.status.success());
    let race = "cd /workspace; mkdir d; echo harmless >d/secret; (i=0; while [ $i -lt 300 ]; do i=$((i+1)); mv d e; ln -s ../outside d; rm d; mv e d; done) & \
                i=0; while [ $i -lt 300 ]; do i=$((i+1)); cat d/secret 2>/dev/null; done; wait; true";
    assert!(!instance.exec_ok(race)?.contains("host secret"));
    assert_eq!(
        machine.read_file("/home/alice/outside/secret")?,
        b"host secret\n"
    );
    instance.delete()?;
    seat.run("rm -r inside outside")?.success()?;
    Ok(())
}

#[test]
fn a_link_out_of_the_folder_does_not_reach_the_hosts_files() -> Result<()> {
    symlinks_lead_nowhere(&*Machine::temporary("test-space-257", Systemd::V257)?)
}

#[test]
fn a_link_out_of_the_folder_does_not_reach_the_hosts_files_on_systemd_252() -> Result<()> {
    symlinks_lead_nowhere(&*Machine::temporary("test-space-252", Systemd::V252)?)
}

#[test]
fn a_named_workspace_outlives_its_instances() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let first = Instance::start(seat, "space-first", "--workspace space-name")?;
    first.exec_ok("echo kept >/workspace/file")?;
    first.delete()?;
    let second = Instance::start(seat, "space-second", "--workspace space-name")?;
    assert_eq!(second.exec_ok("cat /workspace/file")?, "kept");
    let run = seat.aegis("run --workspace space-name -- cat /workspace/file")?;
    assert_eq!(run.success()?, "kept");
    second.delete()?;
    seat.run(&format!("rm -r {}/workspaces/space-name", seat.home()))?
        .success()?;
    Ok(())
}

/// Folders as people name them, and one with everything that units cannot carry.
const ODD_NAMES: [&str; 2] = ["My Project", "it's a \"site\": 100% \\ ünï $HOME;"];

fn odd_names_are_shared(machine: &Machine) -> Result<()> {
    let seat = Seat::alice(machine);
    for (number, name) in ODD_NAMES.iter().enumerate() {
        let folder = format!("/home/alice/{name}");
        let quoted = quote(&folder);
        seat.run(&format!(
            "mkdir -p {quoted} && echo hello guest >{quoted}/from-host && chmod 777 {quoted}"
        ))?
        .success()?;
        let handle = format!("space-odd-{number}");
        let instance = Instance::start(seat, &handle, &format!("--workspace {quoted}"))?;
        assert_eq!(instance.exec_ok("cat /workspace/from-host")?, "hello guest");

        // The manager writes its units down and reads them again, which is where
        // such names get lost; the next use starts the VM from what it read.
        seat.systemctl("daemon-reload")?.success()?;
        instance.act("stop")?;
        instance.exec_ok("echo hello host >/workspace/from-guest")?;
        assert_eq!(
            seat.run(&format!("cat {quoted}/from-guest"))?.success()?,
            "hello host"
        );
        let shown = instance.info()?;
        assert!(shown.contains(name), "{shown}");
        instance.delete()?;
        seat.run(&format!(
            "test -e {quoted}/from-guest && rm -r {quoted} && ! test -e {}/names/{handle}",
            seat.runtime()
        ))?
        .success()?;
    }
    Ok(())
}

#[test]
fn a_folder_may_have_any_name() -> Result<()> {
    odd_names_are_shared(&Machine::shared(Systemd::V257)?)
}

#[test]
fn a_folder_may_have_any_name_on_systemd_252() -> Result<()> {
    odd_names_are_shared(&Machine::shared(Systemd::V252)?)
}

#[test]
fn a_home_may_have_any_name() -> Result<()> {
    let machine = Machine::temporary("test-odd-home", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let home = "/home/alice/My Things: all";
    let example = cache::repository().join("docs/examples/echo");
    for (name, mode) in [("echo.json", "644"), ("echo-gateway", "755")] {
        let path = format!("{home}/kits/{name}");
        machine.write_file(User::Alice, &path, &fs::read(example.join(name))?)?;
        seat.run(&format!("chmod {mode} '{path}'"))?.success()?;
    }
    seat.systemctl(&format!("set-environment 'AEGIS_HOME={home}'"))?
        .success()?;
    let flags = "--kit echo --workspace named --volume named:/named";
    let instance = Instance::start(seat, "odd-home", flags)?;
    instance.exec_ok("echo kept >/workspace/file && echo too >/named/file")?;
    let daemon = instance.daemon_pid("echo-gateway")?;

    seat.systemctl("daemon-reload")?.success()?;
    seat.systemctl(&format!(
        "restart '{}'",
        instance.daemon_unit("echo-gateway")
    ))?
    .success()?;
    assert_ne!(instance.daemon_pid("echo-gateway")?, daemon);
    instance.act("stop")?;
    let both = "cat /workspace/file /named/file";
    assert_eq!(instance.exec_ok(both)?, "kept\ntoo");
    instance.delete()?;
    seat.run(&format!(
        "test -e '{home}/workspaces/named/file' && test -e '{home}/volumes/named/file'"
    ))?
    .success()?;
    Ok(())
}

/// A word of a shell line that stands for itself.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[test]
fn a_folder_that_is_not_there_is_named() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::expected(seat, "space-missing")?;
    let refused =
        seat.aegis("instance start --name space-missing --workspace /home/alice/not-there")?;
    assert!(!refused.status.success());
    let said = refused.error_text();
    assert!(
        said.contains("WorkspaceUnavailable") && said.contains("/home/alice/not-there"),
        "{said}"
    );
    assert!(
        !instance.try_act("info")?.status.success(),
        "nothing is left of it"
    );
    Ok(())
}
