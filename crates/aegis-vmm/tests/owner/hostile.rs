//! Guests that were taken over. Whatever one sends, or does not: the owner answers
//! on its control socket, holds a bounded amount of memory, and ends the VM where a
//! rule was broken.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use aegis_core::control::ExecEvent;
use aegis_core::fault::Symbol;
use aegis_core::lifecycle::VmState;
use aegis_link::frame::{HEADER, Kind, MAX_PAYLOAD};
use aegis_link::message::{Call, Event, Message, Reply};
use aegis_link::mux::{MAX_CONTROL, WINDOW};
use aegis_vmm::owner::Verdict;

use crate::fake_guest::{Attack, Script, power_off};
use crate::raw_guest::{RawGuest, wire};
use crate::resident_kib;
use crate::world::{Client, PATIENCE, Plan, World, argv};

/// What an attack may add to the memory of this process, which holds the owner and
/// the attacker. The link's own bounds come to some 10 MiB on the owner's side.
const GROWTH_KIB: u64 = 32 * 1024;

/// How long the owner may take to answer while it is attacked. It does so within
/// milliseconds; this is for a machine that does other things too.
const RESPONSIVE: Duration = Duration::from_secs(5);

/// How long an attack that breaks no rule goes on.
const SIEGE: Duration = Duration::from_secs(2);

fn world(attack: Attack) -> World {
    World::new(Plan {
        script: Script {
            attack: Some(attack),
            ..Script::default()
        },
        ..Plan::default()
    })
}

/// Asks for the status until the VM is over or the time is up, and looks at each
/// answer's time and at the memory. An owner that ends closes the connection.
///
/// Returns whether it is over.
fn besiege(world: &World, until: Instant) -> bool {
    let before = resident_kib("VmRSS:");
    while Instant::now() < until {
        let asked = Instant::now();
        let Ok(socket) = UnixStream::connect(world.control()) else {
            return true;
        };
        if Client::new(socket).try_status().is_none() {
            return true;
        }
        let took = asked.elapsed();
        assert!(took < RESPONSIVE, "an answer took {took:?}");
        let grown = resident_kib("VmRSS:").saturating_sub(before);
        assert!(grown < GROWTH_KIB, "grew by {grown} KiB");
        thread::sleep(Duration::from_millis(5));
    }
    false
}

/// The attack breaks a rule: the VM is ended, and the reason says so.
fn is_a_violation(what: &str, attack: Attack) {
    let mut world = world(attack);
    let _session = world.connect().exec(argv(&["attack"])).unwrap();
    assert!(
        besiege(&world, Instant::now() + PATIENCE),
        "{what}: it goes on"
    );
    match world.verdict() {
        Verdict::Lost(fault) => assert_eq!(fault.symbol, Symbol::LinkViolation, "{what}: {fault}"),
        other => panic!("{what}: {other:?}"),
    }
}

/// The attack breaks no rule: the VM goes on, and an orderly stop ends it in time
/// though the guest has no part in it.
fn is_endured(attack: Attack) {
    let mut world = world(attack);
    let _session = world.connect().exec(argv(&["attack"])).unwrap();
    assert!(!besiege(&world, Instant::now() + SIEGE), "it is over");
    assert_eq!(world.connect().status().state, VmState::Running);
    world.stop();
    assert!(
        matches!(world.verdict(), Verdict::Finished),
        "it did not stop"
    );
}

#[test]
fn frames_out_of_place_are_violations() {
    let attacks: [(&str, Attack); 9] = [
        ("data of a stream that was never opened", |guest, _| {
            guest.send(Kind::Data, 2, b"x").ok();
        }),
        ("an end before the opening", |guest, _| {
            guest.send(Kind::Fin, 4, b"").ok();
            guest.send(Kind::Open, 4, b"").ok();
        }),
        ("streams opened out of order", |guest, _| {
            guest.send(Kind::Open, 8, b"").ok();
            guest.send(Kind::Open, 6, b"").ok();
        }),
        ("a stream of the host's numbers", |guest, _| {
            guest.send(Kind::Open, 1, b"").ok();
        }),
        ("silence nobody asked for", |guest, _| {
            guest.send(Kind::Quiesced, 0, b"").ok();
        }),
        ("a new epoch from the guest", |guest, _| {
            guest.send(Kind::Resync, 0, b"").ok();
        }),
        ("credit beyond the window", |guest, _| {
            guest.send(Kind::Credit, 0, &u32::MAX.to_le_bytes()).ok();
        }),
        ("credit that is no number", |guest, _| {
            guest.send(Kind::Credit, 0, b"a lot").ok();
        }),
        ("a message that is no JSON", |guest, _| {
            guest.send(Kind::Message, 0, b"{\"id\":").ok();
        }),
    ];
    for (what, attack) in attacks {
        is_a_violation(what, attack);
    }
}

#[test]
fn lying_lengths_are_violations() {
    is_a_violation("a header that announces 2 GiB", |guest, _| {
        let mut frame = wire(Kind::Data, 2, b"");
        frame[8..12].copy_from_slice(&(2_u32 << 30).to_le_bytes());
        guest.channel.write_all(&frame).ok();
        flood(guest, &[0; MAX_PAYLOAD]);
    });
    is_a_violation("a header that announces more than follows", |guest, _| {
        // Its own sum is right, so what follows is taken for its payload.
        let long = wire(Kind::Message, 0, &[b' '; 4096]);
        guest.channel.write_all(&long[..HEADER + 16]).ok();
        flood(guest, &wire(Kind::Open, 2, b""));
    });
    is_a_violation("a damaged payload", |guest, _| {
        let mut frame = wire(Kind::Message, 0, b"{}");
        *frame.last_mut().unwrap() ^= 1;
        guest.channel.write_all(&frame).ok();
    });
    is_a_violation("garbage", |guest, _| flood(guest, &[0xff; MAX_PAYLOAD]));
}

