//! The owner of a VM from outside: its control socket, its ports and its files,
//! over the real link with a guest that is played and a machine that is none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod doors;
mod fake_guest;
mod hibernating;
mod hostile;
mod idle;
mod interleavings;
mod look;
mod raw_guest;
mod restarts;
mod terminal;
mod world;

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use aegis_core::control::{
    Answer, Call, CommandExit, CommandState, ExecEvent, ExecInput, Outcome, OwnerFrame,
    TerminalSize,
};
use aegis_core::fault::Symbol;
use aegis_core::lifecycle::VmState;
use aegis_link::message::ProcessEnd;
use aegis_vmm::owner::Verdict;

use fake_guest::{Script, Seen};
use world::{PATIENCE, Plan, World, argv, read_all};

#[test]
fn exec_carries_bytes_half_close_and_the_exit_code() {
    let world = World::new(Plan::default());
    let mut exec = world.connect().exec(argv(&["cat"])).unwrap();
    assert_eq!(exec.event(), ExecEvent::Started {});
    exec.stdin.write_all(b"hello").unwrap();
    let mut echoed = [0; 5];
    exec.stdout.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"hello");
    let (stdin, stdout, stderr, mut events) = exec.split();
    drop(stdin);
    assert_eq!(read_all(stdout), b"");
    assert_eq!(read_all(stderr), b"");
    let mut line = String::new();
    events.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"exited\":{\"code\":0}}\n");

    let mut exec = world.connect().exec(argv(&["fail"])).unwrap();
    assert_eq!(exec.event(), ExecEvent::Started {});
    assert_eq!(exec.event(), ExecEvent::Exited { code: 3 });
    let (_stdin, stdout, stderr, _events) = exec.split();
    assert_eq!(read_all(stderr), b"oops");
    assert_eq!(read_all(stdout), b"");
}

#[test]
fn a_command_that_cannot_run_is_a_failed_session() {
    let world = World::new(Plan::default());
    let mut exec = world.connect().exec(argv(&["missing"])).unwrap();
    let ExecEvent::Failed(fault) = exec.event() else {
        panic!("it ran")
    };
    assert_eq!(fault.symbol, Symbol::CommandNotFound);
    let fault = world.connect().exec(argv(&[])).map(|_| ()).unwrap_err();
    assert_eq!(fault.symbol, Symbol::InvalidArgument);
}

#[test]
fn signals_and_sizes_reach_the_guest() {
    let world = World::new(Plan::default());
    let mut request = argv(&["sleep"]);
    request.tty = Some(TerminalSize { rows: 24, cols: 80 });
    let mut exec = world.connect().exec(request).unwrap();
    assert_eq!(exec.event(), ExecEvent::Started {});
    exec.tell(&ExecInput::Resize(TerminalSize { rows: 5, cols: 6 }));
    exec.tell(&ExecInput::Signal(15));
    world.seen(|seen| matches!(seen, Seen::Resize(5, 6)).then_some(()));
    world.seen(|seen| matches!(seen, Seen::Signal(15)).then_some(()));
    assert_eq!(exec.event(), ExecEvent::Signaled { signal: 15 });
    let (_, stdout, stderr, _) = exec.split();
    assert!(read_all(stdout).is_empty() && read_all(stderr).is_empty());
}

#[test]
fn a_client_that_vanishes_hangs_its_session_up() {
    let world = World::new(Plan::default());
    let mut exec = world.connect().exec(argv(&["sleep"])).unwrap();
    assert_eq!(exec.event(), ExecEvent::Started {});
    drop(exec);
    // Its input may have ended a moment before; then only the signal is left.
    world.seen(|seen| matches!(seen, Seen::HangUp | Seen::Signal(1)).then_some(()));
    world.connect().watch_until(|status| status.execs == 0);
    let mut exec = world.connect().exec(argv(&["fail"])).unwrap();
    assert_eq!(exec.event(), ExecEvent::Started {});
}

#[test]
fn two_hundred_megabytes_pass_in_bounded_memory_and_block_nobody() {
    const TOTAL: usize = 200 << 20;
    let world = World::new(Plan::default());
    let mut exec = world.connect().exec(argv(&["cat"])).unwrap();
    assert_eq!(exec.event(), ExecEvent::Started {});
    let before = resident_kib("VmRSS:");
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (mut stdin, mut stdout, _stderr, mut events) = exec.split();
    let writer = thread::spawn(move || {
        let block: Vec<u8> = (0..=250).cycle().take(251 * 256).collect();
        let mut left = TOTAL;
        while left > 0 {
            let length = left.min(block.len());
            stdin.write_all(&block[..length]).unwrap();
            left -= length;
        }
    });
    // Nobody reads for a while: everything has to stop, not to pile up, and
    // another session is not held up.
    let mut other = world.connect().exec(argv(&["fail"])).unwrap();
    assert_eq!(other.event(), ExecEvent::Started {});
    assert_eq!(other.event(), ExecEvent::Exited { code: 3 });
    let mut buffer = vec![0; 64 * 1024];
    let mut received = 0;
    loop {
        let length = stdout.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        for (index, byte) in buffer[..length].iter().enumerate() {
            assert_eq!(usize::from(*byte), (received + index) % 251);
        }
        received += length;
    }
    writer.join().unwrap();
    assert_eq!(received, TOTAL);
    let mut line = String::new();
    events.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"exited\":{\"code\":0}}\n");
    let grown = resident_kib("VmHWM:").saturating_sub(before);
    assert!(grown < 16 * 1024, "grew by {grown} KiB");
}

