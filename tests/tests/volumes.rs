//! Volumes: what of the host's files an instance sees where, named ones, and changing
//! them.

use aegis_tests::instance::Instance;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use anyhow::Result;

/// A folder of the one who owns the VMs of a seat, with nothing in it.
fn folder(seat: Seat<'_>, name: &str) -> Result<String> {
    let (place, owner) = match seat.user() {
        User::Alice => ("/home/alice", "alice"),
        User::Root => ("/srv", "aegis"),
    };
    let folder = format!("{place}/{name}");
    seat.run(&format!(
        "rm -rf {folder} && mkdir -p {folder} && chown {owner} {folder} && chmod 755 {folder}"
    ))?
    .success()?;
    Ok(folder)
}

/// Says that a command of the guest fails for want of a writable file system.
fn is_read_only(instance: &Instance<'_>, command: &str) -> Result<bool> {
    let refused = instance.exec(command)?;
    Ok(!refused.status.success() && refused.error_text().contains("Read-only file system"))
}

/// Folders and a file, one of them below another, more than a VM has slots for.
fn files_of_the_host_are_seen(seat: Seat<'_>, handle: &str) -> Result<()> {
    let top = folder(seat, &format!("vol-{handle}"))?;
    let owner = seat.run(&format!("stat -c %U {top}"))?.success()?;
    seat.run(&format!(
        "cd {top} && mkdir data sub ro below 'odd: name' && echo one >data/name && echo two >sub/name \
         && echo three >ro/name && echo four >file && echo five >'odd: name/name' && chown -R {owner} ."
    ))?
    .success()?;
    let flags = format!(
        "--volume {top}/data:/data --volume {top}/sub:/data/sub -v {top}/ro:/mnt/ro:ro \
         -v {top}/file:/etc/app/file:ro -v '{top}/odd: name:/odd/name' -v {top}/below:/run/app \
         -v {handle}-a:/a -v {handle}-b:/b:rw -v {handle}-a:/again:ro"
    );
    let instance = Instance::start(seat, handle, &flags)?;
    let read = "cat /data/name /data/sub/name /mnt/ro/name /etc/app/file /odd/name/name";
    assert_eq!(instance.exec_ok(read)?, "one\ntwo\nthree\nfour\nfive");
    instance.exec_ok(
        "echo guest >/data/from-guest && mv /data/sub/name /data/sub/moved && echo b >/b/file \
         && echo a >/a/file && echo run >/run/app/file",
    )?;
    assert_eq!(instance.exec_ok("cat /again/file")?, "a");
    let seen = seat.run(&format!(
        "cat {top}/data/from-guest {top}/sub/moved {top}/below/file; stat -c %U {top}/data/from-guest"
    ))?;
    assert_eq!(seen.success()?, format!("guest\ntwo\nrun\n{owner}"));
    seat.run(&format!("echo host >{top}/data/from-host"))?
        .success()?;
    assert_eq!(instance.exec_ok("cat /data/from-host")?, "host");
    for command in [
        "touch /mnt/ro/new",
        "sh -c 'echo x >/etc/app/file'",
        "touch /again/new",
        "rm /mnt/ro/name",
        "sh -c 'mount -o remount,rw /mnt/ro; touch /mnt/ro/new'",
    ] {
        assert!(is_read_only(&instance, command)?, "{command}");
    }
    // Nothing of the others, and no mount that has them all.
    assert_eq!(
        instance.exec_ok("ls /mnt/ro /mnt/ro/..")?,
        "/mnt/ro:\nname\n\n/mnt/ro/..:\nro"
    );
    assert!(
        !instance
            .exec("grep ' /share ' /proc/mounts")?
            .status
            .success()
    );

    instance.act("stop")?;
    assert_eq!(
        instance.exec_ok("cat /data/from-guest /data/sub/moved")?,
        "guest\ntwo"
    );
    let info = instance.info()?;
    for volume in [
        format!("{top}/data:/data"),
        format!("{top}/odd: name:/odd/name"),
        format!("{handle}-a:/again:ro"),
    ] {
        assert!(info.contains(&volume), "{volume}: {info}");
    }
    instance.delete()?;
    let removed = format!("volume remove {handle}-a {handle}-b");
    seat.aegis_ok(&removed)?;
    seat.run(&format!("test -e {top}/data/from-guest && rm -r {top}"))?
        .success()?;
    Ok(())
}

