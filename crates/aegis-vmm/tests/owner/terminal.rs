//! The terminal of the command, as its clients see it.

use std::io::{Read, Write};
use std::thread;

use aegis_core::control::{AttachRequest, CommandState, ExecEvent, ExecInput, TerminalSize};
use aegis_core::fault::Symbol;
use aegis_core::lifecycle::VmState;

use crate::fake_guest::Seen;
use crate::world::{Exec, Plan, World, read_all};

fn world(words: &[&str]) -> World {
    World::new(Plan {
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        terminal: true,
        ..Plan::default()
    })
}

fn sized(rows: u16, cols: u16) -> AttachRequest {
    AttachRequest {
        size: Some(TerminalSize { rows, cols }),
    }
}

fn attach(world: &World, request: AttachRequest) -> Exec {
    let mut client = world.connect().attach(request).unwrap();
    assert_eq!(client.event(), ExecEvent::Started {});
    client
}

fn reads(client: &mut Exec, wanted: &[u8]) {
    let mut read = vec![0; wanted.len()];
    client.stdout.read_exact(&mut read).unwrap();
    assert_eq!(read, wanted);
}

#[test]
fn clients_share_a_terminal_that_outlives_them() {
    let world = world(&["cat"]);
    // Asked for while the VM starts: the command begins in the right size.
    let mut first = attach(&world, sized(30, 100));
    let size = world.seen(|seen| match seen {
        Seen::Exec { tty } => Some(tty),
        _ => None,
    });
    assert_eq!(size, Some((30, 100)));
    first.stdin.write_all(b"one\r\n").unwrap();
    reads(&mut first, b"one\r\n");
    world.connect().watch_until(|status| status.attached == 1);

    drop(first);
    let status = world.connect().watch_until(|status| status.attached == 0);
    assert!(matches!(status.command, CommandState::Running { .. }));

    let mut second = attach(&world, sized(40, 120));
    reads(&mut second, b"one\r\n");
    // The program is made to paint anew, also in a terminal of the same size.
    world.seen(|seen| matches!(seen, Seen::Resize(41, 120)).then_some(()));
    world.seen(|seen| matches!(seen, Seen::Resize(40, 120)).then_some(()));
    let mut third = attach(&world, AttachRequest::default());
    reads(&mut third, b"one\r\n");
    third.stdin.write_all(b"two").unwrap();
    reads(&mut second, b"two");
    reads(&mut third, b"two");
    let size = TerminalSize { rows: 5, cols: 6 };
    second.tell(&ExecInput::Resize(size));
    world.seen(|seen| matches!(seen, Seen::Resize(5, 6)).then_some(()));

    second.tell(&ExecInput::Signal(15));
    assert_eq!(second.event(), ExecEvent::Signaled { signal: 15 });
    assert_eq!(third.event(), ExecEvent::Signaled { signal: 15 });
    let (_, stdout, stderr, _) = third.split();
    assert!(read_all(stdout).is_empty() && read_all(stderr).is_empty());
}

#[test]
fn the_log_has_the_output_in_lines() {
    let mut world = world(&["cat"]);
    let mut client = attach(&world, AttachRequest::default());
    client.stdin.write_all(b"first\r\nse").unwrap();
    reads(&mut client, b"first\r\nse");
    client.stdin.write_all(b"cond\n\x1b[31mthird").unwrap();
    reads(&mut client, b"cond\n\x1b[31mthird");
    client.tell(&ExecInput::Signal(9));
    assert_eq!(client.event(), ExecEvent::Signaled { signal: 9 });
    world.verdict();
    let log = std::fs::read_to_string(world.dir.path().join("log/command.log")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let texts: Vec<_> = lines
        .iter()
        .map(|line| line["line"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["first", "second", "\x1b[31mthird"]);
    assert!(lines.iter().all(|line| line["stream"] == "stdout"));
}

#[test]
fn a_client_that_does_not_read_is_let_go_and_the_command_runs_on() {
    let world = world(&["cat"]);
    let mut stuck = attach(&world, AttachRequest::default());
    let mut typist = attach(&world, AttachRequest::default());
    let (mut stdin, mut stdout, _stderr, _events) = {
        world.connect().watch_until(|status| status.attached == 2);
        typist.stdin.write_all(b"x").unwrap();
        reads(&mut typist, b"x");
        typist.split()
    };
    let block = vec![b'y'; 4 << 20];
    let length = block.len();
    let writer = thread::spawn(move || {
        stdin.write_all(&block).unwrap();
        stdin
    });
    let mut echoed = vec![0; length];
    stdout.read_exact(&mut echoed).unwrap();
    let _stdin = writer.join().unwrap();
    world.connect().watch_until(|status| status.attached == 1);
    let mut rest = Vec::new();
    stuck.stdout.read_to_end(&mut rest).unwrap();
    let ExecEvent::Failed(fault) = stuck.event() else {
        panic!("it was kept")
    };
    assert_eq!(fault.symbol, Symbol::Busy);
    let status = world.connect().status();
    assert!(matches!(status.command, CommandState::Running { .. }));
}

#[test]
fn a_command_that_cannot_start_is_told_to_who_attached() {
    let mut world = world(&["missing"]);
    let mut client = world.connect().attach(sized(24, 80)).unwrap();
    let ExecEvent::Failed(fault) = client.event() else {
        panic!("it ran")
    };
    assert_eq!(fault.symbol, Symbol::CommandNotFound);
    drop(client);
    world.verdict();
    let exit = world.exit();
    assert_eq!(exit.fault.unwrap().symbol, Symbol::CommandNotFound);
}

#[test]
fn without_a_terminal_nobody_attaches() {
    let world = World::new(Plan {
        command: vec!["cat".into()],
        ..Plan::default()
    });
    let fault = world.connect().attach(sized(1, 1)).map(drop).unwrap_err();
    assert_eq!(fault.symbol, Symbol::WrongState);
    world.connect().until_state(VmState::Running);
    assert_eq!(world.connect().status().attached, 0);
}

#[test]
fn at_most_so_many_clients_are_attached() {
    let world = world(&["cat"]);
    let clients: Vec<Exec> = (0..16)
        .map(|_| attach(&world, AttachRequest::default()))
        .collect();
    let fault = world.connect().attach(sized(1, 1)).map(drop).unwrap_err();
    assert_eq!(fault.symbol, Symbol::Busy);
    drop(clients);
    world.connect().watch_until(|status| status.attached == 0);
    attach(&world, AttachRequest::default());
}
