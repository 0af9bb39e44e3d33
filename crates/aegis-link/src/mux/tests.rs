#![allow(
    clippy::cast_possible_truncation,
    reason = "patterns of bytes wrap on purpose"
)]

use proptest::prelude::*;

use super::*;
use crate::frame::{Frame, MAX_PAYLOAD, encode};

/// Moves everything either side has to say until both are silent.
fn settle(host: &mut Mux, guest: &mut Mux) -> Vec<MuxEvent> {
    let mut events = Vec::new();
    loop {
        let (mut down, mut up) = (Vec::new(), Vec::new());
        host.transmit(&mut down, 1 << 20);
        guest.transmit(&mut up, 1 << 20);
        if down.is_empty() && up.is_empty() {
            return events;
        }
        guest.receive(&down).unwrap();
        host.receive(&up).unwrap();
        while let Some(event) = guest.poll_event().or_else(|| host.poll_event()) {
            events.push(event);
        }
    }
}

fn pair() -> (Mux, Mux) {
    (Mux::new(Role::Host), Mux::new(Role::Guest))
}

fn read_all(mux: &mut Mux, id: StreamId) -> (Vec<u8>, ReadState) {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match mux.read(id, &mut buffer) {
            ReadState::Data(count) => all.extend_from_slice(&buffer[..count]),
            state => return (all, state),
        }
    }
}

fn wire(kind: Kind, epoch: u32, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(
        &mut out,
        Frame {
            kind,
            epoch,
            stream,
            payload,
        },
    );
    out
}

#[test]
fn halves_of_a_stream_end_apart() {
    let (mut host, mut guest) = pair();
    let id = host.open().unwrap();
    assert_eq!(host.write(id, b"question"), WriteState::Taken(8));
    host.finish(id);
    settle(&mut host, &mut guest);
    assert!(guest.claim(id) && !guest.claim(id));
    assert_eq!(
        read_all(&mut guest, id),
        (b"question".to_vec(), ReadState::End)
    );
    guest.write(id, b"answer");
    guest.finish(id);
    guest.abandon(id);
    settle(&mut host, &mut guest);
    assert_eq!(
        read_all(&mut host, id),
        (b"answer".to_vec(), ReadState::End)
    );
    host.abandon(id);
    settle(&mut host, &mut guest);
    assert!(host.streams.is_empty() && guest.streams.is_empty());
    assert_eq!((host.own_streams, guest.peer_streams), (0, 0));
}

#[test]
fn a_stream_let_go_unfinished_is_reset_on_the_other_side() {
    let (mut host, mut guest) = pair();
    let id = host.open().unwrap();
    host.write(id, b"x");
    settle(&mut host, &mut guest);
    guest.claim(id);
    host.abandon(id);
    settle(&mut host, &mut guest);
    assert_eq!(guest.read(id, &mut [0; 8]), ReadState::Reset);
    assert_eq!(guest.write(id, b"y"), WriteState::Reset);
    guest.abandon(id);
    assert!(guest.streams.is_empty());
}

#[test]
fn a_stream_nobody_reads_takes_a_window_and_no_more() {
    let (mut host, mut guest) = pair();
    let id = host.open().unwrap();
    let mut taken = 0;
    loop {
        match host.write(id, &[1; 10_000]) {
            WriteState::Taken(count) => taken += count,
            state => {
                let before = taken;
                settle(&mut host, &mut guest);
                match host.write(id, &[1; 10_000]) {
                    WriteState::Taken(count) => taken += count,
                    WriteState::Full => break,
                    other => panic!("{state:?} then {other:?}"),
                }
                assert!(taken > before);
            }
        }
    }
    assert_eq!(taken, WINDOW as usize + SEND_BUFFER);
    guest.claim(id);
    assert_eq!(read_all(&mut guest, id).0.len(), WINDOW as usize);
    settle(&mut host, &mut guest);
    assert_eq!(read_all(&mut guest, id).0.len(), SEND_BUFFER);
}

#[test]
fn a_busy_stream_does_not_hold_up_another() {
    let (mut host, mut guest) = pair();
    let (busy, quick) = (host.open().unwrap(), host.open().unwrap());
    settle(&mut host, &mut guest);
    host.write(busy, &[0; SEND_BUFFER]);
    host.write(quick, b"key");
    let mut out = Vec::new();
    host.transmit(&mut out, DATA_CHUNK + 100);
    guest.claim(quick);
    guest.receive(&out).unwrap();
    assert_eq!(read_all(&mut guest, quick).0, b"key");
}

#[test]
fn long_messages_arrive_whole_and_hold_credit_until_taken() {
    let (mut host, mut guest) = pair();
    for byte in 0..6 {
        guest.send_message(vec![byte; MAX_MESSAGE], true);
    }
    let mut taken = 0;
    while taken < 6 {
        let events = settle(&mut host, &mut guest);
        assert!(!events.is_empty() && events.len() <= 2);
        for event in events {
            let MuxEvent::Message { bytes, charge } = event else {
                panic!("{event:?}")
            };
            assert_eq!(bytes, vec![taken; MAX_MESSAGE]);
            host.release(charge);
            taken += 1;
        }
    }
}