#[test]
fn folders_and_files_of_the_host_are_seen_at_their_places() -> Result<()> {
    files_of_the_host_are_seen(Seat::alice(&Machine::shared(Systemd::V257)?), "vol-seen")
}

#[test]
fn folders_and_files_of_the_host_are_seen_on_systemd_252() -> Result<()> {
    files_of_the_host_are_seen(Seat::alice(&Machine::shared(Systemd::V252)?), "vol-seen")
}

#[test]
fn system_mode_shows_folders_and_files_of_the_host() -> Result<()> {
    files_of_the_host_are_seen(Seat::root(&Machine::shared(Systemd::V257)?), "vol-seen-sys")
}

/// A read-only root, whose places have to be made before it is one.
fn a_read_only_root_has_volumes(seat: Seat<'_>) -> Result<()> {
    let top = folder(seat, "vol-sealed")?;
    let flags = format!(
        "--rootfs ro -v {top}:/made/here -v vol-sealed:/tmp/below -v /etc/os-release:/release:ro"
    );
    let line = "echo x >/made/here/file && echo y >/tmp/below/file && cat /release /made/here/file \
                && ! touch /made/file 2>/dev/null && echo sealed";
    let run = seat
        .aegis(&format!("run {flags} -- sh -c '{line}'"))?
        .success()?;
    assert!(run.ends_with("x\nsealed"), "{run}");
    assert_eq!(seat.run(&format!("cat {top}/file"))?.success()?, "x");
    let again = seat.aegis("run -v vol-sealed:/x:ro -- cat /x/file")?;
    assert_eq!(again.success()?, "y");
    seat.aegis_ok("volume remove vol-sealed")?;
    seat.run(&format!("rm -r {top}"))?.success()?;
    Ok(())
}

#[test]
fn a_root_that_is_read_only_has_volumes() -> Result<()> {
    a_read_only_root_has_volumes(Seat::alice(&Machine::shared(Systemd::V257)?))
}

fn named_volumes_outlive(seat: Seat<'_>) -> Result<()> {
    let first = Instance::start(seat, "vol-first", "-v vol-kept:/data")?;
    first.exec_ok("echo kept >/data/file")?;
    let second = Instance::start(
        seat,
        "vol-second",
        "-v vol-kept:/elsewhere:ro -v vol-free:/f",
    )?;
    assert_eq!(second.exec_ok("cat /elsewhere/file")?, "kept");
    first.exec_ok("echo more >>/data/file")?;
    assert_eq!(second.exec_ok("cat /elsewhere/file")?, "kept\nmore");

    let refused = seat.aegis("volume remove vol-kept")?;
    let said = refused.error_text();
    assert!(
        said.contains("VolumeInUse") && said.contains("vol-first, vol-second"),
        "{said}"
    );
    first.delete()?;
    second.delete()?;
    let listed = seat.aegis_ok("volume list --quiet")?;
    assert!(listed.lines().any(|name| name == "vol-kept"), "{listed}");
    let shown = seat.aegis_ok("volume inspect vol-kept")?;
    assert!(
        shown.contains(&format!("{}/volumes/vol-kept", seat.home())),
        "{shown}"
    );
    let run = seat.aegis("run -v vol-kept:/data -- cat /data/file")?;
    assert_eq!(run.success()?, "kept\nmore");
    seat.aegis_ok("volume remove vol-kept vol-free")?;
    assert!(!seat.aegis("volume inspect vol-kept")?.status.success());
    Ok(())
}

#[test]
fn a_named_volume_outlives_its_instances_and_is_shared() -> Result<()> {
    named_volumes_outlive(Seat::alice(&Machine::shared(Systemd::V257)?))
}

