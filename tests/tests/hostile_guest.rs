//! Guests that were taken over: they can end their own VM and nothing more.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::session::{Session, memory_of};
use aegis_tests::wait::wait_for;
use anyhow::{Context, Result};

/// Far more than aegis-vmm needs (about 20 MiB) and far less than a guest can
/// send in the time, in KiB.
const MEMORY_LIMIT: u64 = 96 * 1024;

/// Boots a guest that attacks and gives what the client says. Another guest,
/// a good one, must go on all the time.
fn attack(name: &str, how: &str) -> Result<String> {
    let machine = Machine::temporary(name, Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let good = Instance::start(seat, "good", "")?;
    take_over(&machine, how)?;

    let bad = Instance::expected(seat, "bad")?;
    let mut start = Session::start(seat, "aegisctl instance start --name bad")?;
    let owner = wait_for(DEADLINE, "the VM's owner", || seat.main_pid(&bad.vm_unit()))?;
    let mut peak = 0;
    // The owner may end at any time; until then its memory is looked at.
    while let Ok(memory) = memory_of(seat, owner, "VmHWM") {
        peak = peak.max(memory);
        assert!(peak < MEMORY_LIMIT, "aegis-vmm grew to {peak} KiB");
        assert_eq!(good.exec_ok("echo well")?, "well");
        if start.has_ended()? {
            break;
        }
    }
    let ended = start.wait()?;
    assert_ne!(ended.code, 0, "{:?}", ended.lines);
    assert!(!ended.errors.contains("panicked"), "{}", ended.errors);
    assert_eq!(seat.processes(&bad.vm_unit())?, [], "nothing runs on");
    assert_eq!(good.exec_ok("echo well")?, "well");
    Ok(ended.errors)
}

/// From now on guests boot into an attack. Running ones have their files open.
fn take_over(machine: &Machine, how: &str) -> Result<()> {
    let script = include_bytes!("../clients/hostile_guest.py");
    machine.write_file(User::Root, "/tmp/hostile_guest.py", script)?;
    let line = format!(
        "cd /usr/lib/aegisvm/guest && unsquashfs -quiet -no-progress -dest /tmp/base base.squashfs \
         && busybox=$(find /tmp/base -name busybox -type f | head -n 1) \
         && python3 /tmp/hostile_guest.py {how} \"$busybox\" /tmp/hostile \
         && install -m 644 /tmp/hostile initramfs \
         && rm -rf /tmp/base /tmp/hostile /tmp/hostile_guest.py"
    );
    machine
        .run(User::Root, &line)?
        .success()
        .context("making a hostile guest")?;
    Ok(())
}

#[test]
fn garbage_on_the_link_is_a_violation() -> Result<()> {
    let said = attack("test-hostile-garbage", "garbage")?;
    assert!(said.contains("LinkViolation"), "{said}");
    Ok(())
}

#[test]
fn an_oversized_frame_is_a_violation() -> Result<()> {
    let said = attack("test-hostile-size", "oversized")?;
    assert!(said.contains("LinkViolation"), "{said}");
    Ok(())
}

#[test]
fn a_guest_that_never_answers_is_given_up() -> Result<()> {
    let said = attack("test-hostile-silent", "silent")?;
    assert!(said.contains("GuestTimeout"), "{said}");
    Ok(())
}
