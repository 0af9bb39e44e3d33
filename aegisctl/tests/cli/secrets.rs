//! `secret`, and `--env` where it is about secrets.

use std::io::{Read, Write};
use std::process::Stdio;

use nix::pty::openpty;

use crate::harness::{Bench, Outcome};

#[test]
fn a_value_comes_from_stdin_or_a_file_and_shows_nowhere() {
    let bench = Bench::new();
    bench
        .run_with(&["secret", "set", "KEY"], b"hunter2\n")
        .expect(0, "Secret set: KEY\n", "");
    assert_eq!(bench.fake.secret("KEY").as_deref(), Some("hunter2"));
    let file = bench.dir.path().join("value");
    std::fs::write(&file, "from a file").unwrap();
    let path = file.to_str().unwrap();
    bench
        .run(&["secret", "set", "USED", "--from-file", path])
        .expect(
            0,
            "Secret set: USED\n",
            "note: used from the next start on by web\n",
        );
    assert_eq!(bench.fake.secret("USED").as_deref(), Some("from a file"));
    bench.run(&["secret", "list"]).expect(
        0,
        "NAME  VALUE  SET  USED BY\n\
         KEY   kept   -    -\n\
         USED  kept   -    web\n",
        "",
    );
}

#[test]
fn what_cannot_be_a_secret_is_refused_before_anything_is_sent() {
    let bench = Bench::new();
    for (stdin, words) in [
        (&b""[..], "the value is empty"),
        (b"a\0b", "holds a NUL"),
        (b"\xff", "is not UTF-8"),
    ] {
        let refused = bench.run_with(&["secret", "set", "KEY"], stdin);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    let refused = bench.run(&["secret", "set", "../KEY"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let refused = bench.run(&["secret", "set", "KEY", "--from-file", "/nonexistent"]);
    assert!(
        refused.stderr.contains("cannot read '/nonexistent'"),
        "{refused:?}"
    );
    assert_eq!(bench.fake.secret("KEY"), None);
    // There is no way to give it on the command line.
    assert_eq!(
        bench.run(&["secret", "set", "KEY", "hunter2"]).code,
        Some(2)
    );
}

#[test]
fn a_terminal_is_asked_without_echo() {
    let bench = Bench::new();
    let terminal = openpty(None, None).unwrap();
    let mut command = bench.command(&["secret", "set", "KEY"]);
    let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
    command.stdin(slave()).stdout(slave()).stderr(slave());
    let mut child = command.spawn().unwrap();
    drop(command);
    drop(terminal.slave);
    let mut master = std::fs::File::from(terminal.master);
    let mut shown = Vec::new();
    let mut buffer = [0; 256];
    while !shown.ends_with(b"Value of KEY: ") {
        let length = master.read(&mut buffer).unwrap();
        shown.extend_from_slice(&buffer[..length]);
    }
    master.write_all(b"hunter2\n").unwrap();
    // A terminal whose other end is closed gives an error, not an end.
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..length]);
    }
    assert!(child.wait().unwrap().success());
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("Secret set: KEY"), "{shown:?}");
    assert!(!shown.contains("hunter2"), "{shown:?}");
    assert_eq!(bench.fake.secret("KEY").as_deref(), Some("hunter2"));
}

#[test]
fn a_variable_takes_the_secret_and_else_the_value_of_here() {
    let bench = Bench::new();
    bench.run_with(&["secret", "set", "A"], b"kept");
    let exec = |args: &[&str]| {
        let all = [&["exec", "web"], args, &["--", "sh", "-c", "echo $A $B"]].concat();
        let output = bench
            .command(&all)
            .env("A", "here")
            .env("B", "here")
            .output();
        Outcome::from(output.unwrap())
    };
    exec(&["-e", "A", "-e", "B"]).expect(
        0,
        "kept here\n",
        "note: B is no secret: its value of this environment is used\n",
    );
    exec(&["--env", "B=secret.A"]).expect(0, "kept\n", "");
    exec(&["--env", "A=plain"]).expect(0, "plain\n", "");
    let missing = bench.run(&["instance", "start", "--name", "new", "--env", "NONE"]);
    missing.expect(
        2,
        "",
        "error: there is no secret NONE, and no variable NONE in this environment (InvalidArgument)\n\
         hint: keep it: aegisctl secret set NONE; or export it here\n",
    );
    assert!(!bench.fake.handles().contains(&"new".to_owned()));
    let output = bench
        .command(&["instance", "start", "--name", "new", "--env", "B"])
        .env("B", "here")
        .output();
    let outcome = Outcome::from(output.unwrap());
    assert_eq!(
        outcome.stderr.lines().next(),
        Some(
            "note: B is no secret: its value of this environment is kept encrypted with the instance"
        )
    );
}

#[test]
fn deleting_says_who_uses_it() {
    let bench = Bench::new();
    bench.run_with(&["secret", "set", "USED"], b"v");
    bench.run(&["secret", "delete", "USED"]).expect(
        1,
        "",
        "error: cannot delete the secret 'USED': the secret 'USED' is used by web (SecretInUse)\n\
         hint: delete the instances first\n",
    );
    bench.run(&["secret", "rm", "--force", "USED"]).expect(
        0,
        "Secret deleted: USED\n",
        "note: these cannot start without it: web\n",
    );
}

