//! Commands about instances, and what is said when they fail.

use crate::harness::{Bench, Outcome};

#[test]
fn a_usage_error_is_2_and_help_names_the_exit_codes() {
    let bench = Bench::without_aegisd();
    let unknown = bench.run(&["run", "--frobnicate", "--", "true"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("--frobnicate"), "{unknown:?}");
    let help = bench.run(&["--help"]);
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("Exit codes:"), "{help:?}");
}

#[test]
fn the_program_answers_to_both_names() {
    let bench = Bench::without_aegisd();
    let link = bench.dir.path().join("aegis");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_aegisctl"), &link).unwrap();
    let output = std::process::Command::new(link).arg("--help").output();
    let help = Outcome::from(output.unwrap());
    assert!(help.stdout.contains("Usage: aegis "), "{help:?}");
}

#[test]
fn without_aegisd_the_failure_says_so() {
    let bench = Bench::without_aegisd();
    let outcome = bench.run(&["instance", "list"]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .starts_with("error: cannot list the instances: aegisd is not installed"),
        "{outcome:?}"
    );
    assert!(
        outcome.stderr.contains("(AegisdMissing)\nhint: "),
        "{outcome:?}"
    );
}

#[test]
fn without_a_bus_the_failure_says_so() {
    let bench = Bench::without_aegisd();
    let output = bench
        .command(&["run", "--", "true"])
        .env("AEGIS_BUS_ADDRESS", "unix:path=/nonexistent")
        .output();
    let outcome = Outcome::from(output.unwrap());
    assert_eq!(outcome.code, Some(125));
    assert!(outcome.stderr.contains("(NoBus)\n"), "{outcome:?}");
}

#[test]
fn an_unknown_instance_is_named() {
    let bench = Bench::new();
    bench.run(&["instance", "stop", "nope"]).expect(
        1,
        "",
        "error: cannot stop 'nope': there is no instance 'nope' (NotFound)\n\
         hint: aegisctl instance list shows all\n",
    );
    bench.run(&["--json", "instance", "info", "nope"]).expect(
        1,
        "",
        "{\"error\":{\"hint\":\"aegisctl instance list shows all\",\"message\":\"cannot show 'nope': \
         there is no instance 'nope'\",\"symbol\":\"NotFound\"},\"version\":1}\n",
    );
}

#[test]
fn list_and_info_show_what_there_is() {
    let bench = Bench::new();
    bench.run(&["instance", "list"]).expect(
        0,
        "HANDLE  KIT    STATE    IMAGE  PORTS              CREATED\n\
         flaky   agent  running  base   127.0.0.1:8080:80  -\n\
         web     agent  running  base   127.0.0.1:8080:80  -\n",
        "",
    );
    let info = bench.run(&["instance", "info", "web"]);
    assert_eq!(info.code, Some(0));
    for line in [
        "Handle:      web",
        "Gateway:     running",
        "Last exit:   code 3",
    ] {
        assert!(info.stdout.lines().any(|found| found == line), "{info:?}");
    }
    let json = bench.run(&["instance", "info", "web", "--json"]).stdout;
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["version"], 1);
    assert_eq!(value["instance"]["daemons"][0]["state"], "running");
}

#[test]
fn stop_says_that_the_next_use_wakes_it() {
    let bench = Bench::new();
    bench.run(&["instance", "stop", "web", "--grace", "3"]).expect(
        0,
        "Instance web stopped; 127.0.0.1:8080:80 and its control socket keep listening, and the \
         next use wakes it\nTo keep it off: aegisctl instance disable web\n",
        "",
    );
    let again = bench.run(&["instance", "stop", "web"]);
    assert!(
        again
            .stdout
            .starts_with("Instance web is stopped already; "),
        "{again:?}"
    );
    bench.run(&["instance", "stop", "web", "--json"]).expect(
        0,
        "{\"handle\":\"web\",\"outcome\":\"unchanged\",\"version\":1}\n",
        "",
    );
}

