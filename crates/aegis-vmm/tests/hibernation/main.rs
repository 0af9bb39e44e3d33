//! Hibernation with a real QEMU and a real guest: what comes back, and what happens
//! when something is in the way.
//!
//! Needs QEMU and the guest (`guest/build`). Without them the tests fail, unless
//! `AEGIS_TEST_SKIP_VM` is set; then they say why they do nothing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper of a test fails and speaks as the test does"
)]

mod commands;
mod lives;
mod obstacles;
mod templates;
mod vm;
mod wedged;

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vm::{Bench, Vm};

/// Writes a number that only its memory has and counts; keeps a file open, a TCP
/// connection busy, and a file whose sum is known.
const BUSY: &str = "
    nonce=$(head -c 16 /dev/urandom | sha256sum | head -c 32)
    exec 9>/root/held
    head -c 3000000 /dev/urandom >/root/data
    sha256sum /root/data >/root/sum
    tail -f /dev/null | nc -l -p 7000 >/run/tcp &
    sleep 0.5
    (n=0; while :; do n=$((n+1)); echo $n; usleep 50000; done) | nc 127.0.0.1 7000 &
    i=0
    while :; do
        i=$((i+1)); echo \"$nonce $i\"; echo $i >&9
        [ $((i % 7)) = 0 ] && echo \"error $i\" >&2
        usleep 20000
    done";

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs_f64()
}

/// The log has every number once, and every line of the command once.
fn check_log(bench: &Bench, nonces: usize) -> u64 {
    let lines = bench.lines();
    for (expected, (number, _)) in lines.iter().enumerate() {
        assert_eq!(*number, expected as u64, "{lines:?}");
    }
    let counted: Vec<(&str, u64)> = lines
        .iter()
        .filter(|(_, line)| !line.starts_with("error"))
        .map(|(_, line)| line.split_once(' ').unwrap())
        .map(|(nonce, count)| (nonce, count.parse().unwrap()))
        .collect();
    let found: BTreeSet<&str> = counted.iter().map(|(nonce, _)| *nonce).collect();
    assert_eq!(found.len(), nonces, "{found:?}");
    let last = counted.last().unwrap().0;
    let counts: Vec<u64> = counted
        .iter()
        .filter(|(nonce, _)| *nonce == last)
        .map(|(_, count)| *count)
        .collect();
    let length = counts.len() as u64;
    assert_eq!(counts, (1..=length).collect::<Vec<_>>());
    let errors: Vec<u64> = lines
        .iter()
        .filter_map(|(_, line)| line.strip_prefix("error ")?.parse().ok())
        .collect();
    let sevens = (1..=errors.len() as u64).map(|n| n * 7).collect::<Vec<_>>();
    if nonces == 1 {
        assert_eq!(errors, sevens);
    }
    length
}

async fn check_guest(vm: &mut Vm) {
    vm.run("sha256sum -c /root/sum").await;
    let before = now();
    let clock: f64 = vm
        .run("adjtimex | awk '/tv_sec/ {s=$2} /tv_usec/ {printf \"%d.%06d\", s, $2}'")
        .await
        .parse()
        .unwrap();
    let after = now();
    assert!(
        clock > before - 0.1 && clock < after + 0.1,
        "{before} {clock} {after}"
    );
    let count = "wc -l </run/tcp";
    let received: u64 = vm.run(count).await.parse().unwrap();
    vm.during(tokio::time::sleep(Duration::from_millis(500)))
        .await;
    let more: u64 = vm.run(count).await.parse().unwrap();
    assert!(more > received, "{received} {more}");
    let held = vm
        .run("seq $(wc -l </root/held) | cmp - /root/held; echo")
        .await;
    assert!(held.is_empty() || held.contains("EOF"), "{held}");
}

#[tokio::test]
async fn five_cycles_in_a_row_lose_nothing() {
    let Some(bench) = Bench::ready() else { return };
    let spec = bench.spec(BUSY);
    let began = Instant::now();
    let mut vm = Vm::begin(&spec).await;
    println!("booted in {:?}", began.elapsed());
    assert!(!vm.is_restored());
    vm.until("nothing is written", || bench.lines().len() > 20)
        .await;
    let mut length = check_log(&bench, 1);
    for cycle in 0..5 {
        vm.hibernate().await;
        assert!(check_log(&bench, 1) >= length);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let began = Instant::now();
        vm = Vm::begin(&spec).await;
        println!("cycle {cycle}: restored in {:?}", began.elapsed());
        assert!(vm.is_restored(), "{:?}", vm.up.beginning);
        assert!(!bench.path("snapshot").exists());
        check_guest(&mut vm).await;
        let longer = check_log(&bench, 1);
        assert!(longer > length, "{length} {longer}");
        length = longer;
    }
    vm.stop().await;
}
