//! What people and hosts get wrong: each is a clear error with its symbol, and
//! nothing half-made is left.

use aegis_tests::instance::Instance;
use aegis_tests::inventory::{Inventory, is_remembered};
use aegis_tests::machine::{Machine, Output, Systemd, Temporary, User};
use aegis_tests::seat::Seat;
use anyhow::Result;

/// The symbol is named, people read a sentence, and nothing is on standard
/// output, where data would be.
fn assert_refused(output: &Output, symbol: &str, words: &[&str]) {
    let said = output.error_text();
    assert!(!output.status.success(), "it succeeded: {}", output.text());
    assert!(said.contains(symbol), "no {symbol} in: {said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    assert_eq!(output.text(), "");
    for bad in ["panicked", "RUST_BACKTRACE", "Error {"] {
        assert!(!said.contains(bad), "{said}");
    }
}

/// A machine whose aegisd runs, and what it holds.
fn quiet(name: &str) -> Result<(Temporary, Inventory)> {
    let machine = Machine::temporary(name, Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    let inventory = Inventory::take(seat)?;
    Ok((machine, inventory))
}

#[test]
fn arguments() -> Result<()> {
    let (machine, before) = quiet("test-bad-arguments")?;
    let seat = Seat::alice(&machine);
    for handle in [
        "'a b'", "a/b", "a:b", "-", ".hidden", "'ä'", "../up", "x.json",
    ] {
        let refused = seat.aegis(&format!("instance start --name={handle}"))?;
        assert_refused(&refused, "", &["handle"]);
        let refused = seat.aegis(&format!("instance info -- {handle}"))?;
        assert_refused(&refused, "NotFound", &[]);
    }
    let long = "x".repeat(64);
    assert_refused(
        &seat.aegis(&format!("instance start --name {long}"))?,
        "InvalidHandle",
        &["63"],
    );

    for (flags, symbol, words) in [
        ("--memory 1", "InvalidArgument", &["memory"][..]),
        ("--memory lots", "", &["lots"]),
        ("--cpus 0", "InvalidArgument", &["CPU"]),
        ("--accel quantum", "", &["quantum"]),
        ("--expose 0", "", &["0"]),
        ("--expose 80/udp", "", &["udp"]),
        ("--expose web:80", "", &["web"]),
        ("--expose 99999:80", "", &["99999"]),
        (
            "--expose 18001:80 --expose 18001:81",
            "InvalidArgument",
            &["18001"],
        ),
        ("--env =value", "InvalidArgument", &["variable"]),
        (
            "--env NOT_SET_ANYWHERE",
            "InvalidArgument",
            &["NOT_SET_ANYWHERE"],
        ),
        ("--workspace 'a b'", "InvalidArgument", &["a b"]),
    ] {
        let refused = seat.aegis(&format!("instance start --name bad {flags}"))?;
        assert_refused(&refused, symbol, words);
        let refused = seat.aegis(&format!("run {flags} -- true"))?;
        assert_refused(&refused, symbol, words);
    }
    for (flags, symbol, word) in [
        ("--kit nobody", "KitNotFound", "nobody"),
        ("--workdir relative", "InvalidArgument", "relative"),
    ] {
        let refused = seat.aegis(&format!("instance start --name bad {flags}"))?;
        assert_refused(&refused, symbol, &[word]);
    }
    // No guest was started to find these out.
    for (flags, word) in [
        ("--user ''", "user"),
        ("--user a:b:c", "a:b:c"),
        ("--workdir relative", "relative"),
    ] {
        let refused = seat.aegis(&format!("run {flags} -- true"))?;
        assert_refused(&refused, "InvalidArgument", &[word]);
    }
    before.wait_until_restored(seat, is_remembered)
}

#[test]
fn an_unknown_flag_or_command_is_a_usage_error() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let usage = seat.aegis("--no-such-flag")?.code();
    assert_ne!(usage, 0);
    for line in [
        "instance start --no-such-flag",
        "instance list --no-such-flag",
        "run --no-such-flag -- true",
        "exec --no-such-flag x -- true",
        "no-such-command",
        "instance no-such-command",
        "instance info",
    ] {
        let refused = seat.aegis(line)?;
        assert_eq!(refused.code(), usage, "{line}: {}", refused.error_text());
        assert_eq!(refused.text(), "");
        assert!(!refused.error_text().is_empty());
    }
    let help = seat.aegis_ok("--help")?;
    for code in ["125", "126", "127"] {
        assert!(
            help.contains(code),
            "the table of exit codes is in --help: {help}"
        );
    }
    Ok(())
}

#[test]
fn names_that_exist_and_names_that_do_not() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "bad-taken", "")?;
    let qemu = instance.qemu_pid()?;
    for flags in [
        "--name bad-taken --memory 300",
        "--name BAD-taken -- sleep 5",
    ] {
        let refused = seat.aegis(&format!("instance start {flags}"))?;
        assert_refused(&refused, "AlreadyExists", &["bad-taken"]);
    }
    assert_eq!(instance.qemu_pid()?, qemu);
    for verb in [
        "info", "stop", "pause", "resume", "enable", "disable", "delete",
    ] {
        let refused = seat.aegis(&format!("instance {verb} bad-nobody"))?;
        assert_refused(&refused, "NotFound", &["bad-nobody"]);
    }
    assert_refused(&seat.aegis("logs bad-nobody")?, "NotFound", &["bad-nobody"]);
    assert_refused(
        &seat.aegis("exec bad-nobody -- true")?,
        "NotFound",
        &["bad-nobody"],
    );
    Ok(())
}

