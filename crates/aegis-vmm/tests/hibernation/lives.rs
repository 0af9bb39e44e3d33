//! Lives of a VM, each in a process of its own, that end at every step of a save or a
//! restore: what is incomplete is never resumed, and the disk loses nothing.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use aegis_fault_points::{ORDER, SWITCH};
use aegis_vmm::hypervisor::Machine;

use crate::vm::{Bench, Vm};

/// Where a life finds its folder.
const FOLDER: &str = "AEGIS_TEST_HIBERNATION";

/// Counts in memory, and has a file on the disk whose sum is known since the first life.
const COUNTING: &str = "
    [ -e /root/sum ] || {
        head -c 3000000 /dev/urandom >/root/data; sha256sum /root/data >/root/sum; sync
    }
    nonce=$(head -c 16 /dev/urandom | sha256sum | head -c 32)
    i=0; while :; do i=$((i+1)); echo \"$nonce $i\"; usleep 20000; done";

/// One life: begins, looks, hibernates; where that fails it goes on. What became of it
/// stands in the file `life`.
#[tokio::test]
#[ignore = "a part of other tests, which start it as a process"]
async fn a_life() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let bench = Bench::of(folder.into());
    let write = |word: &str| {
        let before = fs::read_to_string(bench.path("life")).unwrap_or_default();
        fs::write(bench.path("life"), format!("{before}{word}\n")).unwrap();
    };
    aegis_fault_points::arm(&bench.path(""));
    let lines = bench.lines().len();
    let mut vm = Vm::begin(&bench.spec(COUNTING)).await;
    match &vm.up.beginning {
        aegis_vmm::owner::up::Beginning::Restored(_) => write("restored"),
        aegis_vmm::owner::up::Beginning::Booted { refused: None } => write("booted"),
        other => write(&format!("{other:?}")),
    }
    vm.until("nothing is written", || bench.lines().len() > lines + 5)
        .await;
    vm.run("sha256sum -c /root/sum").await;
    write("looked");
    match vm.save(true).await {
        Ok(_) => {
            vm.end().await;
            write("saved");
        }
        Err(error) => {
            let fault = aegis_core::fault::Fault::from(error);
            vm.unsuspend().await;
            let lines = bench.lines().len();
            vm.until("it does not go on", || bench.lines().len() > lines + 5)
                .await;
            assert!(!bench.path("snapshot").exists());
            assert!(!bench.path("snapshot.partial").exists());
            write(&format!("failed {}", fault.symbol));
            vm.stop().await;
        }
    }
}

/// Lives once, with an order; the words that the life left.
fn live(folder: &Path, order: Option<&str>) -> (ExitStatus, Vec<String>) {
    fs::write(folder.join("life"), "").unwrap();
    match order {
        Some(order) => fs::write(folder.join(ORDER), order).unwrap(),
        None => drop(fs::remove_file(folder.join(ORDER))),
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "lives::a_life"])
        .env(FOLDER, folder)
        .env(SWITCH, "1")
        .output()
        .unwrap();
    let words = fs::read_to_string(folder.join("life")).unwrap();
    let words: Vec<String> = words.lines().map(str::to_owned).collect();
    if order.is_none() {
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}\n{said}\n{complained}");
    }
    (output.status, words)
}

#[test]
fn a_life_that_ends_at_a_step_of_its_save_is_restored_only_where_that_was_over() {
    let Some(_bench) = Bench::ready() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut next = "booted";
    for (point, then) in [
        ("vm.suspend before", "booted"),
        ("vm.suspend after", "booted"),
        ("vm.quiesce after", "booted"),
        ("vm.pause before", "booted"),
        ("vm.save before", "booted"),
        ("snapshot.create before", "booted"),
        ("snapshot.create after", "booted"),
        ("snapshot.write before", "booted"),
        ("snapshot.write after", "booted"),
        ("snapshot.sync before", "booted"),
        ("snapshot.sync after", "booted"),
        ("snapshot.publish before", "booted"),
        ("snapshot.publish after", "restored"),
        ("vm.save after", "restored"),
    ] {
        let (status, words) = live(dir.path(), Some(&format!("kill {point} 1")));
        assert!(!status.success(), "{point} was not met: {words:?}");
        assert_eq!(words, [next, "looked"], "before {point}");
        next = then;
    }
    assert_eq!(live(dir.path(), None).1, [next, "looked", "saved"]);
}

#[test]
fn a_life_that_ends_at_a_step_of_its_restore_is_restored_once() {
    let Some(_bench) = Bench::ready() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut next = "booted";
    for (point, then) in [
        ("vm.hold after", "restored"),
        ("vm.load before", "restored"),
        ("vm.fork-qemu after", "restored"),
        ("vm.load after", "restored"),
        ("vm.use-snapshot before", "restored"),
        ("snapshot.spend before", "restored"),
        ("snapshot.spend after", "booted"),
        ("vm.use-snapshot after", "booted"),
        ("vm.run-on before", "booted"),
        ("vm.run-on after", "booted"),
    ] {
        assert_eq!(live(dir.path(), None).1, [next, "looked", "saved"]);
        let (status, words) = live(dir.path(), Some(&format!("kill {point} 1")));
        assert!(!status.success(), "{point} was not met: {words:?}");
        assert!(words.is_empty(), "{point}: {words:?}");
        next = then;
    }
    assert_eq!(live(dir.path(), None).1, [next, "looked", "saved"]);
}

#[test]
fn a_save_that_fails_leaves_the_vm_as_it_was() {
    let Some(_bench) = Bench::ready() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (order, symbol) in [
        ("ENOSPC snapshot.create before 1", "NoSpace"),
        ("ENOSPC snapshot.write before 1", "NoSpace"),
        ("ENOSPC snapshot.write before 9", "NoSpace"),
        ("EROFS snapshot.sync before 1", "Internal"),
        ("EROFS snapshot.publish before 1", "Internal"),
        ("EMFILE vm.pause before 1", "Internal"),
    ] {
        let (status, words) = live(dir.path(), Some(order));
        assert!(status.success(), "{order}: {words:?}");
        let failed = format!("failed {symbol}");
        assert_eq!(words, ["booted", "looked", failed.as_str()], "{order}");
    }
}

#[tokio::test]
async fn a_hypervisor_that_dies_while_it_is_saved_leaves_no_half_of_it() {
    let Some(bench) = Bench::ready() else { return };
    let spec = bench.spec(COUNTING);
    for delay in (0..160).step_by(20) {
        let lines = bench.lines().len();
        let mut vm = Vm::begin(&spec).await;
        match &vm.up.beginning {
            aegis_vmm::owner::up::Beginning::Booted { refused } => {
                assert!(refused.is_none(), "{refused:?}");
            }
            aegis_vmm::owner::up::Beginning::Restored(_) => {}
        }
        vm.until("nothing is written", || bench.lines().len() > lines + 5)
            .await;
        vm.run("sha256sum -c /root/sum").await;
        let pid = vm.up.machine.pid().cast_signed();
        let killer = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        let outcome = vm.save(true).await;
        killer.await.unwrap();
        println!("{delay} ms: {outcome:?}");
        assert_eq!(outcome.is_ok(), bench.path("snapshot").exists());
        vm.crash().await;
    }
}
