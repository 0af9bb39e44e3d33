//! `import`: what the original AegisVM keeps.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use aes_gcm::aead::Aead;
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::harness::{Bench, Outcome};

const KEY: [u8; 32] = [9; 32];
const VALUE: &str = "zq-hunter2";
/// The tables of the original, as far as it is read.
const TABLES: &str = "
    PRAGMA journal_mode=WAL;
    CREATE TABLE instances (id TEXT PRIMARY KEY, state TEXT NOT NULL DEFAULT 'stopped',
        command TEXT NOT NULL, expose_ports TEXT NOT NULL DEFAULT '[]',
        handle TEXT NOT NULL DEFAULT '', image_ref TEXT NOT NULL DEFAULT '',
        env TEXT NOT NULL DEFAULT '{}', secret_keys TEXT NOT NULL DEFAULT '[]',
        enabled INTEGER NOT NULL DEFAULT 1, kit TEXT NOT NULL DEFAULT '');
    CREATE TABLE secrets (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, value BLOB NOT NULL);
    CREATE TABLE tether_frames (instance_id TEXT, seq INTEGER, frame TEXT);
    INSERT INTO tether_frames VALUES
        ('inst-1', 4, '{\"v\":1,\"type\":\"user.message\",\"session\":{\"channel\":\"ui\",\"id\":\"a\"}}'),
        ('inst-1', 5, '{\"v\":1,\"type\":\"event.ack\",\"session\":{\"channel\":\"ui\",\"id\":\"a\"}}'),
        ('inst-1', 6, '{}');";

/// The folder of an original.
pub(crate) struct Old {
    folder: PathBuf,
}

impl Old {
    pub(crate) fn new(bench: &Bench) -> Self {
        let folder = bench.dir.path().join("old");
        fs::create_dir_all(folder.join("data")).unwrap();
        fs::write(folder.join("master.key"), KEY).unwrap();
        let old = Self { folder };
        old.execute(TABLES);
        old.keep("API_KEY", VALUE);
        old
    }

    fn execute(&self, sql: &str) {
        let database = Connection::open(self.folder.join("data/aegis.db")).unwrap();
        database.execute_batch(sql).unwrap();
    }

    fn keep(&self, name: &str, value: &str) {
        let cipher = Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(&KEY));
        let nonce = [3; 12];
        let sealed = cipher
            .encrypt(Nonce::from_slice(&nonce), value.as_bytes())
            .unwrap();
        let value = [&nonce[..], &sealed].concat();
        let database = Connection::open(self.folder.join("data/aegis.db")).unwrap();
        let insert = "INSERT INTO secrets VALUES (?1, ?1, ?2)";
        database.execute(insert, params![name, value]).unwrap();
    }

    /// Instances, as columns after the id and the command.
    fn add(&self, id: &str, columns: &str, values: &str) {
        self.execute(&format!(
            "INSERT INTO instances (id, command, {columns}) VALUES ('{id}', '[\"serve\"]', {values})"
        ));
    }

    pub(crate) fn from(&self) -> &str {
        self.folder.to_str().unwrap()
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push((path.clone(), fs::read(path).unwrap())),
                }
            }
        }
        files.sort();
        files
    }
}

fn import(bench: &Bench, old: &Old, more: &[&str]) -> Outcome {
    let args = [&["import", "--from", old.from()], more].concat();
    let outcome = bench.run(&args);
    for text in [&outcome.stdout, &outcome.stderr] {
        assert!(!text.contains(VALUE), "{text}");
    }
    outcome
}

/// An instance with a secret, and one that is disabled.
fn usual(old: &Old) {
    old.add(
        "inst-1",
        "handle, image_ref, secret_keys",
        "'shop', 'python:3.12-alpine', '[\"API_KEY\"]'",
    );
    old.add("inst-2", "image_ref, enabled", "'alpine', 0");
}

