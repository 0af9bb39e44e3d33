//! Falling asleep for want of need, and waking.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aegis_core::control::{Answer, Call, Keep, Outcome};
use aegis_core::idle::{Activity, Delay, IdlePolicy, Lease, Sleep};
use aegis_core::lifecycle::VmState;

use crate::world::{Client, PATIENCE, Plan, World, argv};

fn pauses_after(millis: u64) -> IdlePolicy {
    IdlePolicy {
        pause: Delay::After(Duration::from_millis(millis)),
        hibernate: Delay::Never,
    }
}

fn lease(reason: &str, from_now: Duration) -> Lease {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = u64::try_from(now.unwrap().as_micros()).unwrap();
    Lease::new(reason, from_now, now).unwrap()
}

fn echo(port: SocketAddr) {
    let mut client = TcpStream::connect(port).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"hello").unwrap();
    let mut echoed = [0; 5];
    client.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"hello");
}

#[test]
fn nobody_s_vm_is_paused_and_every_use_wakes_it() {
    let world = World::new(Plan {
        ports: vec![80],
        idle: pauses_after(200),
        ..Plan::default()
    });
    let quiet = world
        .connect()
        .watch_until(|status| status.sleeps.is_some());
    assert_eq!(quiet.sleeps.unwrap().0, Sleep::Pause);
    assert_eq!(quiet.awake_because, [""; 0]);
    world.connect().until_state(VmState::Paused);
    echo(world.ports[0]);
    let woken = world.connect().status();
    assert_eq!(woken.state, VmState::Running);
    world.connect().until_state(VmState::Paused);
    let mut exec = world.connect().exec(argv(&["cat"])).unwrap();
    exec.event();
    thread::sleep(Duration::from_millis(500));
    let awake = world.connect().status();
    assert_eq!(awake.state, VmState::Running);
    assert_eq!(awake.awake_because, ["1 exec session"]);
    assert_eq!(awake.sleeps, None);
    drop(exec);
    world.connect().until_state(VmState::Paused);
    assert!(!world.was_disturbed());
}

#[test]
fn what_the_guest_does_keeps_it_awake() {
    let world = World::new(Plan {
        idle: pauses_after(2_000),
        ..Plan::default()
    });
    world.connect().until_state(VmState::Running);
    let begun = Instant::now();
    let mut used = Activity::default();
    let mut seen = false;
    while begun.elapsed() < Duration::from_secs(4) {
        used.cpu += Duration::from_millis(100);
        world.has_done(used);
        thread::sleep(Duration::from_millis(100));
        let status = world.connect().status();
        assert_eq!(status.state, VmState::Running);
        seen |= status.awake_because == ["the guest computes"];
    }
    assert!(seen);
    world.connect().until_state(VmState::Paused);
}

#[test]
fn a_lease_keeps_it_awake_to_its_end_and_wakes_it() {
    let world = World::new(Plan {
        idle: pauses_after(300),
        leases: vec![lease("backup", Duration::from_secs(2))],
        ..Plan::default()
    });
    let awake = world
        .connect()
        .watch_until(|status| !status.awake_because.is_empty());
    assert_eq!(awake.awake_because, ["a lease: backup"]);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(world.connect().status().state, VmState::Running);
    world.connect().until_state(VmState::Paused);

    let keep = |leases: Vec<Lease>| {
        let idle = pauses_after(1_000);
        world
            .connect()
            .ask(Call::Keep(Keep { idle, leases }))
            .unwrap()
    };
    let asked = keep(vec![lease("again", Duration::from_secs(60))]);
    assert_eq!(asked, Answer::Outcome(Outcome::Changed));
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(world.connect().status().state, VmState::Running);
    keep(Vec::new());
    assert_eq!(keep(Vec::new()), Answer::Outcome(Outcome::Unchanged));
    world.connect().until_state(VmState::Paused);
}

#[test]
fn one_that_never_sleeps_does_not() {
    let world = World::new(Plan {
        idle: IdlePolicy {
            pause: Delay::Never,
            hibernate: Delay::Never,
        },
        ..Plan::default()
    });
    world.connect().until_state(VmState::Running);
    thread::sleep(Duration::from_secs(1));
    let status = world.connect().status();
    assert_eq!((status.state, status.sleeps), (VmState::Running, None));
}

#[test]
fn a_storm_at_the_boundary_is_served_whole() {
    const CLIENTS: u64 = 6;
    let world = World::new(Plan {
        ports: vec![80],
        idle: pauses_after(2),
        ..Plan::default()
    });
    world.connect().until_state(VmState::Paused);
    let served = AtomicU32::new(0);
    let until = Instant::now() + Duration::from_secs(5);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (control, port, served) = (world.control(), world.ports[0], &served);
            scope.spawn(move || {
                let mut step = number;
                while Instant::now() < until {
                    step = (step * 7 + 3) % 11;
                    thread::sleep(Duration::from_millis(step));
                    if step % 5 == 0 {
                        let mut exec = Client::of(&control).exec(argv(&["fail"])).unwrap();
                        exec.event();
                        exec.event();
                    } else {
                        echo(port);
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(served.into_inner() > 50);
    let after = world
        .connect()
        .watch_until(|status| status.state == VmState::Paused);
    assert!(
        after.generation > 50,
        "it fell asleep in between: {}",
        after.generation
    );
    assert!(!world.was_disturbed());
}
