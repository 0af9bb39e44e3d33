//! The shim as units call it: real processes, no service manager.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

fn shim() -> Command {
    let mut shim = Command::new(env!("CARGO_BIN_EXE_aegis-shim"));
    shim.env_clear();
    shim
}

fn run_daemon(folder: &Path, program: &str, args: &[&str]) -> Output {
    let spec = folder.join("daemon.json");
    let text = json!({
        "instance": "web",
        "name": "gateway",
        "program": program,
        "args": args,
        "env": {"GREETING": "hello; $HOME 'ü'"},
        "workdir": folder,
        "state_dir": folder,
        "restart_max_delay_ms": 60_000,
        "restart_reset_after_ms": 600_000,
    });
    std::fs::write(&spec, text.to_string()).expect("write the spec");
    shim()
        .env("NOTIFY_SOCKET", "/run/nowhere")
        .env("OTHER", "must not pass")
        .args(["daemon", "--spec"])
        .arg(spec)
        .output()
        .expect("run the shim")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is text")
}

#[test]
fn the_daemon_gets_its_environment_and_folder_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let output = run_daemon(folder.path(), "/usr/bin/env", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "GREETING=hello; $HOME 'ü'\nNOTIFY_SOCKET=/run/nowhere\n"
    );
    let output = run_daemon(folder.path(), "/bin/pwd", &["-P"]);
    let real = folder.path().canonicalize().unwrap();
    assert_eq!(text(&output.stdout).trim_end(), real.to_str().unwrap());
}

#[test]
#[cfg(target_os = "linux")]
fn the_daemon_has_no_capabilities_and_no_blocked_or_ignored_signals() {
    let folder = tempfile::tempdir().unwrap();
    let output = run_daemon(folder.path(), "/bin/cat", &["/proc/self/status"]);
    let status = text(&output.stdout);
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].trim().to_owned()
    };
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "SigBlk:"] {
        assert_eq!(field(name), "0000000000000000", "{name}");
    }
    // Bits from 31 on are real-time signals: two of them are libc's own, which no
    // program can set.
    let ignored = u64::from_str_radix(&field("SigIgn:"), 16).unwrap();
    assert_eq!(ignored & 0x7fff_ffff, 0, "{ignored:x}");
    assert_eq!(field("NoNewPrivs:"), "1");
}

#[test]
fn a_daemon_that_cannot_run_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let output = run_daemon(folder.path(), "/nonexistent/gateway", &[]);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(
        text(&output.stderr),
        "aegis-shim: cannot run /nonexistent/gateway for daemon 'gateway': \
         No such file or directory (os error 2)\n"
    );
    let output = run_daemon(folder.path(), "/etc/passwd", &[]);
    assert_eq!(output.status.code(), Some(126));
}

#[test]
fn a_spec_that_is_missing_or_wrong_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("x.json");
    let run = || {
        shim()
            .args(["daemon", "--spec"])
            .arg(&spec)
            .output()
            .unwrap()
    };
    let missing = run();
    assert_eq!(missing.status.code(), Some(125));
    assert!(text(&missing.stderr).contains("cannot read the daemon spec"));
    std::fs::write(&spec, "{}").unwrap();
    let wrong = run();
    assert_eq!(wrong.status.code(), Some(125));
    assert!(text(&wrong.stderr).contains("missing field"));
}

#[test]
fn a_wrong_command_line_is_refused() {
    let output = shim().arg("door").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