#[test]
fn a_file_of_variables_becomes_secrets_and_shows_no_value() {
    let bench = Bench::new();
    let text = b"# mine\nA=hunter2\nB=x=y\n";
    bench
        .run_with(&["secret", "import", "-"], text)
        .expect(0, "A\nB\n", "");
    assert_eq!(bench.fake.secret("B").as_deref(), Some("x=y"));
    let file = bench.dir.path().join("more.env");
    std::fs::write(&file, "A=hunter3\nC=c\n").unwrap();
    let path = file.to_str().unwrap();
    let refused = bench.run(&["secret", "import", path]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(bench.fake.secret("C"), None);
    bench
        .run(&["secret", "import", "--replace", path])
        .expect(0, "A\nC\n", "");
    assert_eq!(bench.fake.secret("A").as_deref(), Some("hunter3"));
    let refused = bench.run_with(&["secret", "import", "-"], b"D=d\n hunter2 4\n");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.starts_with("error: -, line 2: "),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("hunter2"), "{refused:?}");
    assert_eq!(bench.fake.secret("D"), None);
}

#[test]
fn the_key_is_shown_and_rotated() {
    let bench = Bench::new();
    bench.run_with(&["secret", "set", "KEY"], b"hunter2\n");
    bench.run_with(&["secret", "set", "LOST"], b"hunter2\n");
    bench.run(&["secret", "status"]).expect(
        0,
        "Key:         in clear in its file; systemd-creds seals the next: \
         aegisctl secret rotate-key\n\
         Key id:      0123456789abcdef\n\
         Key file:    /home/alice/.aegis/secrets.key\n\
         Values:      2, 1 cannot be read: aegisctl secret list\n",
        "",
    );
    bench.run(&["secret", "rotate-key"]).expect(
        0,
        "Key rotated: 1 value has the new key fedcba9876543210\n",
        "note: these could not be read and stay as they are: LOST\n",
    );
    let status = bench.run(&["secret", "status"]).stdout;
    let sealed = "Key:         sealed by systemd-creds, opens with the host's key\n";
    assert!(status.starts_with(sealed), "{status}");
}

#[test]
fn uses_are_read_from_the_journal() {
    let bench = Bench::new();
    let record = serde_json::json!({
        "__REALTIME_TIMESTAMP": "1000000",
        "AEGIS_SECRET": "KEY",
        "AEGIS_INSTANCE": "web",
        "AEGIS_UNIT": "aegis-vm-web.service",
        "AEGIS_PURPOSE": "start",
        "AEGIS_VARIABLE": "API_KEY",
    });
    std::fs::write(bench.dir.path().join("bin/journal"), format!("{record}\n")).unwrap();
    let log = bench.run(&["secret", "log", "KEY"]);
    assert_eq!(log.code, Some(0), "{log:?}");
    let line = log.stdout.lines().nth(1).unwrap();
    assert!(line.contains("web  "), "{line}");
    assert!(
        line.contains("aegis-vm-web.service  start  API_KEY"),
        "{line}"
    );
    bench.break_journal();
    let failed = bench.run(&["secret", "log", "KEY"]);
    assert!(failed.stderr.contains("no permission"), "{failed:?}");
}

#[test]
fn who_has_an_older_value_is_told_or_started_anew_after_it_is_listed() {
    let bench = Bench::new();
    let refreshed = || {
        let calls = bench.fake.calls().into_iter();
        calls
            .filter(|call| call.starts_with("refresh"))
            .collect::<Vec<_>>()
    };
    bench
        .run_with(&["secret", "set", "STALE"], b"hunter2")
        .expect(
            0,
            "Secret set: STALE\n",
            "note: stale until the next start in web (gateway, guest); \
             at once: aegisctl secret set STALE --apply\n",
        );
    assert!(refreshed().is_empty());
    bench
        .run_with(&["secret", "set", "STALE", "--apply"], b"hunter3")
        .expect(
            0,
            "Secret set: STALE\n",
            "starting anew what has an older value:\n  web: gateway, guest\n\
             note: in use by web\n",
        );
    assert_eq!(refreshed(), ["refresh web STALE"]);
    bench
        .run_with(&["secret", "set", "NEW", "--apply"], b"v")
        .expect(0, "Secret set: NEW\n", "note: nobody has an older value\n");
}

#[test]
fn one_that_cannot_be_started_anew_does_not_keep_the_others_from_it() {
    let bench = Bench::new();
    let made = bench.run(&["instance", "start", "--name", "flawed"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let text = b"STALE=hunter2\nA=a\n";
    bench
        .run_with(&["secret", "import", "-", "--apply"], text)
        .expect(
            1,
            "A\nSTALE\n",
            "starting anew what has an older value:\n  flawed: gateway, guest\n  \
             web: gateway, guest\nnote: in use by web\n\
             error: the value is kept, but not in use everywhere: cannot start 'flawed' anew: \
             the guest does not answer (GuestTimeout)\n",
        );
}