#[test]
fn system_mode_keeps_named_volumes() -> Result<()> {
    named_volumes_outlive(Seat::root(&Machine::shared(Systemd::V257)?))
}

#[test]
fn an_empty_named_volume_gets_what_the_image_has() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let run = |volume: &str, line: &str| seat.aegis(&format!("run -v {volume} -- sh -c '{line}'"));
    let line = "test -L /usr/sbin/chroot && rm /usr/sbin/chroot && echo mine >/usr/sbin/mine";
    run("vol-filled:/usr/sbin", line)?.success()?;
    let line = "test -e /usr/sbin/chroot || cat /usr/sbin/mine";
    assert_eq!(run("vol-filled:/usr/sbin", line)?.success()?, "mine");
    // Neither a read-only one nor a folder of the user's is filled.
    let line = "ls /usr/sbin | wc -l";
    assert_eq!(run("vol-bare:/usr/sbin:ro", line)?.success()?, "0");
    let top = folder(seat, "vol-bare")?;
    assert_eq!(run(&format!("{top}:/usr/sbin"), line)?.success()?, "0");
    seat.aegis_ok("volume remove vol-filled vol-bare")?;
    seat.run(&format!("rmdir {top}"))?.success()?;
    Ok(())
}

fn volumes_change(seat: Seat<'_>) -> Result<()> {
    let top = folder(seat, "vol-changed")?;
    seat.run(&format!("echo host >{top}/file"))?.success()?;
    let instance = Instance::start(seat, "vol-changed", "-v vol-before:/before")?;
    instance.exec_ok("echo before >/before/file")?;
    let update = |flags: &str| seat.aegis_ok(&format!("instance update vol-changed {flags}"));
    let said = update(&format!("-v '{top}:/after' --volume-remove /before"))?;
    assert!(said.contains("When its VM starts next: volumes"), "{said}");
    // The VM has what it began with, which nobody may remove under it.
    assert_eq!(instance.exec_ok("cat /before/file")?, "before");
    let refused = seat.aegis("volume remove vol-before")?.error_text();
    assert!(refused.contains("used by vol-changed"), "{refused}");

    instance.act("restart")?;
    assert_eq!(instance.exec_ok("cat /after/file; ls /before")?, "host");
    assert!(
        !instance.info()?.contains("starts next"),
        "{}",
        instance.info()?
    );
    seat.aegis_ok("volume remove vol-before")?;

    // At rest it is so at once, and the next use finds it.
    instance.act("stop")?;
    update(&format!("-v {top}:/after:ro"))?;
    assert!(is_read_only(&instance, "touch /after/new")?);
    let missing = seat.aegis("instance update vol-changed --volume-remove /nowhere")?;
    assert!(missing.error_text().contains("no volume at /nowhere"));
    let differs = seat.aegis("instance start --name vol-changed -v other:/after")?;
    let said = differs.error_text();
    assert!(
        said.contains("volume") && said.contains("other:/after"),
        "{said}"
    );
    instance.delete()?;
    seat.run(&format!("rm -r {top}"))?.success()?;
    Ok(())
}

#[test]
fn volumes_change_with_the_next_start() -> Result<()> {
    volumes_change(Seat::alice(&Machine::shared(Systemd::V257)?))
}

#[test]
fn volumes_change_with_the_next_start_on_systemd_252() -> Result<()> {
    volumes_change(Seat::alice(&Machine::shared(Systemd::V252)?))
}