/// Starts in all ways while something is missing, and finds the reason each time.
fn everything_is_refused(seat: Seat<'_>, symbol: &str, words: &[&str]) -> Result<()> {
    assert_refused(&seat.aegis("run -- true")?, symbol, words);
    let instance = Instance::expected(seat, "bad-start")?;
    let refused = seat.aegis("instance start --name bad-start")?;
    assert_refused(&refused, symbol, words);
    // What could not be made is not there, so the same line works later.
    assert_refused(&instance.try_act("info")?, "NotFound", &[]);
    assert_eq!(seat.units()?, [""; 0], "nothing of it is left");
    let doctor = seat.aegis("doctor")?;
    let said = doctor.text() + &doctor.error_text();
    assert!(
        words.iter().all(|word| said.contains(word)),
        "doctor knows it: {said}"
    );
    Ok(())
}

#[test]
fn a_missing_kernel() -> Result<()> {
    let (machine, before) = quiet("test-bad-kernel")?;
    let seat = Seat::alice(&machine);
    let guest = "/usr/lib/aegisvm/guest";
    machine
        .run(
            User::Root,
            &format!("rm -rf {guest}/vmlinux {guest}/fallback"),
        )?
        .success()?;
    everything_is_refused(seat, "KernelMissing", &["kernel"])?;
    before.wait_until_restored(seat, is_remembered)
}

#[test]
fn a_missing_file_of_the_guest() -> Result<()> {
    let (machine, before) = quiet("test-bad-guest")?;
    let seat = Seat::alice(&machine);
    machine
        .run(User::Root, "rm /usr/lib/aegisvm/guest/base.squashfs")?
        .success()?;
    everything_is_refused(seat, "GuestFilesMissing", &["base.squashfs"])?;
    before.wait_until_restored(seat, is_remembered)
}

#[test]
fn no_qemu() -> Result<()> {
    let (machine, before) = quiet("test-bad-qemu")?;
    let seat = Seat::alice(&machine);
    machine
        .run(User::Root, "rm /usr/bin/qemu-system-*")?
        .success()?;
    everything_is_refused(seat, "QemuMissing", &["qemu"])?;
    before.wait_until_restored(seat, is_remembered)
}

#[test]
fn a_qemu_that_is_too_old() -> Result<()> {
    let (machine, before) = quiet("test-bad-old")?;
    let seat = Seat::alice(&machine);
    let script = include_bytes!("../clients/old_qemu.py");
    machine.write_file(User::Root, "/root/old_qemu.py", script)?;
    let line = "python3 old_qemu.py old && mv -f old /usr/bin/qemu-system-x86_64 && rm old_qemu.py";
    machine.run(User::Root, line)?.success()?;
    everything_is_refused(seat, "QemuTooOld", &["4.2"])?;
    before.wait_until_restored(seat, is_remembered)
}

/// A command line of another ordinary user, bob, with a clean environment.
fn as_bob(machine: &Machine, line: &str) -> Result<Output> {
    machine.run(
        User::Root,
        &format!(
            "cd /home/bob && exec setpriv --reuid=bob --regid=bob --init-groups \
             env -i HOME=/home/bob USER=bob PATH=/usr/bin:/bin {line}"
        ),
    )
}

