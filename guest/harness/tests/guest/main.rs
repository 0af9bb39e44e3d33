//! A real guest, booted by QEMU and driven over the link.
//!
//! Needs QEMU and the output of guest/build (AEGIS_GUEST_DIR, else
//! target/guest); a test that misses something is skipped.
#![allow(clippy::print_stdout, reason = "tests print what they measured")]

mod qemu;
mod share;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aegis_link::log::{Output, read_record};
use aegis_link::message::{CommandEnd, Event, ProcessEnd, Program, Symbol, TtySize};
use aegis_link::{CallError, ExecSession, LinkStream};
use aegis_tests::skip::skip;
use anyhow::{Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use qemu::{DEADLINE, Guest, Hardware, Machine, make_disk, missing};

fn shell(script: &str) -> Program {
    Program {
        argv: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
        ..Program::default()
    }
}

async fn read_all(stream: &mut LinkStream) -> Result<String> {
    let mut text = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut text)).await??;
    Ok(String::from_utf8(text)?)
}

/// Runs a program with an empty stdin: its outputs and its end.
async fn run(guest: &Guest, program: Program) -> Result<(String, String, ProcessEnd)> {
    let mut session = timeout(DEADLINE, guest.link.exec(program, None)).await??;
    session.stdio.shutdown().await?;
    finish(guest, session).await
}

async fn finish(guest: &Guest, mut session: ExecSession) -> Result<(String, String, ProcessEnd)> {
    let stdout = read_all(&mut session.stdio).await?;
    let stderr = match &mut session.stderr {
        Some(stderr) => read_all(stderr).await?,
        None => String::new(),
    };
    let end = timeout(DEADLINE, guest.link.wait(session.session)).await??;
    Ok((stdout, stderr, end))
}

/// What a shell script prints.
async fn printed(guest: &Guest, script: &str) -> Result<String> {
    let (stdout, stderr, end) = run(guest, shell(script)).await?;
    ensure!(
        end == ProcessEnd::Exited { code: 0 },
        "{script}: {end:?}, {stderr}"
    );
    Ok(stdout.trim_end().to_owned())
}

fn symbol<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> Result<Symbol> {
    match outcome {
        Err(CallError::Fault(fault)) => Ok(fault.symbol),
        other => bail!("{other:?} instead of a fault"),
    }
}