/// A VM that is woken while aegisd does not run has what its unit was made with.
#[test]
fn a_change_waits_for_aegisd() -> Result<()> {
    let machine = Machine::temporary("test-volumes", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let top = folder(seat, "vol-late")?;
    let flags = "--expose 18477:80 -v vol-early:/www";
    let instance = Instance::start(seat, "vol-late", &format!("{flags} -d -- httpd -f -h /www"))?;
    instance.exec_ok("echo early >/www/index.html")?;
    seat.run(&format!("echo late >{top}/index.html"))?
        .success()?;
    seat.aegis_ok(&format!("instance update vol-late -v {top}:/www"))?;
    let stop_aegisd = "sockets=$(systemctl --user list-units --plain --no-legend 'aegisd*.socket' \
                       | cut -d' ' -f1); systemctl --user stop $sockets aegisd.service; echo $sockets";
    let sockets = seat.run(stop_aegisd)?.success()?;
    seat.systemctl(&format!("stop {}", instance.vm_unit()))?
        .success()?;
    let fetch = "curl -sS --retry 5 --retry-all-errors http://127.0.0.1:18477/";
    assert_eq!(seat.run(fetch)?.success()?, "early");
    seat.systemctl(&format!("start {sockets}"))?.success()?;
    instance.act("restart")?;
    assert_eq!(seat.run(fetch)?.success()?, "late");
    instance.delete()?;
    Ok(())
}

#[test]
fn unused_volumes_are_pruned() -> Result<()> {
    let machine = Machine::temporary("test-volumes-prune", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "vol-user", "-v used:/data")?;
    for name in ["free", "other"] {
        seat.aegis_ok(&format!("volume create {name}"))?;
    }
    seat.run(&format!("echo x >{}/volumes/free/file", seat.home()))?
        .success()?;
    let would = seat.aegis_ok("volume prune --dry-run")?;
    assert_eq!(would, "Would remove 2 volumes: free, other");
    let removed = seat.aegis_ok("volume prune --force")?;
    assert_eq!(removed, "Removed 2 volumes: free, other");
    assert_eq!(seat.aegis_ok("volume list --quiet")?, "used");
    assert!(instance.exec("touch /data/file")?.status.success());
    Ok(())
}

#[test]
fn what_cannot_be_a_volume_is_refused_by_name() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::expected(seat, "vol-refused")?;
    for (flags, symbol, words) in [
        (
            "-v /home/alice/none:/x",
            "VolumeUnavailable",
            "/home/alice/none",
        ),
        (
            "-v /dev/null:/x",
            "VolumeUnavailable",
            "neither a folder nor a file",
        ),
        (
            "-v /etc:/",
            "InvalidArgument",
            "belongs to the guest's system",
        ),
        (
            "-v /etc:/proc/x",
            "InvalidArgument",
            "belongs to the guest's system",
        ),
        ("-v /etc:/a/../b", "InvalidArgument", "/a/../b"),
        ("-v /etc:/a -v /usr:/a/", "InvalidArgument", "two volumes"),
        (
            "-v /etc:/workspace --workspace w",
            "InvalidArgument",
            "the workspace is",
        ),
        ("-v .x:/a", "InvalidArgument", ".x"),
    ] {
        let refused = seat.aegis(&format!("instance start --name vol-refused {flags}"))?;
        let said = refused.error_text();
        assert!(!refused.status.success(), "{flags}");
        assert!(
            said.contains(symbol) && said.contains(words),
            "{flags}: {said}"
        );
        assert!(!instance.try_act("info")?.status.success(), "{flags}");
    }
    // A place that cannot be made is told by the guest.
    let refused = seat
        .aegis("run -v /etc:/etc/passwd/x:ro -- true")?
        .error_text();
    assert!(refused.contains("/etc/passwd"), "{refused}");
    Ok(())
}

#[test]
fn a_source_that_went_away_is_named_at_the_next_start() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let top = folder(seat, "vol-gone")?;
    let instance = Instance::start(seat, "vol-gone", &format!("-v {top}:/data"))?;
    instance.act("stop")?;
    seat.run(&format!("rmdir {top}"))?.success()?;
    let refused = seat.aegis("instance start --name vol-gone")?.error_text();
    assert!(
        refused.contains("VolumeUnavailable") && refused.contains(&top),
        "{refused}"
    );
    seat.run(&format!("mkdir {top}"))?.success()?;
    instance.start_again()?;
    instance.delete()?;
    seat.run(&format!("rmdir {top}"))?.success()?;
    Ok(())
}
