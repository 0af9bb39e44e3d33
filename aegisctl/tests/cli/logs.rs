//! `logs`: both streams, and following through a rotation.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Bench, wait_for_line};

fn record(file: &mut File, stream: &str, line: &str) {
    writeln!(
        file,
        r#"{{"seq":1,"time":2,"stream":"{stream}","line":"{line}"}}"#
    )
    .unwrap();
}

#[test]
fn both_streams_are_shown_apart() {
    let bench = Bench::new();
    let path = bench.dir.path().join("command.log");
    let mut file = File::create(&path).unwrap();
    record(&mut file, "stdout", "one");
    record(&mut file, "stderr", "two");
    write!(file, r#"{{"half a record"#).unwrap();
    bench.fake.set_logs(vec![path]);
    bench.run(&["logs", "web"]).expect(0, "one\n", "two\n");
    bench.run(&["logs", "web", "--json"]).expect(
        0,
        "{\"instance\":\"web\",\"line\":\"one\",\"seq\":1,\"source\":\"command\",\"stream\":\"stdout\",\"time\":2,\"version\":1}\n\
         {\"instance\":\"web\",\"line\":\"two\",\"seq\":1,\"source\":\"command\",\"stream\":\"stderr\",\"time\":2,\"version\":1}\n",
        "",
    );
}

#[test]
fn following_goes_through_a_rotation() {
    let bench = Bench::new();
    let path = bench.dir.path().join("command.log");
    let rotated = bench.dir.path().join("command.log.1");
    let mut file = File::create(&path).unwrap();
    record(&mut file, "stdout", "one");
    bench.fake.set_logs(vec![rotated.clone(), path.clone()]);
    let mut child = bench.spawn(&mut bench.command(&["logs", "web", "--follow"]));
    let mut stdout = child.stdout.take().unwrap();
    wait_for_line(&mut stdout, "one");
    record(&mut file, "stdout", "two");
    wait_for_line(&mut stdout, "two");
    record(&mut file, "stdout", "three");
    writeln!(file, r#"{{"rotated":true}}"#).unwrap();
    fs::rename(&path, &rotated).unwrap();
    let mut file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(&path)
        .unwrap();
    record(&mut file, "stdout", "four");
    wait_for_line(&mut stdout, "three");
    wait_for_line(&mut stdout, "four");
    record(&mut file, "stdout", "five");
    wait_for_line(&mut stdout, "five");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let outcome = child.wait_with_output().unwrap();
    assert_eq!(outcome.status.code(), Some(0));
    assert!(outcome.stderr.is_empty());
}

fn lines_of(times_us: &[u64]) -> String {
    let line = |time: &u64| {
        format!(
            "{{\"seq\":{time},\"time\":{},\"stream\":\"stdout\",\"line\":\"at {time}\"}}\n",
            time * 1000
        )
    };
    times_us.iter().map(line).collect()
}

#[test]
fn the_journal_is_merged_by_time() {
    let bench = Bench::new();
    let path = bench.dir.path().join("command.log");
    fs::write(&path, lines_of(&[1_000_000, 3_000_000, 5_000_000])).unwrap();
    bench.fake.set_logs(vec![path]);
    bench.set_journal(&[
        ("gateway", 2_000_000, "two"),
        ("gateway", 4_000_000, "four"),
    ]);
    let logs = |args: &[&str]| bench.run(&[&["logs", "web"], args].concat());
    logs(&[]).expect(
        0,
        "at 1000000\n[gateway] two\nat 3000000\n[gateway] four\nat 5000000\n",
        "",
    );
    logs(&["--tail", "2"]).expect(0, "[gateway] four\nat 5000000\n", "");
    logs(&["--since", "@2", "--until", "@4"]).expect(
        0,
        "[gateway] two\nat 3000000\n[gateway] four\n",
        "",
    );
    logs(&["--since", "-1h"]).expect(0, "", "");
    logs(&["--command", "-n", "1"]).expect(0, "at 5000000\n", "");
    logs(&["--daemon", "gateway"]).expect(0, "two\nfour\n", "");
    let stamped = logs(&["-t", "-n", "1"]);
    assert!(stamped.stdout.starts_with("1970-01-01T"), "{stamped:?}");
    assert!(stamped.stdout.ends_with(" at 5000000\n"), "{stamped:?}");
    let both = bench.run(&["logs", "web", "flaky", "-n", "1"]);
    both.expect(0, "[flaky] at 5000000\n", "");
    let unknown = logs(&["--daemon", "nope"]);
    unknown.expect(
        1,
        "",
        "error: the instance 'web' has no daemon 'nope' (NotFound)\n\
         hint: aegisctl instance info web shows its daemons\n",
    );
    assert_eq!(logs(&["--since", "yesterday"]).code, Some(2));
}

#[test]
fn without_the_journal_the_command_is_still_shown() {
    let bench = Bench::new();
    let path = bench.dir.path().join("command.log");
    fs::write(&path, lines_of(&[1])).unwrap();
    bench.fake.set_logs(vec![path]);
    bench.break_journal();
    bench.run(&["logs", "web"]).expect(
        0,
        "at 1\n",
        "note: journalctl failed: no permission; its daemons' lines are left out\n",
    );
    bench.run(&["logs", "web", "--all"]).expect(
        1,
        "",
        "error: journalctl failed: no permission (JournalUnavailable)\n\
         hint: reading the system's journal needs root or the group systemd-journal\n",
    );
}