#[test]
fn an_operation_outlives_the_end_of_aegisd() {
    let bench = Bench::new();
    let outcome = bench.run(&["instance", "stop", "flaky"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(bench.fake.calls(), ["stop flaky"]);
}

#[test]
fn the_end_of_an_operation_is_seen_though_nobody_tells_of_it() {
    let bench = Bench::new();
    let outcome = bench.run(&["instance", "disable", "flaky"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(bench.fake.calls(), ["disable flaky"]);
}

#[test]
fn start_makes_starts_or_enables() {
    let note = "note: lingering is off, so your instances end when you log out\n\
                hint: loginctl enable-linger\n";
    let bench = Bench::new();
    bench
        .run(&["instance", "start", "--name", "new", "--expose", "81:80"])
        .expect(
            0,
            "Instance started: new\nPort:        127.0.0.1:81:80\n",
            note,
        );
    let again = bench.run(&["--quiet", "instance", "start", "--name", "new"]);
    again.expect(
        0,
        "Instance runs already: new\nPort:        127.0.0.1:81:80\n",
        "",
    );
    let other = bench.run(&["instance", "start", "--name", "new", "--memory", "1G"]);
    assert_eq!(other.code, Some(1));
    assert!(
        other.stderr.starts_with(
            "error: the instance 'new' exists already with other settings \
                 (memory: have 256 MiB, asked 1024 MiB)"
        ),
        "{other:?}"
    );
    let replaced = [
        "--quiet", "instance", "start", "--name", "new", "--memory", "1G",
    ];
    let replaced = bench.run(&[&replaced[..], &["--replace"]].concat());
    replaced.expect(0, "Instance started: new\n", "");
    bench.run(&["instance", "disable", "new"]);
    bench.run(&["instance", "start", "--name", "new"]);
    assert_eq!(
        bench.fake.calls(),
        [
            "create new",
            "start new",
            "delete new",
            "create new",
            "disable new",
            "enable new",
            "start new"
        ]
    );
}

#[test]
fn an_instance_that_does_not_start_says_why() {
    let bench = Bench::new();
    bench
        .run(&["instance", "start", "--name", "broken"])
        .expect(
            1,
            "",
            "error: cannot make the instance 'broken': there is no kernel (KernelMissing)\n\
         hint: make kernel\n",
        );
}

#[test]
fn pause_resume_and_delete_say_what_they_did() {
    let bench = Bench::new();
    for (args, said) in [
        (["instance", "pause", "web"], "Instance web paused\n"),
        (
            ["instance", "pause", "web"],
            "Instance web is paused already\n",
        ),
        (["instance", "resume", "web"], "Instance web resumed\n"),
        (["instance", "resume", "web"], "Instance web runs already\n"),
        (["instance", "delete", "web"], "Instance web deleted\n"),
    ] {
        bench.run(&args).expect(0, said, "");
    }
    assert_eq!(bench.fake.handles(), ["flaky"]);
}

#[test]
fn sleeping_and_waking_say_what_they_did() {
    let bench = Bench::new();
    for (args, said) in [
        (
            "instance hibernate web",
            "Instance web hibernated; its next use wakes it\n",
        ),
        (
            "instance hibernate web",
            "Instance web is hibernated already\n",
        ),
        ("instance wake web", "Instance web woken\n"),
        ("instance wake web", "Instance web runs already\n"),
        (
            "instance keep-awake web --for 90m --reason backup",
            "Instance web is kept awake for 1h30m\n",
        ),
        (
            "instance keep-awake web --end --reason backup",
            "Instance web may sleep again\n",
        ),
        (
            "instance keep-awake web --end --reason other",
            "Instance web is not kept awake for \"other\"\n",
        ),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        bench.run(&args).expect(0, said, "");
    }
    let calls = bench.fake.calls();
    assert!(
        calls.contains(&"keep-awake web backup 5400".to_owned()),
        "{calls:?}"
    );
    for (args, problem) in [
        ("instance keep-awake web", "--for <TIME>"),
        ("instance keep-awake web --for soon", "not a duration"),
        ("instance start --idle-pause 0s", "is no idle time"),
        (
            "instance update web --idle-hibernate 5",
            "Instance web updated",
        ),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let ran = bench.run(&args);
        let text = format!("{}{}", ran.stdout, ran.stderr);
        assert!(text.contains(problem), "{text}");
    }
}

#[test]
fn version_starts_nothing() {
    let own = env!("CARGO_PKG_VERSION");
    Bench::without_aegisd().run(&["version"]).expect(
        0,
        &format!("aegisctl {own}\naegisd is not running\n"),
        "",
    );
    Bench::new()
        .run(&["version"])
        .expect(0, &format!("aegisctl {own}\naegisd 9.9\n"), "");
}
