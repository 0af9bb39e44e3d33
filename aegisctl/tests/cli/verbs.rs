//! The verbs of every day, as people see them.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Bench, wait_for_line};

#[test]
fn a_list_is_filtered_and_formatted() {
    let bench = Bench::new();
    bench.run(&[
        "instance",
        "start",
        "--name",
        "db",
        "--label",
        "team=data",
        "--quiet",
    ]);
    bench.run(&["instance", "stop", "db"]);
    let list = |args: &[&str]| bench.run(&[&["instance", "list"], args].concat());
    list(&["-q"]).expect(0, "db\nflaky\nweb\n", "");
    list(&["-q", "--filter", "state=running"]).expect(0, "flaky\nweb\n", "");
    list(&["-q", "-f", "label=team=data"]).expect(0, "db\n", "");
    list(&["-q", "-f", "label!=team", "-f", "name=w*"]).expect(0, "web\n", "");
    list(&[
        "--format",
        "{{.Name}}: {{.State}} {{.Labels.team}}",
        "-f",
        "name=db",
    ])
    .expect(0, "db: stopped data\n", "");
    list(&[
        "--format",
        r"table {{.Name}}\t{{.MemoryMib}}",
        "-f",
        "kit=agent",
    ])
    .expect(0, "NAME   MEMORY MIB\nflaky  256\nweb    256\n", "");
    let json = list(&["--format", "json"]);
    assert_eq!(json, list(&["--json"]));
    for bad in [
        ["-f", "size=1"],
        ["-f", "state=up"],
        ["--format", "{{.Name"],
    ] {
        let refused = list(&bad);
        assert_eq!(refused.code, Some(2), "{refused:?}");
    }
    let refused = list(&["--format", "{{.Size}}"]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused
            .stderr
            .contains("there is no field 'Size'; known are "),
        "{refused:?}"
    );
}

#[test]
fn inspect_shows_what_it_found_and_fails_for_what_is_missing() {
    let bench = Bench::new();
    let outcome = bench.run(&["instance", "inspect", "web", "nope"]);
    assert_eq!(outcome.code, Some(1));
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(value["instances"][0]["handle"], "web");
    assert_eq!(value["version"], 1);
    assert!(
        outcome
            .stderr
            .starts_with("error: cannot inspect 'nope': there is no instance"),
        "{outcome:?}"
    );
    bench
        .run(&[
            "instance",
            "inspect",
            "web",
            "--format",
            "{{.Limits.CpuQuota}}",
        ])
        .expect(0, "200\n", "");
}

#[test]
fn an_update_says_what_applies_when() {
    let bench = Bench::new();
    bench
        .run(&[
            "instance", "update", "web", "--memory", "1G", "--label", "a=b",
        ])
        .expect(
            0,
            "Instance web updated\nWhen its VM starts next: memory\n\
             To have that now: aegisctl instance restart web\n",
            "",
        );
    let none = bench.run(&["instance", "update", "web"]);
    assert_eq!(none.code, Some(2));
    assert!(
        none.stderr
            .starts_with("error: nothing to change was given"),
        "{none:?}"
    );
    assert_eq!(bench.fake.calls(), ["update web"]);
}

#[test]
fn prune_asks_or_is_told_not_to() {
    let bench = Bench::new();
    for name in ["busy", "old"] {
        bench.run(&["instance", "start", "--name", name]);
        bench.run(&["instance", "disable", name]);
    }
    bench.run(&["instance", "prune", "--dry-run"]).expect(
        0,
        "Would delete 2 instances:\n  busy  disabled\n  old  disabled\n",
        "",
    );
    bench.run(&["instance", "prune"]).expect(
        2,
        "",
        "error: nobody can be asked whether to delete: stdin and stderr are no terminal \
         (InvalidArgument)\nhint: --force deletes without asking\n",
    );
    bench.run(&["instance", "prune", "--force"]).expect(
        0,
        "Deleted 1 instance: old\nUsed meanwhile and kept: busy\n",
        "",
    );
    assert_eq!(bench.fake.handles(), ["busy", "flaky", "web"]);
    let bad = bench.run(&["instance", "prune", "--older-than", "soon"]);
    assert_eq!(bad.code, Some(2));
}