#[test]
fn all_is_taken_over_once() {
    let bench = Bench::new();
    let old = Old::new(&bench);
    usual(&old);
    let before = old.files();
    let note = format!(
        "note: messages of other instances, and what cannot be read as one, are not taken over: \
         1 stay in {}/data/aegis.db, table tether_frames\n",
        old.from()
    );
    let planned = "\
        WHAT      NAME                                  OUTCOME\n\
        image     docker.io/library/python:3.12-alpine  to be pulled\n\
        secret    API_KEY                               to be imported\n\
        instance  shop                                  to be imported\n\
        messages  shop                                  2 to be imported\n\
        instance  inst-2                                to be imported, disabled\n";
    import(&bench, &old, &["--dry-run"]).expect(
        0,
        planned,
        &format!("{note}Nothing was changed: this is what an import would do.\n"),
    );
    assert!(bench.fake.calls().is_empty(), "{:?}", bench.fake.calls());
    let done = planned.replace("to be ", "");
    let end = "No instance was started: aegisctl instance start --name NAME\n";
    import(&bench, &old, &[]).expect(0, &done, &format!("{note}{end}"));
    let calls = [
        "pull docker.io/library/python:3.12-alpine",
        "create shop",
        "create inst-2",
    ];
    assert_eq!(bench.fake.calls(), calls);
    assert_eq!(bench.fake.secret("API_KEY").as_deref(), Some(VALUE));
    let listed = bench.run(&["instance", "list", "--format", "{{.Name}} {{.State}}"]);
    for line in ["shop stopped", "inst-2 disabled"] {
        assert!(
            listed.stdout.lines().any(|found| found == line),
            "{listed:?}"
        );
    }
    let read = bench.run(&["tether", "read", "shop"]).stdout;
    let numbers = read.lines().skip(1).map(|line| &line[..1]);
    assert_eq!(numbers.collect::<Vec<_>>(), ["4", "5"], "{read}");
    let again = import(&bench, &old, &[]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(again.stdout.matches("already here").count(), 3, "{again:?}");
    assert!(!again.stdout.contains("messages"), "{again:?}");
    assert!(
        again
            .stderr
            .ends_with("Everything is here already; nothing was changed.\n")
    );
    assert_eq!(bench.fake.calls(), calls);
    assert!(before == old.files(), "the folder is only read");
}

#[test]
fn all_that_stands_in_the_way_is_told_at_once_and_nothing_is_made() {
    let bench = Bench::new();
    let old = Old::new(&bench);
    old.add("inst-1", "handle", "'web'");
    old.add("inst-2", "handle, kit", "'agent', 'none'");
    old.add("inst-3", "handle", "'odd-'");
    old.add("inst-4", "handle, env", "'words', 'KEY'");
    old.execute("UPDATE secrets SET value = x'00' WHERE name = 'API_KEY'");
    let refused = import(&bench, &old, &[]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    for words in [
        "error: nothing was imported: ",
        "the value of the secret API_KEY does not open with master.key; ",
        "the column env of the instance words does not hold what belongs there; ",
        "the instance 'odd-' cannot keep its name, choose one: --rename odd-=NAME: the handle",
        "there is an instance 'web' here with other settings (memory: have 256 MiB, asked 512 MiB)",
        "the kit 'none' of the instance 'agent' is not installed here",
    ] {
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    }
    assert!(bench.fake.calls().is_empty(), "{:?}", bench.fake.calls());
    assert_eq!(bench.fake.secret("API_KEY"), None);
    let refused = import(&bench, &old, &["--json"]);
    let error: Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!(error["error"]["problems"].as_array().unwrap().len(), 5);
    // Each has a way out.
    let ways = [
        "--without-secrets",
        "--skip=inst-2",
        "--skip=words",
        "--rename=odd-=even",
        "--rename=web=other",
    ];
    let imported = import(&bench, &old, &ways);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    assert_eq!(bench.fake.calls(), ["create other", "create even"]);
}

#[test]
fn secrets_that_are_here_stay_unless_they_are_to_be_replaced() {
    let bench = Bench::new();
    let old = Old::new(&bench);
    usual(&old);
    let needs = import(&bench, &old, &["--without-secrets"]);
    let words = "the instance 'shop' needs the secret API_KEY, which is not here";
    assert!(needs.stderr.contains(words), "{needs:?}");
    bench.run_with(&["secret", "set", "API_KEY"], b"ours");
    let outcome = import(&bench, &old, &[]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(bench.fake.secret("API_KEY").as_deref(), Some("ours"));
    let outcome = import(&bench, &old, &["--replace-secrets"]);
    assert!(outcome.stdout.contains("replaced"), "{outcome:?}");
    assert_eq!(bench.fake.secret("API_KEY").as_deref(), Some(VALUE));
}

#[test]
fn an_original_that_runs_is_left_alone() {
    let bench = Bench::new();
    let old = Old::new(&bench);
    usual(&old);
    let listener = UnixListener::bind(Path::new(old.from()).join("aegisd.sock")).unwrap();
    let outcome = import(&bench, &old, &[]);
    let folder = old.from();
    outcome.expect(
        1,
        "",
        &format!(
            "error: cannot import from {folder}: its aegisd runs: it answers at \
             {folder}/aegisd.sock (OriginalRuns)\n\
             hint: stop it (`aegis down` of that installation) and call this again; nothing \
             was touched\n"
        ),
    );
    assert!(bench.fake.calls().is_empty());
    drop(listener);
    assert_eq!(import(&bench, &old, &[]).code, Some(0));
}

#[test]
fn what_was_done_before_a_failure_is_told() {
    let bench = Bench::new();
    let old = Old::new(&bench);
    for (id, name) in [("inst-1", "a"), ("inst-2", "broken"), ("inst-3", "c")] {
        old.add(id, "handle", &format!("'{name}'"));
    }
    let stopped = import(&bench, &old, &[]);
    stopped.expect(
        1,
        "",
        "error: the import stopped; done: secret API_KEY, instance a, messages of a; not done: \
         instance broken, instance c: cannot make the instance 'broken': there is no kernel (KernelMissing)\n\
         hint: make kernel\n\
         hint: call it again once that is mended: what is done is left as it is\n",
    );
    let again = import(&bench, &old, &[]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(bench.fake.handles().contains(&"c".to_owned()));
}

#[test]
fn a_folder_without_an_original_is_told() {
    let bench = Bench::new();
    let folder = bench.dir.path().to_str().unwrap();
    bench.run(&["import", "--from", folder]).expect(
        1,
        "",
        &format!(
            "error: cannot import from {folder}: there is no database {folder}/data/aegis.db \
             (NotFound)\n\
             hint: --from is the folder that has data/aegis.db, usually ~/.aegis\n"
        ),
    );
    let old = Old::new(&bench);
    fs::remove_file(Path::new(old.from()).join("master.key")).unwrap();
    let outcome = import(&bench, &old, &[]);
    assert!(
        outcome.stderr.contains("there are secrets, and their key"),
        "{outcome:?}"
    );
}
