//! A guest that was given a secret: its machine is on the disk sealed, or not at all.

use aegis_tests::canary::found;
use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::{Seat, quote};
use aegis_tests::wait::wait_until;
use anyhow::{Result, ensure};

/// A value that occurs nowhere by chance.
const CANARY: &str = "zq7-canary-of-a-sealed-guest";
/// Keeps the value in its memory, and shows that it is still the one that was started.
const KEEPING: &str = "kept=\"$CANARY $(cat /proc/sys/kernel/random/uuid)\"; while :; do
    echo \"$kept\" | md5sum >/run/sum.new; mv /run/sum.new /run/sum; sleep 0.5
done";
const FLAGS: &str = "--idle-pause never --idle-hibernate never";

fn hibernate(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    instance.act("hibernate")?;
    wait_until(DEADLINE, "its processes to be gone", || {
        Ok(seat.processes(&instance.vm_unit())?.is_empty())
    })
}

/// The file is a snapshot of the sealed form, and the value is nowhere to be found.
fn is_sealed(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let folder = instance.folder();
    let form = format!("od -A n -t u4 -j 12 -N 4 {folder}/snapshot");
    let form = seat.machine().run(User::Root, &form)?.success()?;
    ensure!(form.trim() == "1", "the snapshot's form is {form}");
    let found = found(seat, CANARY)?;
    ensure!(found.is_empty(), "the value is in {found}");
    Ok(())
}

fn sum(instance: &Instance<'_>) -> Result<String> {
    instance.exec_ok("until cat /run/sum 2>/dev/null; do sleep 0.1; done")
}

fn hibernates_sealed(seat: Seat<'_>) -> Result<()> {
    seat.set_secret("CANARY", CANARY)?;
    let flags = format!("{FLAGS} --env CANARY -d -- sh -c {}", quote(KEEPING));
    let instance = Instance::start(seat, "sealed", &flags)?;
    let before = sum(&instance)?;
    for _ in 0..2 {
        hibernate(seat, &instance)?;
        is_sealed(seat, &instance)?;
        // The key is asked for at the start, which starts aegisd.
        seat.kill_aegisd()?;
        seat.wait_for_aegisd()?;
        ensure!(sum(&instance)? == before, "another command runs");
    }
    // Processes that hold the value die, and leave nothing behind.
    for _ in 0..2 {
        let qemu = instance.qemu_pid()?;
        let owner = seat.main_pid(&instance.vm_unit())?;
        for pid in [qemu, owner].into_iter().flatten() {
            let limits = format!("grep 'Max core file size *0 *0' /proc/{pid}/limits");
            seat.machine().run(User::Root, &limits)?.success()?;
            seat.machine()
                .run(User::Root, &format!("kill -ABRT {pid}; true"))?;
        }
        instance.wait_for_state("failed")?;
        let found = found(seat, CANARY)?;
        ensure!(found.is_empty(), "the value is in {found}");
        instance.start_again()?;
    }
    let before = sum(&instance)?;
    // A changed one is a cold boot that is told.
    hibernate(seat, &instance)?;
    let changed = format!(
        "printf X | dd of={}/snapshot bs=1 seek=200 conv=notrunc status=none",
        instance.folder()
    );
    seat.machine().run(User::Root, &changed)?.success()?;
    ensure!(sum(&instance)? != before, "a changed snapshot was used");
    let info = instance.info()?;
    ensure!(info.contains("booted, not restored"), "{info}");
    instance.delete()
}

#[test]
fn a_guest_with_a_secret_hibernates_sealed() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    hibernates_sealed(Seat::alice(&machine))
}

#[test]
fn a_guest_with_a_secret_hibernates_sealed_on_252() -> Result<()> {
    let machine = Machine::shared(Systemd::V252)?;
    hibernates_sealed(Seat::alice(&machine))
}

#[test]
fn a_guest_with_a_secret_hibernates_sealed_in_system_mode() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    hibernates_sealed(Seat::root(&machine))
}

/// Its units know of no secret when the exec comes, so that machine is never on the disk;
/// the units that are made later have a key.
#[test]
fn a_guest_that_an_exec_gave_a_secret_is_paused_and_then_sealed() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.set_secret("LATE", CANARY)?;
    let instance = Instance::start(seat, "late", &format!("{FLAGS} -d -- sleep 1000"))?;
    let said = instance.exec_with("--env LATE", "sh -c 'echo $LATE'")?;
    ensure!(said.success()?.trim() == CANARY);
    for _ in 0..2 {
        let refused = instance.try_act("hibernate")?;
        ensure!(refused.error_text().contains("secrets"), "{refused:?}");
        instance.act("restart")?;
    }
    instance.act("disable")?;
    instance.act("enable")?;
    instance.start_again()?;
    hibernate(seat, &instance)?;
    is_sealed(seat, &instance)?;
    instance.exec_ok("true")?;
    let info = instance.info()?;
    ensure!(!info.contains("booted, not restored"), "{info}");
    instance.delete()
}
