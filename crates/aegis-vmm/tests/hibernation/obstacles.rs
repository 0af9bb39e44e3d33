//! What is in the way of a save or a restore, and what comes of it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_core::fault::{Fault, Symbol};
use aegis_core::vm_spec::VmSpec;
use aegis_link::message::Restored;
use aegis_vmm::hypervisor::{LaunchError, SaveRefusal};
use aegis_vmm::owner::bring_up::StartError;
use aegis_vmm::owner::up::SaveError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::vm::{Bench, Vm};
use crate::{BUSY, check_guest, check_log};

/// A busy VM that has begun to write.
async fn busy(bench: &Bench, spec: &VmSpec) -> Vm {
    let mut vm = Vm::begin(spec).await;
    vm.until("nothing is written", || bench.lines().len() > 20)
        .await;
    vm
}

#[tokio::test]
async fn a_save_that_is_taken_back_leaves_no_trace_in_the_guest() {
    let Some(bench) = Bench::ready() else { return };
    let spec = bench.spec(BUSY);
    let mut vm = busy(&bench, &spec).await;
    vm.save(true).await.unwrap();
    assert!(bench.path("snapshot").exists());
    // Longer than the guest's clock may be wrong.
    tokio::time::sleep(Duration::from_secs(1)).await;
    vm.unsuspend().await;
    assert!(!bench.path("snapshot").exists());
    check_guest(&mut vm).await;
    let mut length = check_log(&bench, 1);
    // At any moment of a save.
    for delay in (0..300).step_by(20) {
        let dropped = tokio::time::timeout(Duration::from_millis(delay), vm.save(true)).await;
        vm.unsuspend().await;
        for name in ["snapshot", "snapshot.partial"] {
            assert!(!bench.path(name).exists(), "{delay} {dropped:?}");
        }
        vm.during(tokio::time::sleep(Duration::from_millis(100)))
            .await;
        let longer = check_log(&bench, 1);
        assert!(longer > length, "{delay} ms, {dropped:?}");
        length = longer;
    }
    check_guest(&mut vm).await;
    vm.hibernate().await;
    let mut vm = Vm::begin(&spec).await;
    assert!(vm.is_restored());
    check_guest(&mut vm).await;
    check_log(&bench, 1);
    vm.stop().await;
}

#[tokio::test]
async fn a_paused_vm_hibernates_too() {
    use aegis_vmm::hypervisor::Machine;
    let Some(bench) = Bench::ready() else { return };
    let spec = bench.spec(BUSY);
    let mut vm = busy(&bench, &spec).await;
    vm.up.machine.pause().await.unwrap();
    vm.up.paused();
    tokio::time::sleep(Duration::from_secs(1)).await;
    vm.save(false).await.unwrap();
    vm.end().await;
    let mut vm = Vm::begin(&spec).await;
    assert!(vm.is_restored());
    check_guest(&mut vm).await;
    // The guest has been told so already; here its answer is seen.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let link = vm.up.link.clone();
    let told = link.restored(Restored {
        time_ns: u64::try_from(now.as_nanos()).unwrap(),
        entropy: vec![7; 64],
    });
    vm.during(told).await.unwrap();
    check_log(&bench, 1);
    vm.stop().await;
}

/// Hibernates, has something happen, and begins again: it boots and says why.
async fn refused(change: impl FnOnce(&Bench, &mut VmSpec), reason: &str) {
    let Some(bench) = Bench::ready() else { return };
    let mut spec = bench.spec(BUSY);
    busy(&bench, &spec).await.hibernate().await;
    change(&bench, &mut spec);
    let mut vm = Vm::begin(&spec).await;
    let fault = vm.refused();
    assert_eq!(fault.symbol, Symbol::SnapshotUnusable);
    assert!(fault.message.contains(reason), "{}", fault.message);
    assert!(!bench.path("snapshot").exists());
    // The disk is as the guest left it: the command makes its file anew, so look at the
    // sum that was there before it does.
    let lines = bench.lines().len();
    vm.until("nothing is written", || bench.lines().len() > lines + 20)
        .await;
    check_log(&bench, 2);
    vm.run("sha256sum -c /root/sum").await;
    vm.stop().await;
}

#[tokio::test]
async fn a_damaged_snapshot_is_not_used() {
    refused(
        |bench, _| {
            let path = bench.path("snapshot");
            let middle = fs::metadata(&path).unwrap().len() / 2;
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, middle).unwrap();
            file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
        },
        "is damaged",
    )
    .await;
}

#[tokio::test]
async fn a_cut_snapshot_is_not_used() {
    refused(
        |bench, _| {
            let path = bench.path("snapshot");
            let length = fs::metadata(&path).unwrap().len();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(length - 1).unwrap();
        },
        "the snapshot ends too early",
    )
    .await;
}

#[tokio::test]
async fn another_machine_does_not_take_a_snapshot() {
    refused(
        |_, spec| spec.memory_mib = 320,
        "the memory is now 320 MiB, it was 256 MiB",
    )
    .await;
}

#[tokio::test]
async fn a_disk_that_somebody_wrote_to_belongs_to_no_snapshot() {
    refused(
        |bench, _| {
            let disk = File::options().write(true).open(bench.path("disk.img"));
            disk.unwrap()
                .set_modified(std::time::SystemTime::now())
                .unwrap();
        },
        "the disk of the instance is now",
    )
    .await;
}

