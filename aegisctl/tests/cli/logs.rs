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
