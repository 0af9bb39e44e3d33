//! What `--json` prints is as docs/schemas says.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Bench, Outcome};
use crate::import::Old;
use crate::schema::validate;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas")
}

#[track_caller]
fn check(schema: &str, text: &str) {
    assert!(!text.is_empty(), "{schema}: nothing was printed");
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{schema}: {error}: {line}");
        });
        if let Err(errors) = validate(&folder(), schema, &value) {
            panic!("{schema}: {errors:#?}\n{value:#}");
        }
    }
}

fn output(bench: &Bench, args: &[&str]) -> String {
    let outcome: Outcome = bench.run(&[&["--json"], args].concat());
    assert!(!outcome.stdout.is_empty(), "{args:?}: {outcome:?}");
    outcome.stdout
}

/// A command line and the schema of what it prints. Later ones see what earlier
/// ones changed.
const DOCUMENTS: [(&str, &str); 50] = [
    ("instance list", "instance-list.json"),
    ("instance info web", "instance-info.json"),
    ("instance inspect web flaky", "instance-inspect.json"),
    (
        "instance start --name new --label a=b",
        "instance-start.json",
    ),
    ("instance update new --memory 512", "instance-start.json"),
    ("instance expose web 80", "instance-start.json"),
    ("instance unexpose web 80", "instance-start.json"),
    ("instance restart new", "outcome.json"),
    ("instance pause new", "outcome.json"),
    ("instance resume new", "outcome.json"),
    ("instance hibernate new", "outcome.json"),
    ("instance wake new", "outcome.json"),
    ("instance keep-awake new --for 10m", "outcome.json"),
    ("instance stop new", "outcome.json"),
    ("instance disable new", "outcome.json"),
    ("instance prune --dry-run", "instance-prune.json"),
    ("instance prune --force", "instance-prune.json"),
    ("instance enable web", "outcome.json"),
    ("kit list", "kit-list.json"),
    ("image pull alpine", "image-pull.json"),
    (
        "image import /proc/version mine --change USER=www",
        "image-import.json",
    ),
    ("image list", "image-list.json"),
    ("image inspect alpine", "image-inspect.json"),
    ("image remove alpine", "image-removed.json"),
    ("image prune --dry-run", "image-removed.json"),
    ("instance start --name new", "instance-start.json"),
    ("top new", "top.json"),
    ("stats --no-stream", "stats.json"),
    ("kill -s TERM new", "kill.json"),
    ("instance stop new", "outcome.json"),
    ("wait new", "wait.json"),
    ("instance delete new", "outcome.json"),
    ("secret set KEY --from-file /proc/version", "secret.json"),
    (
        "secret set STALE --apply --from-file /proc/version",
        "secret.json",
    ),
    ("secret list", "secret-list.json"),
    ("secret status", "secret-status.json"),
    ("secret rotate-key", "secret-rotated.json"),
    ("secret import /dev/null", "secret-imported.json"),
    ("secret log KEY", "secret-log.json"),
    ("secret delete KEY", "secret.json"),
    ("volume create cache", "volume-created.json"),
    ("volume list", "volume-list.json"),
    ("volume inspect cache", "volume-list.json"),
    ("volume remove cache", "volume-removed.json"),
    ("volume prune --force", "volume-removed.json"),
    ("tether send web hello", "tether-send.json"),
    (
        "tether send --wait --msg-id m web hello",
        "tether-send.json",
    ),
    ("tether read web", "tether-read.json"),
    ("status", "status.json"),
    ("version", "version.json"),
];

/// Those that end aegisd or need it at its beginning.
const CONTROL: [(&str, &str); 3] = [
    ("doctor", "doctor.json"),
    ("up", "up.json"),
    ("down", "down.json"),
];

#[test]
fn every_document_is_as_its_schema_says() {
    let bench = Bench::new();
    for (line, schema) in DOCUMENTS.into_iter().chain(CONTROL) {
        let words: Vec<&str> = line.split(' ').collect();
        check(schema, &output(&bench, &words));
    }
    let mut logout = bench.command(&["--json", "logout", "registry.invalid"]);
    logout.env("REGISTRY_AUTH_FILE", bench.dir.path().join("auth.json"));
    let logout = logout.output().unwrap();
    check("login.json", &String::from_utf8(logout.stdout).unwrap());
    let old = Old::new(&bench);
    check(
        "imported.json",
        &output(&bench, &["import", "--from", old.from()]),
    );
    let failed = bench.run(&["--json", "instance", "stop", "nope"]);
    check("error.json", &failed.stderr);
}

#[test]
fn every_line_of_a_stream_is_as_its_schema_says() {
    let bench = Bench::new();
    let path = bench.dir.path().join("command.log");
    fs::write(
        &path,
        "{\"seq\":1,\"time\":2,\"stream\":\"stdout\",\"line\":\"x\",\"partial\":true}\n",
    )
    .unwrap();
    bench.fake.set_logs(vec![path]);
    bench.set_journal(&[("gateway", 5, "hello")]);
    let logs = output(&bench, &["logs", "web"]);
    assert_eq!(logs.lines().count(), 2);
    check("logs.json", &logs);

    bench.run(&["tether", "send", "web", "hello"]);
    let mut follow = bench.command(&["--json", "tether", "follow", "web", "--after", "0"]);
    let mut follow = bench.spawn(&mut follow);
    let stdout = BufReader::new(follow.stdout.take().unwrap()).lines();
    for line in stdout.take(3) {
        check("tether-follow.json", &line.unwrap());
    }
    kill(Pid::from_raw(follow.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(follow.wait().unwrap().code(), Some(0));

    let mut events = bench.spawn(&mut bench.command(&["events", "--json"]));
    let mut stderr = events.stderr.take().unwrap();
    crate::harness::wait_for_line(&mut stderr, "Waiting for events; Ctrl-C ends it");
    bench.run(&["instance", "start", "--name", "new"]);
    bench.run(&["instance", "delete", "new"]);
    let mut stdout = BufReader::new(events.stdout.take().unwrap()).lines();
    let mut seen = BTreeSet::new();
    while !seen.contains("deleted") {
        let line = stdout.next().unwrap().unwrap();
        check("events.json", &line);
        let value: Value = serde_json::from_str(&line).unwrap();
        seen.insert(value["event"].as_str().unwrap().to_owned());
    }
    assert!(seen.contains("created"), "{seen:?}");
    kill(Pid::from_raw(events.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(events.wait().unwrap().code(), Some(0));
}

#[test]
fn every_schema_is_held_to() {
    let used: BTreeSet<&str> = DOCUMENTS
        .iter()
        .chain(&CONTROL)
        .map(|(_, schema)| *schema)
        .chain([
            "error.json",
            "logs.json",
            "events.json",
            "tether-follow.json",
            "instance.json",
            "login.json",
            "imported.json",
        ])
        .collect();
    let there: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    let used: BTreeSet<String> = used.into_iter().map(str::to_owned).collect();
    assert_eq!(used, there);
}
