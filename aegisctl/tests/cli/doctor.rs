//! `doctor`, and what it repairs.

use serde_json::{Value, json};

use crate::harness::Bench;

/// A bench whose programs are noted instead of run.
fn bench(loginctl: &str) -> Bench {
    let bench = Bench::new();
    let note = "echo \"$(basename $0) $*\" >>$(dirname $0)/ran";
    for name in ["systemctl", "sudo", "usermod", "apt-get"] {
        bench.play(name, note);
    }
    bench.play("loginctl", &format!("{note}; {loginctl}"));
    bench
}

fn ran(bench: &Bench) -> String {
    std::fs::read_to_string(bench.dir.path().join("bin/ran")).unwrap_or_default()
}

#[test]
fn nothing_is_repaired_unless_it_is_asked_for() {
    let bench = bench("exit 0");
    let told = bench.run(&["doctor"]);
    assert_eq!(told.code, Some(1), "a check failed: {told:?}");
    assert!(told.stdout.contains("no lingering"), "{told:?}");
    assert!(told.stderr.contains("doctor --fix"), "{told:?}");
    assert_eq!(ran(&bench), "");
}

#[test]
fn what_can_be_repaired_is_and_said() {
    let bench = bench("exit 0");
    let told = bench.run(&["doctor", "--fix"]);
    let user = nix::unistd::User::from_uid(nix::unistd::getuid());
    let linger = format!("loginctl enable-linger {}", user.unwrap().unwrap().name);
    let said = format!("repairing lingering: {linger}\n");
    assert!(told.stderr.contains(&said), "{told:?}");
    assert!(ran(&bench).contains(&linger), "{}", ran(&bench));
    // The kernel is missing all the same, which nothing here repairs.
    assert_eq!(told.code, Some(1), "{told:?}");
}

#[test]
fn a_repair_that_fails_is_told_and_the_others_are_made() {
    let bench = bench("exit 3");
    // Who is not root asks for more by sudo, which fails too.
    bench.play("sudo", "exit 1");
    let told = bench.run(&["--json", "doctor", "--fix"]);
    let document: Value = serde_json::from_str(&told.stdout).unwrap();
    let repairs = document["repairs"].as_array().unwrap();
    let lingering = repairs.iter().find(|repair| repair["id"] == "lingering");
    let lingering = lingering.unwrap();
    assert_eq!(lingering["outcome"], "failed");
    assert_eq!(lingering["why"], json!("it ended with exit status: 3"));
}
