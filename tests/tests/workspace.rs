//! Shared folders: what the guest sees of the host, and nothing beside it.

use aegis_tests::instance::Instance;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use anyhow::Result;

fn shared_both_ways(seat: Seat<'_>, handle: &str) -> Result<String> {
    let folder = format!("/home/alice/shared-{handle}");
    let file = |name: &str| format!("{folder}/{name}");
    seat.machine()
        .write_file(User::Alice, &file("from-host"), b"hello guest\n")?;
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
        "alice\nalice",
        "the guest's root is nobody special here"
    );
    // Other users of the guest write too, where the folder's mode lets others.
    seat.run(&format!("chmod 777 {folder}"))?.success()?;
    assert!(
        instance
            .exec_with("--user 1234", "touch /workspace/by-1234")?
            .status
            .success()
    );
    assert_eq!(
        seat.run(&format!("stat -c %U {folder}/by-1234"))?
            .success()?,
        "alice"
    );

    instance.act("stop")?;
    assert_eq!(instance.exec_ok("cat /workspace/from-guest")?, "hello host");
    let kind = instance.exec_ok("grep ' /workspace ' /proc/mounts | cut -d' ' -f3")?;
    instance.delete()?;
    seat.run(&format!("test -e {folder}/from-guest && rm -r {folder}"))?
        .success()?;
    Ok(kind)
}

#[test]
fn a_folder_is_shared_both_ways_by_virtiofs() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    assert_eq!(
        shared_both_ways(Seat::alice(&machine), "space-virtiofs")?,
        "virtiofs"
    );
    Ok(())
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
