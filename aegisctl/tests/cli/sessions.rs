//! `run` and `exec`: streams, signals, exit codes.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use crate::harness::{Bench, Outcome, wait_for_line};

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn run_prints_what_the_command_prints_and_leaves_nothing() {
    let bench = Bench::new();
    bench
        .run(&["run", "--", "echo", "hello"])
        .expect(0, "hello\n", "");
    assert_eq!(bench.fake.handles(), ["flaky", "web"]);
    assert_eq!(bench.fake.calls(), ["create run-1"]);
}

#[test]
fn the_streams_are_apart_and_the_code_is_the_commands() {
    let bench = Bench::new();
    bench
        .run(&[
            "exec",
            "web",
            "--",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 7",
        ])
        .expect(7, "out\n", "err\n");
}

#[test]
fn the_end_of_stdin_reaches_the_command() {
    let bench = Bench::new();
    bench
        .run_with(&["exec", "web", "--", "cat"], b"through and through")
        .expect(0, "through and through", "");
    bench.run(&["exec", "web", "--", "cat"]).expect(0, "", "");
    let unread = bench.run_with(&["exec", "-n", "web", "--", "cat"], b"unread");
    unread.expect(0, "", "");
}

#[test]
fn a_closed_stdin_is_an_empty_one() {
    let bench = Bench::new();
    let aegisctl = bench.command(&[]);
    let mut sh = std::process::Command::new("sh");
    sh.arg("-c")
        .arg(r#""$0" exec web -- cat <&-; echo "code $?""#)
        .arg(aegisctl.get_program());
    for (key, value) in aegisctl.get_envs() {
        if let Some(value) = value {
            sh.env(key, value);
        }
    }
    Outcome::from(sh.output().unwrap()).expect(0, "code 0\n", "");
}

#[test]
fn an_open_stdin_does_not_hold_a_command_that_ends() {
    let bench = Bench::new();
    let mut child = bench.spawn(
        bench
            .command(&["exec", "web", "--", "true"])
            .stdin(Stdio::piped()),
    );
    let _open = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn two_hundred_megabytes_arrive_intact() {
    const SIZE: usize = 200_000_000;
    let bench = Bench::new();
    let mut child = bench.spawn(
        bench
            .command(&["exec", "web", "--", "cat"])
            .stdin(Stdio::piped()),
    );
    let byte = |index: usize| (index % 251).to_le_bytes()[0];
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        let mut sent = 0;
        while sent < SIZE {
            let end = SIZE.min(sent + 1_000_000);
            let chunk: Vec<u8> = (sent..end).map(byte).collect();
            stdin.write_all(&chunk).unwrap();
            sent = end;
        }
    });
    let mut stdout = child.stdout.take().unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut received = 0;
    loop {
        let count = stdout.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        for (offset, &found) in buffer[..count].iter().enumerate() {
            assert!(found == byte(received + offset), "at {}", received + offset);
        }
        received += count;
    }
    assert_eq!(received, SIZE);
    writer.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_cannot_be_run_has_its_own_codes() {
    let bench = Bench::new();
    let missing = bench.run(&["exec", "web", "--", "/no/such/command"]);
    assert_eq!(missing.code, Some(127));
    assert!(
        missing.stderr.ends_with("(CommandNotFound)\n"),
        "{missing:?}"
    );
    let not_executable = bench.run(&["exec", "web", "--", "/etc/passwd"]);
    assert_eq!(not_executable.code, Some(126));
    let killed = bench.run(&["exec", "web", "--", "sh", "-c", "kill -9 $$"]);
    killed.expect(137, "", "");
}

#[test]
fn a_machine_that_does_not_start_is_125_and_is_removed() {
    let bench = Bench::new();
    bench.run(&["run", "--memory", "666", "--", "true"]).expect(
        125,
        "",
        "error: cannot start the microVM: there is no kernel (KernelMissing)\nhint: make kernel\n",
    );
    assert_eq!(bench.fake.calls(), ["create run-1", "delete run-1"]);
    assert_eq!(bench.fake.handles(), ["flaky", "web"]);
}

#[test]
fn signals_reach_the_command() {
    let bench = Bench::new();
    for (signal, name) in [
        (Signal::SIGINT, "INT"),
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGUSR1, "USR1"),
    ] {
        let script = format!("trap 'exit 42' {name}; echo ready; while :; do sleep 0.05; done");
        let mut child =
            bench.spawn(&mut bench.command(&["exec", "web", "--", "sh", "-c", &script]));
        wait_for_line(child.stdout.as_mut().unwrap(), "ready");
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(42), "{name}");
    }
}

