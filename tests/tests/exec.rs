//! exec and run: a process in a guest with the streams, the signals and the
//! end of a local one.

use std::time::{Duration, Instant};

use aegis_tests::bulk::{Echo, Memory};
use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::session::Session;
use aegis_tests::wait::wait_until;
use anyhow::Result;

#[test]
fn streams_stay_apart_and_input_has_an_end() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let _instance = Instance::start(seat, "exec-streams", "")?;

    let line = "aegisctl exec exec-streams -- sh -c 'cat; echo warned >&2; exit 7'";
    let output = machine.run_with_input(seat.user(), line, b"said\0\xff\n")?;
    assert_eq!(output.stdout, b"said\0\xff\n");
    assert_eq!(output.stderr, b"warned\n");
    assert_eq!(output.code(), 7);

    // wc answers only when its input has ended while its output is still open.
    let line = "printf 12345 | aegisctl exec exec-streams -- wc -c";
    assert_eq!(seat.run(line)?.success()?, "5");
    let line = "aegisctl exec exec-streams -- cat </dev/null";
    assert_eq!(seat.run(line)?.success()?, "");
    // The guest's process closes its output; the client must not wait for input.
    let mut early = Session::start(seat, "aegisctl exec exec-streams -- head -n 1")?;
    early.write(b"first\nsecond\n")?;
    assert_eq!(early.line()?, "first");
    assert_eq!(early.wait()?.code, 0);
    Ok(())
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "exec-pipe", "")?;
    let output = seat.run("aegisctl exec exec-pipe -- sh -c 'yes exec-pipe-marker' | head -n 2")?;
    assert_eq!(output.text(), "exec-pipe-marker\nexec-pipe-marker");
    assert_eq!(output.error_text(), "");
    wait_until(DEADLINE, "yes to end", || {
        Ok(instance.exec("pidof yes")?.text().is_empty())
    })
}

#[test]
fn exit_codes_are_those_of_the_guest_or_say_why_not() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "exec-codes", "")?;

    for code in [0, 1, 7, 125, 255] {
        assert_eq!(instance.exec(&format!("exit {code}"))?.code(), code);
    }
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("HUP", 129)] {
        let output = instance.exec(&format!("kill -{signal} $$"))?;
        assert_eq!(output.code(), code, "SIG{signal}");
    }
    for (flags, command, code, symbol) in [
        ("", "/no/such/command", 127, "CommandNotFound"),
        ("", "no-such-command", 127, "CommandNotFound"),
        ("", "/etc/passwd", 126, "CommandNotExecutable"),
        ("--user nobody-of-that-name", "true", 125, "UserNotFound"),
        ("--workdir /no/such/folder", "true", 125, "WorkdirNotFound"),
    ] {
        let output = instance.exec_with(flags, command)?;
        assert_eq!(output.code(), code, "{flags} {command}");
        assert_eq!(output.text(), "");
        assert!(
            output.error_text().contains(symbol),
            "{flags} {command}: {}",
            output.error_text()
        );
    }
    let unknown = seat.aegis("exec exec-nobody -- true")?;
    assert_eq!(unknown.code(), 125);
    assert!(
        unknown.error_text().contains("NotFound"),
        "{}",
        unknown.error_text()
    );
    Ok(())
}

#[test]
fn a_vm_that_ends_under_an_exec_is_a_failure_of_ours() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "exec-ended", "")?;
    let mut session = Session::start(
        seat,
        "aegisctl exec exec-ended -- sh -c 'echo up; sleep 1000'",
    )?;
    session.wait_for_line("up")?;
    let qemu = instance.qemu_pid()?.unwrap();
    seat.run(&format!("kill -KILL {qemu}"))?.success()?;
    let ended = session.wait()?;
    assert_eq!(ended.code, 125, "{}", ended.errors);
    assert!(ended.errors.contains("VmEnded"), "{}", ended.errors);
    Ok(())
}

#[test]
fn environment_folder_and_user_are_as_asked() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(
        seat,
        "exec-flags",
        "--env BASE=instance --env BOTH=instance",
    )?;

    let env = instance
        .exec_with("--env BOTH=exec --env 'SPACES=a  b'", "env")?
        .success()?;
    for line in ["BASE=instance", "BOTH=exec", "SPACES=a  b"] {
        assert!(env.lines().any(|it| it == line), "{line}: {env}");
    }
    assert_eq!(
        instance.exec_with("--workdir /usr", "pwd")?.success()?,
        "/usr"
    );
    assert_eq!(
        instance.exec_with("--user 1234:2345", "id -u")?.success()?,
        "1234"
    );
    assert_eq!(
        instance.exec_with("--user 1234:2345", "id -g")?.success()?,
        "2345"
    );
    assert_eq!(instance.exec_ok("id -u")?, "0");
    // Arguments arrive as they are: no shell in between.
    let odd = instance.exec_with("", r#"printf '[%s]' 'a b' '' '$HOME' '*' "it's" ';'"#)?;
    assert_eq!(odd.success()?, "[a b][][$HOME][*][it's][;]");
    Ok(())
}