fn resident_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn pause_and_resume_say_what_they_changed_and_use_wakes() {
    let world = World::new(Plan::default());
    world.connect().until_state(VmState::Running);
    let mut client = world.connect();
    let outcome = |answer| match answer {
        Ok(Answer::Outcome(outcome)) => outcome,
        other => panic!("{other:?}"),
    };
    assert_eq!(outcome(client.ask(Call::Resume)), Outcome::Unchanged);
    assert_eq!(outcome(client.ask(Call::Pause)), Outcome::Changed);
    assert_eq!(outcome(client.ask(Call::Pause)), Outcome::Unchanged);
    assert_eq!(client.status().state, VmState::Paused);
    assert_eq!(outcome(client.ask(Call::Resume)), Outcome::Changed);
    assert_eq!(outcome(client.ask(Call::Pause)), Outcome::Changed);
    let mut exec = world.connect().exec(argv(&["fail"])).unwrap();
    assert_eq!(exec.event(), ExecEvent::Started {});
    assert_eq!(client.status().state, VmState::Running);
}

#[test]
fn a_stop_is_orderly_also_when_paused_and_tells_open_sessions() {
    let mut world = World::new(Plan::default());
    let mut exec = world.connect().exec(argv(&["sleep"])).unwrap();
    assert_eq!(exec.event(), ExecEvent::Started {});
    world.connect().ask(Call::Pause).unwrap();
    world.stop();
    world.seen(|seen| matches!(seen, Seen::Stop { grace_ms: 2000 }).then_some(()));
    let ExecEvent::Failed(fault) = exec.event() else {
        panic!("it ended by itself")
    };
    assert_eq!(fault.symbol, Symbol::VmEnded);
    assert!(matches!(world.verdict(), Verdict::Finished));
    assert!(!world.dir.path().join("exit.json").exists());
}

#[test]
fn a_stop_ends_a_guest_that_has_not_answered_yet() {
    let mut world = World::new(Plan {
        script: Script {
            mute: true,
            ..Script::default()
        },
        ..Plan::default()
    });
    let waiting = thread::spawn({
        let client = world.connect();
        move || client.exec(argv(&["cat"])).map(|_| ()).unwrap_err()
    });
    world.connect().watch_until(|status| status.execs == 1);
    world.stop();
    assert!(matches!(world.verdict(), Verdict::Finished));
    assert_eq!(waiting.join().unwrap().symbol, Symbol::WrongState);
}

#[test]
fn a_failed_start_is_told_kept_and_tried_again() {
    let world = World::new(Plan {
        failures: 2,
        ports: vec![80],
        ..Plan::default()
    });
    let failed = world.connect().until_state(VmState::Failed);
    assert_eq!(failed.fault.unwrap().symbol, Symbol::QemuMissing);
    let mut client = world.connect();
    let fault = client.ask(Call::Pause).unwrap_err();
    assert!(
        matches!(fault.symbol, Symbol::QemuMissing | Symbol::WrongState),
        "{fault:?}"
    );
    world.connect().until_state(VmState::Running);
    let mut exec = world.connect().exec(argv(&["fail"])).unwrap();
    assert_eq!(exec.event(), ExecEvent::Started {});
}

#[test]
fn a_missing_layer_is_named_and_a_failed_start_like_any_other() {
    let image = tempfile::tempdir().unwrap();
    let layer = image.path().join("layer");
    let world = World::new(Plan {
        layers: vec![layer.clone()],
        ..Plan::default()
    });
    let failed = world.connect().until_state(VmState::Failed);
    let fault = failed.fault.unwrap();
    assert_eq!(fault.symbol, Symbol::ImageUnavailable);
    assert!(fault.message.contains(layer.to_str().unwrap()), "{fault}");
    std::fs::write(&layer, [1; 512]).unwrap();
    world.connect().until_state(VmState::Running);
}