#[test]
fn the_third_request_to_end_is_final() {
    let bench = Bench::new();
    let script = "trap 'echo caught' INT; echo ready; while :; do sleep 0.05; done";
    let mut child = bench.spawn(&mut bench.command(&["exec", "web", "--", "sh", "-c", script]));
    let stdout = child.stdout.as_mut().unwrap();
    wait_for_line(stdout, "ready");
    for _ in 0..2 {
        send(&child, Signal::SIGINT);
        wait_for_line(child.stdout.as_mut().unwrap(), "caught");
    }
    send(&child, Signal::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let bench = Bench::new();
    let mut child = bench.spawn(&mut bench.command(&["exec", "web", "--", "yes"]));
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 2]).unwrap();
    drop(stdout);
    let outcome = Outcome::from(child.wait_with_output().unwrap());
    outcome.expect(141, "", "");
}

#[test]
fn environment_directory_and_user_are_passed_on() {
    let bench = Bench::new();
    let script = "echo $A $B; pwd; echo $FAKE_USER";
    let outcome = bench
        .command(&[
            "exec",
            "web",
            "--env",
            "A=1",
            "-e",
            "B",
            "--workdir",
            "/",
            "--user",
            "nobody",
            "--",
            "sh",
            "-c",
            script,
        ])
        .env("B", "2")
        .output()
        .unwrap();
    Outcome::from(outcome).expect(
        0,
        "1 2\n/\nnobody\n",
        "note: B is no secret: its value of this environment is used\n",
    );
    bench
        .run(&["exec", "web", "--env", "B", "--", "true"])
        .expect(
            2,
            "",
            "error: there is no secret B, and no variable B in this environment (InvalidArgument)\n\
         hint: keep it: aegisctl secret set B; or export it here\n",
        );
}

#[test]
fn a_terminal_is_raw_for_the_session_and_as_before_afterwards() {
    let bench = Bench::new();
    let size = Winsize {
        ws_row: 40,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(Some(&size), None).unwrap();
    let before = tcgetattr(&terminal.slave).unwrap();
    let script = "trap 'echo resized' USR2; echo $FAKE_TTY $TERM; while :; do sleep 0.05; done";
    let mut child = bench.spawn(
        bench
            .command(&["exec", "-it", "web", "--", "sh", "-c", script])
            .env("TERM", "vt100")
            .stdin(terminal.slave.try_clone().unwrap()),
    );
    wait_for_line(child.stdout.as_mut().unwrap(), "40x100 vt100");
    let flags = tcgetattr(&terminal.slave).unwrap().local_flags;
    let cooked = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
    assert!(!flags.intersects(cooked), "{flags:?}");
    let tty = nix::unistd::ttyname(&terminal.slave).unwrap();
    let resized = std::process::Command::new("stty")
        .args(["rows", "50", "cols", "120", "-F"])
        .arg(tty)
        .status();
    assert!(resized.unwrap().success());
    send(&child, Signal::SIGWINCH);
    wait_for_line(child.stdout.as_mut().unwrap(), "resized");
    assert_eq!(bench.fake.calls(), ["resize 50x120"]);
    send(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(tcgetattr(&terminal.slave).unwrap(), before);
}

#[test]
fn a_terminal_is_needed_for_one() {
    let bench = Bench::new();
    let outcome = bench.run(&["exec", "-t", "web", "--", "true"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.starts_with("error: --tty needs a terminal"));
}
