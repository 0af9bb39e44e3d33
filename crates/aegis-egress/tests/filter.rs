//! The filter between stand-ins of QEMU, passt and aegis-vmm, over the sockets they have.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aegis_core::egress::{Carried, Order, Question, ToFilter, Transport};
use aegis_egress::filter::{End, Filter, FilterError};
use aegis_egress::packet::{ETHERNET, MAX_FRAME};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, send, sendmsg, socketpair,
};

const GUEST: [u8; 6] = [2, 0xae, 0, 0, 0, 9];
const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    control: OwnedFd,
    guest: UnixDatagram,
    outside: UnixStream,
    counters: File,
    filter: JoinHandle<Result<End, FilterError>>,
}

fn order(allowed: &[&str]) -> ToFilter {
    ToFilter::Order(Order {
        guest: GUEST,
        allowed: allowed.iter().map(|text| text.parse().unwrap()).collect(),
        own: Vec::new(),
        ipv4: true,
        ipv6: true,
    })
}

fn world() -> World {
    let (control, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let (guest, of_guest) = UnixDatagram::pair().unwrap();
    let (outside, of_outside) = UnixStream::pair().unwrap();
    guest.set_read_timeout(Some(DEADLINE)).unwrap();
    outside.set_read_timeout(Some(DEADLINE)).unwrap();
    let counters = rustix::fs::memfd_create("counters", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let passed = [of_guest.as_fd(), of_outside.as_fd(), counters.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&passed)));
    let bytes = order(&[]).encode();
    sendmsg(
        &control,
        &[IoSlice::new(&bytes)],
        &mut ancillary,
        SendFlags::empty(),
    )
    .unwrap();
    let filter = thread::spawn(move || Filter::begin(theirs.as_fd())?.serve());
    World {
        control,
        guest,
        outside,
        counters: counters.into(),
        filter,
    }
}

/// A frame of UDP from the guest to a port, with nothing of use in it but its length.
fn udp(destination: [u8; 4], port: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + body.len()).unwrap();
    let mut frame = vec![0x02, 0xaf, 0, 0, 0, 1];
    frame.extend(GUEST);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + length).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 0, 2]);
    frame.extend(destination);
    let sum: u32 = frame[ETHERNET..]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(4000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(body);
    frame
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(frame);
    bytes
}

impl World {
    fn outside_gets(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.outside.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.outside.read_exact(&mut frame).unwrap();
        frame
    }

    fn guest_gets(&self) -> Vec<u8> {
        let mut frame = vec![0; MAX_FRAME];
        let length = self.guest.recv(&mut frame).unwrap();
        frame.truncate(length);
        frame
    }

    fn asks(&self) -> Question {
        let mut bytes = vec![0; 70_000];
        let (length, _) = recv(&self.control, &mut *bytes, RecvFlags::empty()).unwrap();
        Question::decode(&bytes[..length]).unwrap()
    }

    /// Lets the gateway know where the guest is, as every guest does before it speaks.
    fn meet(&self) {
        let mut frame = vec![0xff; 6];
        frame.extend(GUEST);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(GUEST);
        frame.extend([192, 0, 0, 2, 0, 0, 0, 0, 0, 0, 192, 0, 0, 1]);
        self.guest.send(&frame).unwrap();
        let answer = self.guest_gets();
        assert_eq!(answer[20..22], [0, 2], "an answer of ARP");
        assert_eq!(answer[28..32], [192, 0, 0, 1]);
    }
}

#[test]
fn frames_pass_both_ways_and_are_counted_and_others_do_not() {
    let mut world = world();
    world.guest.send(&udp([10, 0, 0, 1], 9, b"inner")).unwrap();
    let refused = world.guest_gets();
    assert_eq!(refused[34..36], [3, 13], "administratively prohibited");
    let frame = udp([1, 1, 1, 1], 9, b"outer");
    world.guest.send(&frame).unwrap();
    assert_eq!(world.outside_gets(), frame, "the first that passed");

    let mut back = frame.clone();
    back[26..34].copy_from_slice(&[1, 1, 1, 1, 192, 0, 0, 2]);
    back[34..38].copy_from_slice(&[0, 9, 0x0f, 0xa0]);
    let mut foreign = back.clone();
    foreign[26] = 10;
    // From another port of the same host, which the guest has not spoken to.
    let mut unasked = back.clone();
    unasked[35] = 10;
    let bytes = [framed(&foreign), framed(&unasked), framed(&back)].concat();
    for piece in bytes.chunks(7) {
        world.outside.write_all(piece).unwrap();
    }
    let got = world.guest_gets();
    assert_eq!(got[ETHERNET..], back[ETHERNET..]);
    assert_eq!(got[..6], GUEST);

    // A change of the order holds at once.
    send(
        &world.control,
        &order(&["10.0.0.1:9"]).encode(),
        SendFlags::empty(),
    )
    .unwrap();
    let inner = udp([10, 0, 0, 1], 9, b"inner");
    world.guest.send(&inner).unwrap();
    assert_eq!(world.outside_gets(), inner);
    drop(world.outside);
    assert_eq!(world.filter.join().unwrap().unwrap(), End::Outside);
    let mut bytes = [0; Carried::SIZE];
    world.counters.read_exact_at(&mut bytes, 0).unwrap();
    let carried = Carried::from_bytes(bytes);
    assert_eq!(carried.sent, (frame.len() + inner.len()) as u64);
    assert_eq!(carried.received, back.len() as u64);
}

#[test]
fn a_name_is_asked_for_and_answered() {
    let world = world();
    world.meet();
    let question = udp([192, 0, 0, 1], 53, b"what is the address?");
    world.guest.send(&question).unwrap();
    let asked = world.asks();
    assert_eq!(asked.transport, Transport::Udp);
    assert_eq!(asked.message, b"what is the address?");
    let answer = ToFilter::Answer {
        id: asked.id,
        message: b"it is this".to_vec(),
    };
    send(&world.control, &answer.encode(), SendFlags::empty()).unwrap();
    let answer = world.guest_gets();
    assert!(answer.ends_with(b"it is this"));
    assert_eq!(answer[34..38], [0, 53, 0x0f, 0xa0], "from port 53 to 4000");
    drop(world.control);
    assert_eq!(world.filter.join().unwrap().unwrap(), End::Owner);
}

#[test]
fn who_does_not_read_stops_who_writes() {
    let mut world = world();
    let long = udp([1, 1, 1, 1], 9, &vec![0; 60_000]);
    world.guest.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut idle = 0;
    while idle < 20 {
        match world.guest.send(&long) {
            Ok(_) => (sent, idle) = (sent + 1, 0),
            Err(_) => {
                idle += 1;
                thread::sleep(Duration::from_millis(10));
            }
        }
        assert!(sent < 100, "frames pile up somewhere");
    }
    for _ in 0..sent {
        assert_eq!(world.outside_gets().len(), long.len());
    }
    world.guest.send(&long).unwrap();
    assert_eq!(world.outside_gets().len(), long.len(), "it goes on");
}

#[test]
fn nonsense_of_passt_is_the_end() {
    let mut world = world();
    world.outside.write_all(&[0xff; 8]).unwrap();
    let end = world.filter.join().unwrap();
    assert!(matches!(end, Err(FilterError::Stream(_))), "{end:?}");
}
