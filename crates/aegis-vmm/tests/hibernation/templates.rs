//! Guests that begin from a template: as good as booted, and nobody's twin.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_core::vm_spec::VmSpec;

use crate::vm::{Bench, Vm};

/// What two guests have in common if one began from the other's template: where the
/// stack of their first process ends, which a boot chooses anew.
const KINSHIP: &str = r"sed -n 's/.*-\([0-9a-f]*\) .*\[stack\]/\1/p' /proc/1/maps";

/// The spec of an instance of this name that keeps nothing.
fn passing(bench: &Bench, name: &str) -> VmSpec {
    let dir = bench.path(name);
    fs::create_dir_all(dir.join("log")).unwrap();
    fs::create_dir_all(bench.path("templates")).unwrap();
    VmSpec {
        handle: name.parse().unwrap(),
        disk: None,
        ephemeral: true,
        command: Vec::new(),
        templates: Some(bench.path("templates")),
        dir,
        ..bench.spec("")
    }
}

fn templates(bench: &Bench) -> Vec<PathBuf> {
    let listed = fs::read_dir(bench.path("templates")).unwrap();
    listed.map(|entry| entry.unwrap().path()).collect()
}

async fn seconds(vm: &mut Vm) -> u64 {
    vm.run("date +%s").await.parse().unwrap()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs()
}

#[tokio::test]
async fn the_next_of_a_shape_begins_where_the_first_said_hello() {
    let Some(bench) = Bench::ready() else { return };
    let mut first = Vm::begin(&passing(&bench, "first")).await;
    assert_eq!(templates(&bench).len(), 1, "one is made");
    // A guest that was saved runs on as any other.
    assert_eq!(first.run("hostname").await, "first");
    tokio::time::sleep(Duration::from_secs(2)).await;

    let mut second = Vm::begin(&passing(&bench, "second")).await;
    let mut third = Vm::begin(&passing(&bench, "third")).await;
    assert_eq!(templates(&bench).len(), 1, "it is used again");
    let kin = first.run(KINSHIP).await;
    let mut seen = Vec::new();
    for (vm, name) in [
        (&mut first, "first"),
        (&mut second, "second"),
        (&mut third, "third"),
    ] {
        assert_eq!(vm.run(KINSHIP).await, kin, "{name} has booted");
        assert_eq!(vm.run("hostname").await, name);
        assert!(
            seconds(vm).await.abs_diff(now()) <= 2,
            "the clock of {name}"
        );
        for secret in [
            "cat /proc/sys/kernel/random/boot_id",
            "head -c 16 /dev/urandom | xxd -p",
        ] {
            let said = vm.run(secret).await;
            assert!(!seen.contains(&said), "{secret} of {name} is known: {said}");
            seen.push(said);
        }
        vm.run("echo kept >/root/file && cat /root/file").await;
    }
    for vm in [first, second, third] {
        vm.stop().await;
    }
}

#[tokio::test]
async fn another_shape_and_whoever_keeps_something_boots() {
    let Some(bench) = Bench::ready() else { return };
    let mut first = Vm::begin(&passing(&bench, "first")).await;
    let kin = first.run(KINSHIP).await;
    first.stop().await;
    let large = VmSpec {
        memory_mib: 320,
        ..passing(&bench, "large")
    };
    let mut large = Vm::begin(&large).await;
    assert_ne!(large.run(KINSHIP).await, kin);
    large.stop().await;
    assert_eq!(templates(&bench).len(), 2);
    let kept = VmSpec {
        disk: bench.spec("").disk,
        ..passing(&bench, "kept")
    };
    let mut kept = Vm::begin(&kept).await;
    assert_ne!(kept.run(KINSHIP).await, kin);
    kept.stop().await;
    assert_eq!(templates(&bench).len(), 2);
}

#[tokio::test]
async fn a_damaged_template_is_replaced() {
    let Some(bench) = Bench::ready() else { return };
    let mut first = Vm::begin(&passing(&bench, "first")).await;
    let kin = first.run(KINSHIP).await;
    first.stop().await;
    let path = templates(&bench).remove(0);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bad in [flipped, whole[..whole.len() - 100].to_vec(), Vec::new()] {
        fs::write(&path, bad).unwrap();
        let mut vm = Vm::begin(&passing(&bench, "next")).await;
        assert_ne!(vm.run(KINSHIP).await, kin, "it boots");
        vm.stop().await;
        let mut vm = Vm::begin(&passing(&bench, "after")).await;
        assert_eq!(templates(&bench), std::slice::from_ref(&path));
        assert_eq!(vm.run("hostname").await, "after");
        vm.stop().await;
    }
}