async fn short_life(machine: Machine) -> Result<()> {
    if let Some(reason) = missing(machine) {
        return skip(&reason);
    }
    let started = Instant::now();
    let guest = Guest::booted(machine, &Hardware::default(), None).await?;
    println!("{machine:?} answered after {:?}", started.elapsed());
    assert_eq!(printed(&guest, "echo hello").await?, "hello");
    println!("{machine:?} ran a program after {:?}", started.elapsed());
    let stats = guest.link.stats().await?;
    println!("{stats:?}");
    ensure!(stats.memory_total_kib > 100_000 && stats.processes > 1);
    ensure!(guest.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn our_own_kernel_boots_and_ends() -> Result<()> {
    short_life(Machine::Own).await
}

#[tokio::test]
async fn the_fallback_kernel_boots_and_ends() -> Result<()> {
    short_life(Machine::Fallback).await
}

#[tokio::test]
async fn a_guest_is_what_it_was_told_to_be() -> Result<()> {
    if let Some(reason) = missing(Machine::Own) {
        return skip(&reason);
    }
    let guest = Guest::booted(Machine::Own, &Hardware::default(), None).await?;
    assert_eq!(
        printed(&guest, "hostname; cat /etc/hostname").await?,
        "box\nbox"
    );
    assert_eq!(
        printed(&guest, "echo $PATH $HOME $USER $SHELL; pwd").await?,
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /root root /bin/sh\n/root"
    );
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let seen: u64 = printed(&guest, "date +%s").await?.parse()?;
    ensure!(
        seen.abs_diff(now) < 60,
        "the clock is off: {seen} for {now}"
    );
    assert_eq!(
        printed(&guest, "ping -c 1 -q 127.0.0.1 >/dev/null && echo up").await?,
        "up"
    );
    assert_eq!(
        printed(&guest, "cat /proc/1/comm; ls /layers 2>&1 | wc -l").await?,
        "init\n1"
    );
    assert_eq!(
        printed(&guest, "stat -c %a / /tmp /dev/shm").await?,
        "755\n1777\n1777"
    );
    // Programs may make name spaces, which a chroot would not let them.
    assert_eq!(printed(&guest, "unshare -U true && echo may").await?, "may");
    assert_eq!(printed(&guest, "echo >/tmp/x && ls /tmp").await?, "x");
    Ok(())
}

#[tokio::test]
async fn programs_start_as_asked_or_say_why_not() -> Result<()> {
    if let Some(reason) = missing(Machine::Own) {
        return skip(&reason);
    }
    let guest = Guest::booted(Machine::Own, &Hardware::default(), None).await?;
    let link = &guest.link;
    let program = Program {
        argv: [
            "sh",
            "-c",
            "id -u; id -g; id -G; pwd; echo $HOME $X; cat >&2",
        ]
        .map(String::from)
        .into(),
        env: BTreeMap::from([("X".to_owned(), "a b".to_owned())]),
        workdir: Some("/tmp".to_owned()),
        stop_signal: None,
        user: Some("nobody".to_owned()),
    };
    let (stdout, stderr, end) = run(&guest, program.clone()).await?;
    assert_eq!(stdout, "65534\n65534\n65534\n/tmp\n/ a b\n");
    assert_eq!((stderr.as_str(), end), ("", ProcessEnd::Exited { code: 0 }));

    let named = |name: &str| Program {
        argv: vec![name.to_owned()],
        ..Program::default()
    };
    for (program, expected) in [
        (named("no-such-program"), Symbol::CommandNotFound),
        (named("/etc/passwd"), Symbol::CommandNotExecutable),
        (named("/etc"), Symbol::CommandNotExecutable),
        (
            Program {
                user: Some("mallory".to_owned()),
                ..program.clone()
            },
            Symbol::UserNotFound,
        ),
        (
            Program {
                workdir: Some("/no".to_owned()),
                ..program.clone()
            },
            Symbol::WorkdirNotFound,
        ),
        (
            Program {
                workdir: Some("/root".to_owned()),
                ..program.clone()
            },
            Symbol::WorkdirNotFound,
        ),
        (named(""), Symbol::BadRequest),
        (Program::default(), Symbol::BadRequest),
        (named("ls\0"), Symbol::CommandNotFound),
    ] {
        let outcome = timeout(DEADLINE, link.exec(program.clone(), None)).await?;
        assert_eq!(symbol(outcome)?, expected, "{program:?}");
    }
    for (script, end) in [
        ("exit 3", ProcessEnd::Exited { code: 3 }),
        ("kill -9 $$", ProcessEnd::Signaled { signal: 9 }),
        ("kill -TERM $$", ProcessEnd::Signaled { signal: 15 }),
    ] {
        assert_eq!(run(&guest, shell(script)).await?.2, end, "{script}");
    }
    assert_eq!(
        symbol(timeout(DEADLINE, link.wait(99)).await?)?,
        Symbol::NoSuchSession
    );
    assert_eq!(
        symbol(timeout(DEADLINE, link.signal(99, 15)).await?)?,
        Symbol::NoSuchSession
    );
    // All of it left nothing behind but the shell that counts.
    assert_eq!(
        printed(
            &guest,
            "ps -o pid,stat,comm | grep -v '\\[' | grep -c ' Z'; true"
        )
        .await?,
        "0"
    );
    Ok(())
}

#[tokio::test]
async fn sessions_end_with_their_program() -> Result<()> {
    if let Some(reason) = missing(Machine::Own) {
        return skip(&reason);
    }
    let guest = Guest::booted(Machine::Own, &Hardware::default(), None).await?;
    // Left behind with the output open: the session does not wait for it.
    let started = Instant::now();
    let (stdout, _, end) = run(&guest, shell("sleep 1000 & echo started")).await?;
    assert_eq!(
        (stdout.as_str(), end),
        ("started\n", ProcessEnd::Exited { code: 0 })
    );
    ensure!(started.elapsed() < Duration::from_secs(60));
    let (stdout, _, _) = run(&guest, shell("yes & head -c 100000 /dev/zero; exit 0")).await?;
    ensure!(stdout.len() >= 100_000);

    // Signals reach the whole group.
    let session = timeout(
        DEADLINE,
        guest.link.exec(shell("sleep 1000; echo no"), None),
    )
    .await??;
    timeout(DEADLINE, guest.link.signal(session.session, 2)).await??;
    let (stdout, _, end) = finish(&guest, session).await?;
    assert_eq!(
        (stdout.as_str(), end),
        ("", ProcessEnd::Signaled { signal: 2 })
    );

    // A host that lets go of a finished stdin only discards the output; one that
    // lets go of an open one hangs the session up.
    let script = "trap 'echo hung >/tmp/hung; exit' HUP; echo ready; while :; do sleep 0.1; done";
    let mut session = timeout(DEADLINE, guest.link.exec(shell(script), None)).await??;
    session.stdio.shutdown().await?;
    let mut ready = [0; 6];
    timeout(DEADLINE, session.stdio.read_exact(&mut ready)).await??;
    let id = session.session;
    drop(session);
    let mut open = timeout(DEADLINE, guest.link.exec(shell(script), None)).await??;
    timeout(DEADLINE, open.stdio.read_exact(&mut ready)).await??;
    let other = open.session;
    drop(open);
    timeout(DEADLINE, guest.link.wait(other)).await??;
    assert_eq!(printed(&guest, "cat /tmp/hung").await?, "hung");
    timeout(DEADLINE, guest.link.signal(id, 9)).await??;
    timeout(DEADLINE, guest.link.wait(id)).await??;
    Ok(())
}

#[tokio::test]
async fn a_terminal_is_one() -> Result<()> {
    if let Some(reason) = missing(Machine::Own) {
        return skip(&reason);
    }
    let guest = Guest::booted(Machine::Own, &Hardware::default(), None).await?;
    let size = TtySize {
        rows: 33,
        cols: 101,
    };
    let script = "stty size; tty; read line; echo got $line; stty size; sleep 1000; echo after";
    let mut session = timeout(DEADLINE, guest.link.exec(shell(script), Some(size))).await??;
    ensure!(session.stderr.is_none());
    let mut seen = String::new();
    let mut until = async |stream: &mut LinkStream, wanted: &str| -> Result<()> {
        while !seen.contains(wanted) {
            let mut buffer = [0; 1000];
            let count = timeout(DEADLINE, stream.read(&mut buffer)).await??;
            ensure!(count > 0, "{seen:?} has no {wanted:?}");
            seen.push_str(std::str::from_utf8(&buffer[..count])?);
        }
        Ok(())
    };
    until(&mut session.stdio, "33 101\r\n/dev/pts/0\r\n").await?;
    let resized = TtySize { rows: 10, cols: 20 };
    timeout(DEADLINE, guest.link.resize(session.session, resized)).await??;
    session.stdio.write_all(b"word\n").await?;
    until(&mut session.stdio, "got word\r\n10 20\r\n").await?;
    session.stdio.write_all(b"\x03").await?;
    let end = timeout(DEADLINE, guest.link.wait(session.session)).await??;
    assert_eq!(end, ProcessEnd::Signaled { signal: 2 });
    Ok(())
}

#[tokio::test]
async fn the_command_is_logged_line_by_line_and_its_end_is_told() -> Result<()> {
    if let Some(reason) = missing(Machine::Own) {
        return skip(&reason);
    }
    let script =
        "echo one; echo two >&2; head -c 40000 /dev/zero | tr '\\0' x; printf last; exit 7";
    let mut guest = Guest::booted(Machine::Own, &Hardware::default(), Some(shell(script))).await?;
    let (Event::CommandStarted { pid }, _) = guest.event().await? else {
        bail!("no start")
    };
    ensure!(pid > 1);
    let (Event::Log { .. }, Some(mut log)) = guest.event().await? else {
        bail!("no log")
    };
    let mut records = Vec::new();
    while let Some(record) = timeout(DEADLINE, read_record(&mut log)).await?? {
        ensure!(record.sequence == records.len() as u64 && record.time_ns > 1_600_000_000 << 30);
        records.push((record.output, record.line.len(), record.partial));
    }
    records.sort_by_key(|(output, length, _)| (*output == Output::Stderr, *length));
    assert_eq!(
        records,
        [
            (Output::Stdout, 3, false),
            (Output::Stdout, 40_004 - 2 * 16_384, false),
            (Output::Stdout, 16_384, true),
            (Output::Stdout, 16_384, true),
            (Output::Stderr, 3, false),
        ]
    );
    let (Event::CommandEnded { end }, _) = guest.event().await? else {
        bail!("no end")
    };
    assert_eq!(end, CommandEnd::Ended(ProcessEnd::Exited { code: 7 }));
    ensure!(guest.stop().await?.success());

    let nothing = Program {
        argv: vec!["nothing".to_owned()],
        ..Program::default()
    };
    let mut guest = Guest::booted(Machine::Own, &Hardware::default(), Some(nothing)).await?;
    let (
        Event::CommandEnded {
            end: CommandEnd::Failed(fault),
        },
        _,
    ) = guest.event().await?
    else {
        bail!("no failure")
    };
    assert_eq!(fault.symbol, Symbol::CommandNotFound);
    Ok(())
}

#[tokio::test]
async fn much_passes_in_bounded_memory_while_others_are_served() -> Result<()> {
    const LENGTH: usize = 200 << 20;
    if let Some(reason) = missing(Machine::Own) {
        return skip(&reason);
    }
    let guest = Guest::booted(Machine::Own, &Hardware::default(), None).await?;
    let resident = async || -> Result<u64> {
        Ok(printed(
            &guest,
            "sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/1/status",
        )
        .await?
        .parse()?)
    };
    let mut idle = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        printed(&guest, "echo x").await?;
        idle = idle.min(started.elapsed());
    }
    let before = resident().await?;
    let session = timeout(DEADLINE, guest.link.exec(shell("cat"), None)).await??;
    let id = session.session;
    let (mut reader, mut writer) = tokio::io::split(session.stdio);
    let sender = tokio::spawn(async move {
        let block: Vec<u8> = (0..1 << 20)
            .map(|at: usize| (at % 251).to_le_bytes()[0])
            .collect();
        for _ in 0..LENGTH >> 20 {
            writer.write_all(&block).await?;
        }
        writer.shutdown().await
    });
    let started = Instant::now();
    let receiver = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        let mut position = 0;
        loop {
            let count = reader.read(&mut buffer).await?;
            if count == 0 {
                return anyhow::Ok(position);
            }
            for byte in &buffer[..count] {
                ensure!(
                    usize::from(*byte) == position % (1 << 20) % 251,
                    "byte {position} differs"
                );
                position += 1;
            }
        }
    });
    let (mut busy, mut most) = (Vec::new(), before);
    while !receiver.is_finished() {
        let started = Instant::now();
        printed(&guest, "echo x").await?;
        busy.push(started.elapsed());
        most = most.max(resident().await?);
    }
    assert_eq!(timeout(DEADLINE, receiver).await???, LENGTH);
    sender.await??;
    timeout(DEADLINE, guest.link.wait(id)).await??;
    busy.sort();
    println!(
        "200 MB there and back in {:?}; an exec takes {idle:?} idle, {:?} (median) and {:?} (worst) \
         beside it; the harness grew from {before} to {most} KiB",
        started.elapsed(),
        busy[busy.len() / 2],
        busy[busy.len() - 1],
    );
    ensure!(
        most - before < 16 * 1024,
        "the harness grew from {before} to {most} KiB"
    );
    Ok(())
}