/// The QEMU below this process that is to take a state, if there is one.
fn loading_qemu() -> Option<Pid> {
    let own = Pid::this().as_raw();
    let parent = |pid: i32| -> Option<i32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        line.trim().parse().ok().filter(|&pid| pid > 1)
    };
    let is_ours = |pid: i32| std::iter::successors(Some(pid), |&pid| parent(pid)).any(|p| p == own);
    let mut processes = fs::read_dir("/proc").unwrap().flatten();
    processes.find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = line.split(|&byte| byte == 0);
        let is_qemu = words.next()?.windows(4).any(|part| part == b"qemu");
        let loads = is_qemu && words.any(|word| word == b"-incoming");
        (loads && is_ours(pid)).then(|| Pid::from_raw(pid))
    })
}

#[tokio::test]
async fn a_qemu_that_is_killed_while_it_loads_leaves_the_snapshot() {
    let Some(bench) = Bench::ready() else { return };
    let spec = bench.spec(BUSY);
    busy(&bench, &spec).await.hibernate().await;
    let mut delay = Duration::ZERO;
    // A bit later each time, until it has begun to load.
    loop {
        let killer = thread::spawn(move || {
            let qemu = loop {
                match loading_qemu() {
                    Some(qemu) => break qemu,
                    None => thread::sleep(Duration::from_millis(1)),
                }
            };
            thread::sleep(delay);
            kill(qemu, Signal::SIGKILL).unwrap();
        });
        let Err(error) = Vm::try_begin(&spec).await else {
            panic!("it was not killed within {delay:?}");
        };
        killer.join().unwrap();
        assert!(bench.path("snapshot").exists(), "{delay:?}: {error:?}");
        if matches!(error, StartError::Launch(LaunchError::Load(_))) {
            println!("killed after {delay:?}: {}", Fault::from(error));
            break;
        }
        delay += Duration::from_millis(10);
    }
    let mut vm = Vm::begin(&spec).await;
    assert!(vm.is_restored(), "{:?}", vm.up.beginning);
    check_guest(&mut vm).await;
    check_log(&bench, 1);
    vm.stop().await;
}

#[tokio::test]
async fn what_was_begun_and_is_not_whole_is_no_snapshot() {
    let Some(bench) = Bench::ready() else { return };
    fs::write(bench.path("snapshot.partial"), b"AEGISNAP").unwrap();
    let vm = busy(&bench, &bench.spec(BUSY)).await;
    assert!(!vm.is_restored());
    assert!(!bench.path("snapshot.partial").exists());
    vm.stop().await;
}

#[tokio::test]
async fn a_share_by_9p_is_refused_by_name() {
    let Some(bench) = Bench::ready() else { return };
    let mut spec = bench.spec("while :; do echo x; sleep 0.1; done");
    fs::create_dir(bench.path("work")).unwrap();
    spec.workspace = Some(bench.path("work"));
    let mut vm = busy(&bench, &spec).await;
    let refusal = vm.up.can_hibernate().await.unwrap_err();
    assert!(matches!(refusal, SaveRefusal::NineP), "{refusal}");
    let error = vm.save(true).await.unwrap_err();
    assert!(matches!(error, SaveError::Refused(SaveRefusal::NineP)));
    vm.unsuspend().await;
    let lines = bench.lines().len();
    vm.until("it does not run on", || bench.lines().len() > lines)
        .await;
    vm.stop().await;
}

#[tokio::test]
async fn a_guest_with_a_distribution_s_kernel_comes_back_too() {
    let Some(bench) = Bench::ready() else { return };
    let mut spec = bench.spec(BUSY);
    let guest = bench.path("guest");
    fs::create_dir(&guest).unwrap();
    for name in ["fallback", "base.squashfs"] {
        std::os::unix::fs::symlink(spec.guest_dir.join(name), guest.join(name)).unwrap();
    }
    spec.guest_dir = guest;
    busy(&bench, &spec).await.hibernate().await;
    let mut vm = Vm::begin(&spec).await;
    assert!(vm.is_restored(), "{:?}", vm.up.beginning);
    check_guest(&mut vm).await;
    check_log(&bench, 1);
    vm.crash().await;
}

#[tokio::test]
async fn layers_a_memory_root_and_two_cpus_come_back() {
    let Some(bench) = Bench::ready() else { return };
    let mut spec = bench.spec(BUSY);
    spec.layers = vec![spec.guest_dir.join("base.squashfs")];
    spec.disk = None;
    spec.cpus = 2;
    let mut vm = busy(&bench, &spec).await;
    for _ in 0..3 {
        vm.save(true).await.unwrap();
        vm.unsuspend().await;
        vm.run("echo 3 >/proc/sys/vm/drop_caches; cat /bin/busybox | sha256sum")
            .await;
    }
    vm.hibernate().await;
    let mut vm = Vm::begin(&spec).await;
    assert!(vm.is_restored(), "{:?}", vm.up.beginning);
    check_guest(&mut vm).await;
    check_log(&bench, 1);
    vm.crash().await;
}