#[test]
fn silence_holds_until_it_is_ended() {
    let (mut host, mut guest) = pair();
    let id = guest.open().unwrap();
    settle(&mut host, &mut guest);
    host.claim(id);
    host.quiesce();
    guest.write(id, b"late");
    host.write(id, b"later");
    let events = settle(&mut host, &mut guest);
    assert_eq!(events.last(), Some(&MuxEvent::Quiesced));
    guest.write(id, b"latest");
    assert_eq!(settle(&mut host, &mut guest), []);
    host.unquiesce();
    settle(&mut host, &mut guest);
    assert_eq!(read_all(&mut guest, id).0, b"later");
    assert_eq!(read_all(&mut host, id).0, b"latelatest");
}

#[test]
fn a_new_host_finds_the_guest_again_after_garbage() {
    let (mut host, mut guest) = pair();
    let old = host.open().unwrap();
    host.write(old, b"old");
    guest.send_message(b"reply".to_vec(), false);
    settle(&mut host, &mut guest);
    guest.claim(old);
    // The guest is in the middle of a frame, and has said things nobody read.
    guest
        .receive(&wire(Kind::Data, 1, old, &[9; 500])[..100])
        .unwrap();
    guest.send_message(b"event".to_vec(), true);
    guest.send_message(b"stale reply".to_vec(), false);
    let mut stale = wire(Kind::Data, 1, old, b"stale")[10..].to_vec();
    guest.transmit(&mut stale, 100);

    let mut host = Mux::restored(host.epoch());
    // Enough for the guest to see that the frame it waits for never came.
    let mut down = Vec::new();
    host.transmit(&mut down, 1 << 20);
    assert_eq!(host.write(1, b"x"), WriteState::Reset);
    guest.receive(&[0; 500]).unwrap();
    guest.receive(&down).unwrap();
    assert_eq!(guest.poll_event(), Some(MuxEvent::Resynced));
    guest.send_message(b"hello".to_vec(), true);
    let mut up = stale;
    guest.transmit(&mut up, 1 << 20);
    host.receive(&up).unwrap();
    assert_eq!(host.poll_event(), Some(MuxEvent::Resynced));
    assert!(
        matches!(host.poll_event(), Some(MuxEvent::Message { bytes, .. }) if bytes == b"hello")
    );
    let id = host.open().unwrap();
    host.write(id, b"new");
    settle(&mut host, &mut guest);
    assert!(guest.claim(id));
    assert_eq!(read_all(&mut guest, id).0, b"new");
}

#[test]
fn a_host_ends_the_link_on_each_violation() {
    let mut open_twice = wire(Kind::Open, 1, 2, &[]);
    open_twice.extend(wire(Kind::Open, 1, 2, &[]));
    let mut overrun = wire(Kind::Open, 1, 2, &[]);
    for _ in 0..=WINDOW as usize / MAX_PAYLOAD {
        overrun.extend(wire(Kind::Data, 1, 2, &[0; MAX_PAYLOAD]));
    }
    let mut after_end = wire(Kind::Open, 1, 2, &[]);
    after_end.extend(wire(Kind::Fin, 1, 2, &[]));
    after_end.extend(wire(Kind::Fin, 1, 2, &[]));
    let mut rich = wire(Kind::Open, 1, 2, &[]);
    rich.extend(wire(Kind::Credit, 1, 2, &1u32.to_le_bytes()));
    let long: Vec<u8> = (0..9)
        .flat_map(|_| wire(Kind::MessagePart, 1, 0, &[b' '; MAX_PAYLOAD]))
        .collect();
    let messages: Vec<u8> = (0..20)
        .flat_map(|_| wire(Kind::Message, 1, 0, &[b' '; MAX_PAYLOAD]))
        .collect();
    let opens: Vec<u8> = (1..=MAX_CONTROL as u32 + 20)
        .flat_map(|number| wire(Kind::Open, 1, number * 2, &[]))
        .collect();
    let cases: [(&str, &[u8], Violation); 12] = [
        (
            "garbage",
            b"hello, host!",
            Violation::Frame(FrameError::Header),
        ),
        (
            "future epoch",
            &wire(Kind::Fin, 2, 2, &[]),
            Violation::Epoch(2),
        ),
        (
            "unknown stream",
            &wire(Kind::Data, 1, 2, b"x"),
            Violation::Stream(2),
        ),
        (
            "stream of ours",
            &wire(Kind::Open, 1, 1, &[]),
            Violation::Stream(1),
        ),
        ("used number", &open_twice, Violation::Stream(2)),
        ("overrun", &overrun, Violation::Credit(2)),
        ("two ends", &after_end, Violation::OutOfPlace(Kind::Fin)),
        ("credit from nowhere", &rich, Violation::Credit(2)),
        ("long message", &long, Violation::MessageTooLong),
        ("message flood", &messages, Violation::Credit(0)),
        ("open flood", &opens, Violation::Unread),
        (
            "host's frame",
            &wire(Kind::Resync, 9, 0, &[]),
            Violation::OutOfPlace(Kind::Resync),
        ),
    ];
    for (name, bytes, violation) in cases {
        assert_eq!(
            Mux::new(Role::Host).receive(bytes),
            Err(violation),
            "{name}"
        );
    }
}

