//! Hibernation and waking, seen from outside: the calls, the connections, the snapshot.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aegis_core::control::{Answer, Call, Outcome};
use aegis_core::fault::Symbol;
use aegis_core::idle::{Delay, IdlePolicy};
use aegis_core::lifecycle::VmState;
use aegis_vmm::owner::Verdict;

use crate::fake_guest::{Script, Seen};
use crate::world::{PATIENCE, Plan, World, argv};

fn hibernates_after(millis: u64) -> IdlePolicy {
    IdlePolicy {
        pause: Delay::Never,
        hibernate: Delay::After(Duration::from_millis(millis)),
    }
}

fn echo(port: SocketAddr) {
    let mut client = TcpStream::connect(port).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"hello").unwrap();
    let mut echoed = [0; 5];
    client.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"hello");
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_machine_goes_to_the_disk_and_comes_back_with_the_next_use() {
    let world = World::new(Plan {
        ports: vec![80],
        activated: true,
        ..Plan::default()
    });
    let snapshot = world.dir.path().join("snapshot");
    world.connect().until_state(VmState::Running);
    let asked = world.connect().ask(Call::Hibernate).unwrap();
    assert_eq!(asked, Answer::Outcome(Outcome::Changed));
    until("there is no snapshot", || snapshot.exists());
    let mode = std::fs::metadata(&snapshot).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world.seen(|seen| matches!(seen, Seen::Suspend).then_some(()));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(world.lives(), 1, "nobody needs it");
    echo(world.ports[0]);
    world.seen(|seen| matches!(seen, Seen::Restored).then_some(()));
    assert_eq!(world.lives(), 2);
    assert!(!snapshot.exists(), "it is used once");
    let status = world.connect().status();
    assert_eq!(
        (status.state, status.not_restored),
        (VmState::Running, None)
    );
}

#[test]
fn who_uses_it_is_named_to_who_would_hibernate_it() {
    let world = World::new(Plan::default());
    let mut exec = world.connect().exec(argv(&["cat"])).unwrap();
    exec.event();
    let fault = world.connect().ask(Call::Hibernate).unwrap_err();
    assert_eq!(fault.symbol, Symbol::Busy);
    assert!(fault.message.contains("1 exec session"), "{fault}");
    assert_eq!(world.connect().status().state, VmState::Running);
}

#[test]
fn an_idle_one_hibernates_and_ends_in_order() {
    let mut world = World::new(Plan {
        idle: hibernates_after(100),
        ..Plan::default()
    });
    assert!(matches!(world.verdict(), Verdict::Finished));
    assert!(world.dir.path().join("snapshot").exists());
}

#[test]
fn a_guest_that_cannot_be_suspended_runs_on_and_says_why() {
    let world = World::new(Plan {
        script: Script {
            wakeful: true,
            ..Script::default()
        },
        ..Plan::default()
    });
    world.connect().until_state(VmState::Running);
    let fault = world.connect().ask(Call::Hibernate).unwrap_err();
    assert!(
        fault.message.contains("takes") || fault.message.contains("take"),
        "{fault}"
    );
    let status = world.connect().until_state(VmState::Running);
    assert_eq!(status.cannot_hibernate, Some(fault));
    let mut exec = world.connect().exec(argv(&["fail"])).unwrap();
    exec.event();
    assert!(!world.dir.path().join("snapshot").exists());
}

fn restless(times: u32) -> World {
    let world = World::new(Plan {
        command: vec!["run".into()],
        script: Script {
            restless: times,
            ..Script::default()
        },
        ..Plan::default()
    });
    world.connect().until_state(VmState::Running);
    world
}

#[test]
fn a_command_that_is_just_starting_does_not_keep_it_from_the_disk() {
    let world = restless(2);
    let asked = world.connect().ask(Call::Hibernate).unwrap();
    assert_eq!(asked, Answer::Outcome(Outcome::Changed));
    for _ in 0..3 {
        world.seen(|seen| matches!(seen, Seen::Suspend).then_some(()));
    }
    assert!(world.dir.path().join("snapshot").exists());
}

#[test]
fn a_command_that_starts_and_starts_does_in_the_end() {
    let world = restless(u32::MAX);
    let fault = world.connect().ask(Call::Hibernate).unwrap_err();
    assert_eq!(fault.symbol, Symbol::Busy);
    assert_eq!(
        fault.message,
        "the command of the instance has started or ended meanwhile"
    );
    world.connect().until_state(VmState::Running);
    assert!(!world.dir.path().join("snapshot").exists());
}

#[test]
fn secrets_in_the_guest_keep_it_from_the_disk() {
    let world = World::new(Plan::default());
    let mut request = argv(&["fail"]);
    request.has_secrets = true;
    let mut exec = world.connect().exec(request).unwrap();
    exec.event();
    exec.event();
    drop(exec);
    world.connect().watch_until(|status| status.execs == 0);
    let fault = world.connect().ask(Call::Hibernate).unwrap_err();
    assert_eq!(fault.symbol, Symbol::Unsupported);
    assert!(fault.message.contains("secrets"), "{fault}");
}

#[test]
fn a_stop_on_the_way_to_the_disk_is_a_stop() {
    let mut world = World::new(Plan::default());
    world.connect().until_state(VmState::Running);
    let mut client = world.connect();
    client.send(Call::Hibernate);
    world.stop();
    assert!(matches!(world.verdict(), Verdict::Finished));
}

#[test]
fn every_connection_at_the_border_of_sleep_is_served() {
    const CLIENTS: u64 = 4;
    let world = World::new(Plan {
        ports: vec![80],
        idle: hibernates_after(3),
        activated: true,
        ..Plan::default()
    });
    let served = AtomicU32::new(0);
    let until = Instant::now() + Duration::from_secs(6);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (port, served) = (world.ports[0], &served);
            scope.spawn(move || {
                let mut step = number;
                while Instant::now() < until {
                    step = (step * 7 + 3) % 41;
                    thread::sleep(Duration::from_millis(step));
                    echo(port);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(served.into_inner() > 50);
    assert!(
        world.lives() > 3,
        "it slept in between: {} lives",
        world.lives()
    );
    assert!(!world.was_disturbed());
}
