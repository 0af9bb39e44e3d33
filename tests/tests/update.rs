//! Settings of a guest that change with its next start, seen in the guest.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result};

#[test]
fn a_guest_has_other_settings_from_its_next_start_on_257() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    other_settings(Seat::alice(&machine))
}

#[test]
fn a_guest_has_other_settings_from_its_next_start_on_252() -> Result<()> {
    let machine = Machine::shared(Systemd::V252)?;
    other_settings(Seat::alice(&machine))
}

fn other_settings(seat: Seat<'_>) -> Result<()> {
    let instance = Instance::start(seat, "updated", "--disk 64M -- sh -c 'sleep 1000'")?;
    let small = disk(&instance)?;
    instance.exec_ok("dd if=/dev/urandom of=/root/kept bs=1M count=40; sync")?;
    let sum = instance.exec_ok("sha256sum /root/kept")?;
    let waits = instance.act("update --disk 512M --workdir /tmp --user 1000")?;
    assert!(
        waits.contains("When its VM starts next: disk, user, workdir"),
        "{waits}"
    );
    assert_eq!(disk(&instance)?, small, "not while its VM runs");
    instance.act("restart")?;
    let large = disk(&instance)?;
    assert!(large > 6 * small, "{small} KiB became {large} KiB");
    assert_eq!(
        instance.exec_ok("pwd; id -u")?,
        "/tmp\n1000",
        "execs have the folder and the user too"
    );
    let check = format!("echo '{sum}' | sha256sum -c -");
    instance
        .exec_with("--user root", &format!("sh -c \"{check}\""))?
        .success()?;
    let fill = "sh -c 'dd if=/dev/urandom of=/root/more bs=1M count=200'";
    instance.exec_with("--user root", fill)?.success()?;

    let refused = instance.try_act("update --disk 100M --workdir /srv")?;
    assert!(
        refused.error_text().contains("a disk only grows"),
        "{refused:?}"
    );
    seat.aegis_ok(
        "instance update updated --rootfs ro --workdir '' --user '' -- \
         sh -c 'echo other; sleep 1000'",
    )?;
    instance.act("restart")?;
    wait_until(DEADLINE, "the other command to speak", || {
        Ok(seat.aegis_ok("logs updated")?.ends_with("other"))
    })?;
    let written = instance.exec("echo x >/etc/x")?;
    assert!(
        written.error_text().contains("Read-only file system"),
        "{written:?}"
    );
    assert_eq!(instance.exec_ok("pwd; id -u")?, "/root\n0");
    instance.delete()
}

/// KiB of the root.
fn disk(instance: &Instance<'_>) -> Result<u64> {
    let told = instance.exec_ok("df -k / | tail -n 1 | awk '{print $2}'")?;
    let told = told.trim().parse();
    told.context("reading the size of the root")
}