#[test]
fn a_host_does_not_look_for_an_answer_forever() {
    let mut host = Mux::restored(1);
    let frames: Vec<u8> = (0..40)
        .flat_map(|_| wire(Kind::Data, 1, 2, &[0; MAX_PAYLOAD]))
        .collect();
    assert_eq!(host.receive(&frames), Err(Violation::Lost));
    let mut host = Mux::restored(1);
    assert_eq!(
        host.receive(&vec![0xA6; MAX_GARBAGE + 9]),
        Err(Violation::Lost)
    );
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Write(usize, usize),
    Read(usize, usize),
    Finish(usize),
    Abandon(usize),
    Message(usize),
    Move(usize),
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let step = prop_oneof![
        Just(Step::Open),
        (0..8usize, 1..100_000usize).prop_map(|(stream, length)| Step::Write(stream, length)),
        (0..8usize, 1..100_000usize).prop_map(|(stream, length)| Step::Read(stream, length)),
        (0..8usize).prop_map(Step::Finish),
        (0..8usize).prop_map(Step::Abandon),
        (1..MAX_MESSAGE).prop_map(Step::Message),
        (1..200_000usize).prop_map(Step::Move),
    ];
    prop::collection::vec((any::<bool>(), step), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever two honest programs do, neither side sees a violation and every
    /// stream delivers a prefix of what was written, in order.
    #[test]
    fn honest_sides_never_violate(steps in steps()) {
        let (mut host, mut guest) = pair();
        let mut ids = Vec::new();
        let mut written: HashMap<(bool, StreamId), u8> = HashMap::new();
        let mut seen: HashMap<(bool, StreamId), u8> = HashMap::new();
        for (is_host, step) in steps {
            let (mux, peer) =
                if is_host { (&mut host, &mut guest) } else { (&mut guest, &mut host) };
            let pick = |index: usize| ids.get(index % ids.len().max(1)).copied().unwrap_or(0);
            match step {
                Step::Open => ids.extend(mux.open()),
                Step::Write(index, length) => {
                    let id = pick(index);
                    let next = written.entry((is_host, id)).or_default();
                    let bytes: Vec<u8> = (0..length).map(|at| next.wrapping_add(at as u8)).collect();
                    if mux.streams.get(&id).is_some_and(|stream| stream.owner == Owner::Program)
                        && let WriteState::Taken(count) = mux.write(id, &bytes)
                    {
                        *next = next.wrapping_add(count as u8);
                    }
                }
                Step::Read(index, length) => {
                    let id = pick(index);
                    mux.claim(id);
                    let mut buffer = vec![0; length];
                    if let ReadState::Data(count) = mux.read(id, &mut buffer) {
                        let next = seen.entry((is_host, id)).or_default();
                        for byte in &buffer[..count] {
                            prop_assert_eq!(*byte, *next);
                            *next = next.wrapping_add(1);
                        }
                    }
                }
                Step::Finish(index) => mux.finish(pick(index)),
                Step::Abandon(index) => mux.abandon(pick(index)),
                Step::Message(length) => {
                    mux.send_message(vec![b' '; length], true);
                }
                Step::Move(length) => {
                    let mut out = Vec::new();
                    mux.transmit(&mut out, length);
                    for part in out.chunks(1 + length / 3) {
                        prop_assert_eq!(peer.receive(part), Ok(()));
                        while let Some(event) = peer.poll_event() {
                            if let MuxEvent::Message { charge, .. } = event {
                                peer.release(charge);
                            }
                        }
                    }
                }
            }
        }
    }

    /// No bytes make either side panic or hold more than it may.
    #[test]
    fn no_bytes_break_a_side(
        parts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..300),
                (1u8..=13, 0u32..3, 0u32..9, prop::collection::vec(any::<u8>(), 0..300)).prop_map(
                    |(kind, epoch, stream, payload)| {
                        let kind = [
                            Kind::Message, Kind::MessagePart, Kind::Open, Kind::Data, Kind::Credit,
                            Kind::Fin, Kind::Reset, Kind::Quiesce, Kind::Quiesced, Kind::Unquiesce,
                            Kind::Resync, Kind::Resynced, Kind::Data,
                        ][usize::from(kind) - 1];
                        wire(kind, epoch, stream, &payload)
                    }
                ),
            ],
            0..60,
        ),
        is_host in any::<bool>(),
    ) {
        let mut mux = Mux::new(if is_host { Role::Host } else { Role::Guest });
        mux.open();
        let mut out = Vec::new();
        for part in parts {
            if mux.receive(&part).is_err() {
                break;
            }
            while mux.poll_event().is_some() {}
            out.clear();
            mux.transmit(&mut out, 1 << 16);
            prop_assert!(mux.streams.len() <= MAX_STREAMS + MAX_GUEST_STREAMS);
            prop_assert!(mux.assembly.len() <= MAX_MESSAGE);
        }
    }
}