#[test]
fn kill_top_and_stats_reach_what_runs() {
    let bench = Bench::new();
    bench.run(&["kill", "web"]).expect(0, "web\n", "");
    bench
        .run(&["kill", "-s", "sighup", "web", "flaky"])
        .expect(0, "web\nflaky\n", "");
    assert_eq!(
        bench.fake.calls(),
        ["kill web 9", "kill web 1", "kill flaky 1"]
    );
    let bad = bench.run(&["kill", "-s", "NOPE", "web"]);
    assert_eq!((bad.code, bad.stdout.as_str()), (Some(2), ""));
    bench.run(&["top", "web"]).expect(
        0,
        "PID  PPID  USER  STATE  CPU     MEMORY   STARTED       COMMAND\n\
         1    0     root  S      1.23 s  1.5 MiB  1 minute ago  /init \u{fffd}[2J\n",
        "",
    );
    bench.run(&["stats", "--no-stream", "web"]).expect(
        0,
        "HANDLE  CPU %  MEMORY / LIMIT         MEM %  TASKS  DAEMONS\n\
         web     50.00  256.0 MiB / 512.0 MiB  50.00  9      0\n",
        "",
    );
    let missing = bench.run(&["stats", "--no-stream", "flaky"]);
    assert!(
        missing
            .stderr
            .starts_with("note: the service manager does not account for tasks here\n"),
        "{missing:?}"
    );
}

#[test]
fn wait_ends_with_what_it_waits_for() {
    let bench = Bench::new();
    bench
        .run(&["wait", "web", "--condition", "running"])
        .expect(0, "3\n", "");
    let late = bench.run(&["wait", "web", "--timeout", "0s"]);
    late.expect(
        1,
        "",
        "error: the stop of 'web' did not happen within 0 s (Timeout)\n",
    );
    let waiting = bench.spawn(&mut bench.command(&["wait", "web"]));
    let gone = bench.spawn(&mut bench.command(&["wait", "web", "--condition", "deleted"]));
    bench.run(&["instance", "delete", "web"]);
    for child in [waiting, gone] {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    bench
        .run(&["wait", "web", "--condition", "deleted"])
        .expect(0, "-\n", "");
    assert_eq!(bench.run(&["wait", "web"]).code, Some(1));
}

#[test]
fn events_are_lines() {
    let bench = Bench::new();
    let args = [
        "events",
        "--filter",
        "type=instance",
        "--format",
        "{{.Event}} {{.Name}}",
    ];
    let mut events = bench.spawn(&mut bench.command(&args));
    let mut stderr = events.stderr.take().unwrap();
    wait_for_line(&mut stderr, "Waiting for events; Ctrl-C ends it");
    bench.run(&["instance", "start", "--name", "new"]);
    bench.run(&["instance", "delete", "new"]);
    let mut stdout = events.stdout.take().unwrap();
    wait_for_line(&mut stdout, "created new");
    wait_for_line(&mut stdout, "deleted new");
    kill(Pid::from_raw(events.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(events.wait().unwrap().code(), Some(0));
}

#[test]
fn variables_come_from_files() {
    let bench = Bench::new();
    let file = bench.dir.path().join("env");
    fs::write(&file, "# mine\nA=file\nB=file\n").unwrap();
    let file = file.to_str().unwrap();
    let args = [
        "run",
        "--env-file",
        file,
        "--env",
        "B=flag",
        "--",
        "sh",
        "-c",
        "echo $A $B",
    ];
    bench.run(&args).expect(0, "file flag\n", "");
    fs::write(file, "A=1\nNOT HERE\n").unwrap();
    let bad = bench.run(&args);
    assert_eq!(bad.code, Some(2));
    assert!(
        bad.stderr
            .contains(", line 2: 'NOT HERE' is not the name of a variable"),
        "{bad:?}"
    );
}