#[test]
fn floods_end_the_vm_and_take_no_memory() {
    is_a_violation("messages beyond the window", |guest, _| {
        // One message that never ends.
        flood(guest, &wire(Kind::MessagePart, 0, &[b' '; MAX_PAYLOAD]));
    });
    is_a_violation("calls whose answers are not taken", |guest, _| {
        for id in 0.. {
            let call = Call::Unknown;
            let Ok(bytes) = serde_json::to_vec(&Message::Call { id, call }) else {
                return;
            };
            if guest.send(Kind::Message, 0, &bytes).is_err() {
                return;
            }
        }
    });
    is_a_violation(
        "streams without end whose resets are not read",
        |guest, _| {
            for id in 1..u32::try_from(2 * MAX_CONTROL).unwrap() {
                if guest.send(Kind::Open, 2 * id, b"").is_err() {
                    return;
                }
            }
        },
    );
    is_a_violation("output beyond the credit of a stream", |guest, _| {
        guest.send(Kind::Open, 2, b"").ok();
        for _ in 0..=usize::try_from(WINDOW).unwrap() / MAX_PAYLOAD {
            guest.send(Kind::Data, 2, &[0; MAX_PAYLOAD]).ok();
        }
    });
}

#[test]
fn a_flood_within_the_rules_starves_nobody() {
    is_endured(|guest, _| {
        let event = Message::Event {
            event: Event::Unknown,
        };
        let event = serde_json::to_vec(&event).unwrap();
        loop {
            while guest.room >= HEADER + event.len() {
                if guest.send(Kind::Message, 0, &event).is_err() {
                    return;
                }
            }
            if guest.receive().is_err() {
                return;
            }
        }
    });
}

#[test]
fn a_guest_that_stalls_within_a_frame_holds_nobody_up() {
    is_endured(|guest, _| {
        let frame = wire(Kind::Message, 0, &[b' '; 4096]);
        guest.channel.write_all(&frame[..HEADER + 100]).unwrap();
    });
}

#[test]
fn a_guest_that_never_reads_holds_nobody_up() {
    let mut world = world(|guest, id| {
        let ok = Reply::Started { pid: 7 };
        guest.send_message(&Message::Ok { id, ok });
    });
    let mut exec = world.connect().exec(argv(&["cat"])).unwrap();
    assert_eq!(exec.event(), ExecEvent::Started {});
    // More than all buffers on the way take; the writer stops, the owner does not.
    let (mut stdin, _stdout, _stderr, events) = exec.split();
    let writer = thread::spawn(move || while stdin.write_all(&[0; MAX_PAYLOAD]).is_ok() {});
    assert!(!besiege(&world, Instant::now() + SIEGE), "it is over");
    assert!(!writer.is_finished(), "the guest cannot have taken it all");
    assert_eq!(world.connect().status().state, VmState::Running);
    world.stop();
    assert!(
        matches!(world.verdict(), Verdict::Finished),
        "it did not stop"
    );
    writer.join().unwrap();
    drop(events);
}

#[test]
fn a_client_that_never_reads_holds_the_guest_up_and_nobody_else() {
    let mut world = world(|guest, id| {
        let ok = Reply::Started { pid: 7 };
        guest.send_message(&Message::Ok { id, ok });
        // The first stream of the host is the session's output.
        let mut sent = 0;
        while sent + MAX_PAYLOAD <= usize::try_from(WINDOW).unwrap() {
            guest.send(Kind::Data, 1, &[0; MAX_PAYLOAD]).unwrap();
            sent += MAX_PAYLOAD;
        }
        while let Ok((kind, stream, number)) = guest.receive() {
            if (kind, stream) == (Kind::Credit, 1) {
                let number = u32::from_le_bytes(number.try_into().unwrap());
                let bytes = vec![0; usize::try_from(number).unwrap()];
                for part in bytes.chunks(MAX_PAYLOAD) {
                    guest.send(Kind::Data, 1, part).unwrap();
                }
            }
        }
    });
    let mut exec = world.connect().exec(argv(&["flood"])).unwrap();
    assert_eq!(exec.event(), ExecEvent::Started {});
    assert!(!besiege(&world, Instant::now() + SIEGE), "it is over");
    assert_eq!(world.connect().status().state, VmState::Running);
    // Read on, it flows on.
    let (_stdin, mut stdout, _stderr, _events) = exec.split();
    stdout.read_exact(&mut vec![0; 8 << 20]).unwrap();
    world.stop();
    assert!(
        matches!(world.verdict(), Verdict::Finished),
        "it did not stop"
    );
}

#[test]
fn a_guest_that_dies_within_a_frame_is_a_loss() {
    let mut world = world(|guest, _| {
        let frame = wire(Kind::Message, 0, &[b' '; 4096]);
        guest.channel.write_all(&frame[..HEADER + 100]).unwrap();
        guest.channel.shutdown(Shutdown::Both).unwrap();
    });
    let _session = world.connect().exec(argv(&["attack"])).unwrap();
    world.connect().until_state(VmState::Running);
    besiege(&world, Instant::now() + SIEGE / 4);
    power_off(&world.machine());
    let Verdict::Lost(fault) = world.verdict() else {
        panic!("finished")
    };
    assert_eq!(fault.symbol, Symbol::VmEnded);
}

/// Sends the same bytes until the owner has had enough.
fn flood(guest: &mut RawGuest, bytes: &[u8]) {
    while guest.channel.write_all(bytes).is_ok() {}
}