#[test]
fn no_service_manager() -> Result<()> {
    let machine = Machine::temporary("test-bad-manager", Systemd::V257)?;
    machine
        .run(User::Root, "useradd --create-home bob")?
        .success()?;
    for command in ["status", "run -- true", "instance list", "up"] {
        let refused = as_bob(&machine, &format!("aegisctl {command}"))?;
        assert_refused(&refused, "NoUserSession", &["hint:", "enable-linger"]);
        // Without /run there is no trace of a service manager at all.
        let line = format!("mount -t tmpfs none /run && exec aegisctl {command}");
        let refused = machine.run(User::Root, &format!("unshare --mount sh -c '{line}'"))?;
        assert_refused(&refused, "SupervisorUnavailable", &["hint:"]);
    }
    let left = machine.run(User::Root, "find /home/bob -name '.aegis*'; pgrep -u bob")?;
    assert_eq!(left.text(), "", "nothing of bob's is left");
    Ok(())
}

#[test]
fn no_lingering() -> Result<()> {
    let machine = Machine::temporary("test-bad-linger", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let lingering = seat.aegis("instance start --name bad-lingering")?;
    assert!(
        !lingering.error_text().contains("linger"),
        "{}",
        lingering.error_text()
    );

    machine
        .run(
            User::Root,
            "useradd --create-home bob && systemctl start user@$(id -u bob).service",
        )?
        .success()?;
    let started = as_bob(&machine, "aegisctl instance start --name short-lived")?;
    started.success()?;
    assert!(
        started.error_text().contains("loginctl enable-linger"),
        "it says what happens at logout and what to do: {}",
        started.error_text()
    );
    let doctor = as_bob(&machine, "aegisctl doctor")?;
    assert!((doctor.text() + &doctor.error_text()).contains("loginctl enable-linger"));
    Ok(())
}

#[test]
fn a_full_disk() -> Result<()> {
    let machine = Machine::temporary("test-bad-full", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    // Room for a registry and little else.
    machine
        .run(
            User::Root,
            "mkdir /home/alice/.aegis && mount -t tmpfs -o size=512k,uid=1000,gid=1000,mode=700 small /home/alice/.aegis",
        )?
        .success()?;
    seat.aegis_ok("up")?;
    let before = Inventory::take(seat)?;
    for (handle, filling) in [("bad-full", 0), ("bad-fuller", 600_000)] {
        // head ends with the disk, not with its count.
        seat.run(&format!("head -c {filling} /dev/zero >.aegis/filling"))?;
        let refused = seat.aegis(&format!("instance start --name {handle}"))?;
        assert_refused(&refused, "NoSpace", &[]);
        seat.run("rm .aegis/filling")?.success()?;
        assert_refused(
            &seat.aegis(&format!("instance info {handle}"))?,
            "NotFound",
            &[],
        );
        before.wait_until_restored(seat, is_remembered)?;
    }
    seat.aegis_ok("instance list")?;
    Ok(())
}

#[test]
fn a_registry_of_a_newer_version() -> Result<()> {
    let machine = Machine::temporary("test-bad-newer", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "bad-newer", "")?;
    let qemu = instance.qemu_pid()?;
    seat.aegis_ok("down")?;
    let registry = format!("{}/registry.db", seat.home());
    let edit = format!(
        "python3 -c 'import sqlite3; c = sqlite3.connect(\"{registry}\"); \
         c.execute(\"pragma user_version = 9999\"); c.execute(\"pragma wal_checkpoint(truncate)\")'"
    );
    seat.run(&edit)?.success()?;
    let content = machine.read_file(&registry)?;

    for command in ["instance list", "instance start --name other", "status"] {
        let refused = seat.aegis(command)?;
        let said = refused.text() + &refused.error_text();
        assert!(said.contains("RegistryTooNew"), "{command}: {said}");
    }
    assert_eq!(machine.read_file(&registry)?, content, "it is not touched");
    assert_eq!(instance.qemu_pid()?, qemu, "what runs goes on");
    Ok(())
}

#[test]
fn a_record_that_cannot_be_read() -> Result<()> {
    let machine = Machine::temporary("test-bad-record", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let good = Instance::start(seat, "bad-good", "")?;
    let broken = Instance::start(seat, "bad-broken", "")?;
    let qemu = broken.qemu_pid()?;
    seat.aegis_ok("down")?;
    let edit = format!(
        "python3 - <<'END'
import sqlite3
c = sqlite3.connect('{}/registry.db')
c.execute(\"update instance set spec = 'garbage' where handle = 'bad-broken'\")
assert c.total_changes == 1
c.commit()
END",
        seat.home()
    );
    seat.run(&edit)?.success()?;

    let list = seat.aegis("instance list")?;
    list.success()?;
    assert!(list.text().contains("bad-good"));
    let shown = seat.aegis("status")?;
    let said = shown.text() + &shown.error_text() + &list.text() + &list.error_text();
    assert!(said.contains("bad-broken"), "it is shown: {said}");
    assert_eq!(good.exec_ok("echo up")?, "up");
    assert_eq!(
        broken.qemu_pid()?,
        qemu,
        "what cannot be read is left alone"
    );
    Ok(())
}

#[test]
fn a_registry_that_is_no_database() -> Result<()> {
    let machine = Machine::temporary("test-bad-registry", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let registry = format!("{}/registry.db", seat.home());
    machine.write_file(User::Alice, &registry, &b"garbage ".repeat(1000))?;
    let refused = seat.aegis("instance list")?;
    assert_refused(&refused, "RegistryFailed", &["registry.db"]);
    assert_eq!(machine.read_file(&registry)?, b"garbage ".repeat(1000));
    Ok(())
}

#[test]
fn two_aegisds_at_once() -> Result<()> {
    let machine = Machine::temporary("test-bad-two", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    let first = seat.main_pid("aegisd.service")?;
    let second = seat.run("timeout 60 /usr/libexec/aegisvm/aegisd --user")?;
    assert!(
        !second.status.success() && second.code() != 124,
        "{}",
        second.code()
    );
    assert!(
        second.error_text().contains("already"),
        "{}",
        second.error_text()
    );
    assert_eq!(seat.main_pid("aegisd.service")?, first);
    seat.aegis_ok("instance list")?;
    Ok(())
}

#[test]
fn a_broken_manifest() -> Result<()> {
    let (machine, _) = quiet("test-bad-manifest")?;
    let seat = Seat::alice(&machine);
    let write = |name: &str, text: &[u8]| {
        machine.write_file(User::Alice, &format!("{}/{name}.json", seat.kits()), text)
    };
    write("no-json", b"{ \"name\": ")?;
    write(
        "bad-key",
        br#"{"instance_daemons":[{"binary":"../../bin/sh"}]}"#,
    )?;
    write(
        "no-program",
        br#"{"instance_daemons":[{"binary":"program-that-is-nowhere"}]}"#,
    )?;
    write("fine", b"{}")?;
    let before = Inventory::take(seat)?;

    let list = seat.aegis_ok("kit list")?;
    let line = |kit: &str| {
        list.lines()
            .find(|line| line.contains(kit))
            .unwrap_or_default()
            .to_owned()
    };
    for kit in ["no-json", "bad-key", "no-program"] {
        assert!(line(kit).contains("broken"), "{kit}: {list}");
        let refused = seat.aegis(&format!("instance start --name bad-kit --kit {kit}"))?;
        assert_refused(&refused, "KitBroken", &[kit]);
    }
    assert!(
        list.contains("instance_daemons[0].binary"),
        "the key is named: {list}"
    );
    assert!(line("fine").contains("ok"), "{list}");
    before.wait_until_restored(seat, is_remembered)
}

#[test]
fn an_accelerator_that_does_not_work_here() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::expected(seat, "bad-accel")?;
    // alice may not open /dev/kvm.
    for accel in ["kvm", "hvf"] {
        let refused = seat.aegis(&format!("instance start --name bad-accel --accel {accel}"))?;
        assert_refused(&refused, "AccelUnusable", &[accel]);
        instance.try_act("delete")?;
    }
    assert_eq!(
        seat.aegis("run --accel tcg -- echo works")?.success()?,
        "works"
    );
    Ok(())
}

#[test]
fn no_user_namespaces() -> Result<()> {
    let machine = Machine::temporary("test-bad-userns", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    // What a host that forbids them answers to unshare(2), for alice alone.
    let forbid = b"[Service]\nRestrictNamespaces=~user\n";
    let file = "/etc/systemd/system/user@1000.service.d/forbid.conf";
    machine.write_file(User::Root, file, forbid)?;
    machine
        .run(
            User::Root,
            "systemctl daemon-reload && systemctl restart user@1000.service",
        )?
        .success()?;
    let refused = seat.aegis("instance start --name bad-userns")?;
    assert_refused(&refused, "SandboxUnavailable", &["--insecure"]);
    Ok(())
}