#[test]
fn ctrl_c_and_termination_reach_the_guests_process() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "exec-signal", "")?;
    for (signal, code) in [("INT", 42), ("TERM", 43), ("HUP", 44)] {
        let line = format!(
            "aegisctl exec exec-signal -- sh -c \
             'trap \"echo caught; exit {code}\" {signal}; echo ready; while :; do sleep 0.1; done'"
        );
        let mut session = Session::start(seat, &line)?;
        session.wait_for_line("ready")?;
        session.signal(signal)?;
        let ended = session.wait()?;
        assert_eq!(
            (ended.code, ended.lines),
            (code, vec!["caught".to_owned()]),
            "SIG{signal}"
        );
    }

    // Without a trap the process dies of the signal, and so does a run.
    let mut run = Session::start(seat, "aegisctl run -- sh -c 'echo ready; exec sleep 1000'")?;
    run.wait_for_line("ready")?;
    run.signal("INT")?;
    assert_eq!(run.wait()?.code, 130);

    // A client that vanishes takes its process along.
    let mut session = Session::start(
        seat,
        "aegisctl exec exec-signal -- sh -c 'echo ready; exec sleep 4321'",
    )?;
    session.wait_for_line("ready")?;
    session.signal("KILL")?;
    session.wait()?;
    wait_until(DEADLINE, "the abandoned process to end", || {
        Ok(!instance.exec("ps")?.text().contains("sleep 4321"))
    })
}

#[test]
fn a_terminal_is_raw_resizes_and_is_restored() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let _instance = Instance::start(seat, "exec-tty", "")?;
    let client = include_bytes!("../clients/terminal.py");
    machine.write_file(seat.user(), "/home/alice/clients/terminal.py", client)?;
    let output = seat.run("python3 clients/terminal.py aegisctl exec --tty exec-tty --")?;
    assert_eq!(
        output.code(),
        0,
        "{}\n{}",
        output.text(),
        output.error_text()
    );
    // Without a terminal of its own the client says so instead of guessing.
    let refused = seat.aegis("exec --tty exec-tty -- true </dev/null")?;
    assert!(!refused.error_text().is_empty() || refused.status.success());
    Ok(())
}

/// What one program may grow by while 200 MB pass through it, in KiB.
const ALLOWED_GROWTH: u64 = 16 * 1024;

/// An idle exec is over sooner than this on no machine; below it, scheduling
/// noise of a loaded host would decide.
const IDLE_FLOOR: Duration = Duration::from_millis(200);

#[test]
fn two_hundred_megabytes_arrive_intact_in_bounded_memory_while_others_answer() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "exec-bulk", "--memory 256")?;
    let answer = || -> Result<Duration> {
        let start = Instant::now();
        instance.exec_ok("true")?;
        Ok(start.elapsed())
    };
    let idle = median([answer()?, answer()?, answer()?, answer()?, answer()?]);

    let echo = Echo::open(seat, instance.handle())?;
    let client = echo.pid();
    let before = Memory::now(seat, &instance, client)?;
    let transfer = echo.transfer(200_000_000);
    let mut meanwhile = Vec::new();
    while !transfer.is_finished() {
        meanwhile.push(answer()?);
    }
    let echo = transfer.join().expect("the transfer does not panic")?;
    let after = Memory::peak(seat, &instance, client)?;

    assert_eq!(echo.close()?, 0);
    for (name, before, after) in before.beside(&after) {
        assert!(
            after <= before + ALLOWED_GROWTH,
            "{name} grew from {before} KiB to {after} KiB"
        );
    }
    assert!(
        meanwhile.len() >= 3,
        "the transfer was too short to measure: {meanwhile:?}"
    );
    let busy = median(meanwhile);
    assert!(
        busy <= 5 * idle.max(IDLE_FLOOR),
        "{busy:?} busy, {idle:?} idle"
    );
    Ok(())
}

fn median(times: impl Into<Vec<Duration>>) -> Duration {
    let mut times = times.into();
    times.sort();
    times[times.len() / 2]
}