#[test]
fn clients_of_a_port_are_reset_while_the_vm_cannot_start() {
    let world = World::new(Plan {
        failures: 1000,
        ports: vec![80],
        ..Plan::default()
    });
    world.connect().until_state(VmState::Failed);
    let mut client = TcpStream::connect(world.ports[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn ports_carry_both_ways_with_half_close_and_reset() {
    let world = World::new(Plan {
        ports: vec![80, 81],
        ..Plan::default()
    });
    // It waits while the VM starts.
    let mut client = TcpStream::connect(world.ports[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"ping").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut echoed = String::new();
    client.read_to_string(&mut echoed).unwrap();
    assert_eq!(echoed, "ping");

    let mut client = TcpStream::connect(world.ports[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"reset").unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let mut refused = TcpStream::connect(world.ports[1]).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = refused.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    world
        .connect()
        .watch_until(|status| status.connections == 0);
}

#[test]
fn garbage_ends_its_own_connection_and_an_unknown_call_is_answered() {
    let world = World::new(Plan::default());
    let mut bystander = world.connect();
    bystander.status();
    for garbage in [&b"hello\n"[..], b"\xff\xfe\n", b"{\"id\":-1}\n", b"[]\n"] {
        let mut client = world.connect();
        client.send_raw(garbage).unwrap();
        assert!(client.receive().is_none());
    }
    let mut client = world.connect();
    // The writing fails once the other side has had enough.
    while client.send_raw(&[b'x'; 64 * 1024]).is_ok() {}
    let mut client = world.connect();
    client
        .send_raw(b"{\"id\":9,\"call\":\"teleport\"}\n")
        .unwrap();
    match client.receive() {
        Some(OwnerFrame::Fault { id: 9, fault }) => {
            assert_eq!(fault.symbol, Symbol::Unsupported);
        }
        other => panic!("{other:?}"),
    }
    bystander.status();
}

#[test]
fn an_end_of_the_machine_that_nobody_asked_for_is_a_loss() {
    let mut world = World::new(Plan::default());
    world.connect().until_state(VmState::Running);
    fake_guest::power_off(&world.machine());
    let Verdict::Lost(fault) = world.verdict() else {
        panic!("finished")
    };
    assert_eq!(fault.symbol, Symbol::VmEnded);
    assert!(!world.dir.path().join("exit.json").exists());
}

#[test]
fn a_guest_that_breaks_the_rules_is_ended() {
    let mut world = World::new(Plan::default());
    let mut exec = world.connect().exec(argv(&["violate"])).unwrap();
    let Verdict::Lost(fault) = world.verdict() else {
        panic!("finished")
    };
    assert_eq!(fault.symbol, Symbol::LinkViolation);
    assert!(matches!(exec.event(), ExecEvent::Failed(_)));
}

#[test]
fn a_command_that_ends_by_itself_ends_the_vm_and_leaves_its_log_and_code() {
    let mut world = World::new(Plan {
        script: Script {
            command_end: Some(ProcessEnd::Exited { code: 5 }),
            lines: vec!["one".into(), "two".into()],
            ..Script::default()
        },
        command: vec!["job".into()],
        ..Plan::default()
    });
    let boot = world.seen(|seen| match seen {
        Seen::Boot(boot) => Some(boot),
        _ => None,
    });
    assert_eq!(boot.hostname, "test");
    assert_eq!(boot.command.unwrap().env["FROM"], "spec");
    assert!(matches!(world.verdict(), Verdict::Finished));
    let exit: CommandExit =
        serde_json::from_slice(&std::fs::read(world.dir.path().join("exit.json")).unwrap())
            .unwrap();
    assert_eq!((exit.code, exit.signal), (Some(5), None));
    let log = std::fs::read_to_string(world.dir.path().join("log/command.log")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["line"], "two");
    assert_eq!(lines[1]["seq"], 1);
}

#[test]
fn a_session_keeps_a_vm_whose_command_has_ended() {
    let mut world = World::new(Plan {
        script: Script {
            command_end: Some(ProcessEnd::Exited { code: 0 }),
            ..Script::default()
        },
        command: vec!["job".into()],
        ..Plan::default()
    });
    let exec = world.connect().exec(argv(&["cat"]));
    // The VM may have been faster; then the client is told so.
    let Ok(mut exec) = exec else { return };
    assert_eq!(exec.event(), ExecEvent::Started {});
    let ended =
        |status: &aegis_core::control::VmStatus| matches!(status.command, CommandState::Ended(_));
    let status = world.connect().watch_until(ended);
    assert_eq!(status.state, VmState::Running);
    assert_eq!(status.awake_because, ["1 exec session"]);
    drop(exec);
    assert!(matches!(world.verdict(), Verdict::Finished));
}

#[test]
fn an_ephemeral_vm_ends_with_its_exec() {
    let mut world = World::new(Plan {
        ephemeral: true,
        command: vec!["never started".into()],
        ..Plan::default()
    });
    let mut exec = world.connect().exec(argv(&["fail"])).unwrap();
    let boot = world.seen(|seen| match seen {
        Seen::Boot(boot) => Some(boot),
        _ => None,
    });
    assert!(boot.command.is_none());
    assert_eq!(exec.event(), ExecEvent::Started {});
    assert_eq!(exec.event(), ExecEvent::Exited { code: 3 });
    assert!(matches!(world.verdict(), Verdict::Finished));
}

#[test]
fn an_ephemeral_vm_ends_with_its_client() {
    let mut world = World::new(Plan {
        ephemeral: true,
        script: Script {
            mute: true,
            ..Script::default()
        },
        ..Plan::default()
    });
    let mut client = world.connect();
    client.send(Call::Exec(argv(&["cat"])));
    world.connect().watch_until(|status| status.execs == 1);
    drop(client);
    assert!(matches!(world.verdict(), Verdict::Finished));
}