#[tokio::test]
async fn ports_of_the_guest_are_reached() -> Result<()> {
    if let Some(reason) = missing(Machine::Own) {
        return skip(&reason);
    }
    let guest = Guest::booted(Machine::Own, &Hardware::default(), None).await?;
    assert_eq!(
        symbol(timeout(DEADLINE, guest.link.dial(81)).await?)?,
        Symbol::ConnectionRefused
    );
    printed(
        &guest,
        "mkdir /www && echo page >/www/index.html && httpd -p 127.0.0.1:81 -h /www",
    )
    .await?;
    let mut connections = Vec::new();
    for _ in 0..20 {
        connections.push(timeout(DEADLINE, guest.link.dial(81)).await??);
    }
    for mut connection in connections {
        connection.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        ensure!(read_all(&mut connection).await?.ends_with("page\n"));
    }
    Ok(())
}

#[tokio::test]
async fn a_disk_is_clean_after_a_stop_and_keeps_what_was_written() -> Result<()> {
    if let Some(reason) = missing(Machine::Own) {
        return skip(&reason);
    }
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("disk.img");
    make_disk(&path)?;
    let hardware = Hardware {
        disk: Some(path.clone()),
        ..Hardware::default()
    };
    let guest = Guest::booted(Machine::Own, &hardware, None).await?;
    printed(&guest, "echo kept >/root/file; rm /etc/shells").await?;
    // One that does not listen to SIGTERM and writes to the end.
    let stubborn = "trap '' TERM; exec >/root/log; while :; do echo x; done";
    let session = timeout(DEADLINE, guest.link.exec(shell(stubborn), None)).await??;
    ensure!(guest.stop().await?.success());
    drop(session);
    let check = std::process::Command::new("e2fsck")
        .args(["-f", "-n"])
        .arg(&path)
        .output()?;
    ensure!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );

    let guest = Guest::booted(Machine::Own, &hardware, None).await?;
    assert_eq!(
        printed(&guest, "cat /root/file; ls /etc/shells 2>&1 | wc -l").await?,
        "kept\n1"
    );
    ensure!(guest.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn what_keeps_a_guest_from_booting_is_named() -> Result<()> {
    if let Some(reason) = missing(Machine::Own) {
        return skip(&reason);
    }
    let mut guest = Guest::start(Machine::Own, &Hardware::default())?;
    guest.hello().await?;
    let refused = timeout(DEADLINE, guest.link.exec(shell("true"), None)).await?;
    assert_eq!(symbol(refused)?, Symbol::NotReady);
    let mut boot = guest.boot_message(&Hardware::default(), None);
    boot.root.layers = vec!["nowhere".to_owned()];
    let outcome = timeout(DEADLINE, guest.link.boot(boot)).await?;
    assert_eq!(symbol(outcome)?, Symbol::BootDeviceMissing);
    ensure!(guest.stop().await?.success());
    Ok(())
}
