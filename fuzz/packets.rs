//! What the filter of a guest's network reads, called with any bytes; as `parsers.rs`,
//! with the tests of aegis-egress.
//!
//! The bytes are a script of frames: whose they are and whether they are of IPv6 (1), their
//! length (2), and what they hold. Addresses that no fuzzer guesses are put in.

use aegis_core::egress::Order;
use aegis_core::network::{GATEWAY_V4, GUEST_V4, GUEST_V6};
use aegis_egress::gate::{Outbound, inbound, outbound};
use aegis_egress::gateway::Gateway;
use aegis_egress::packet::{Content, ETHERNET, MAX_FRAME, read};
use aegis_egress::policy::{Verdict, is_gateway, judge};
use aegis_egress::stream::Reader;
use smoltcp::time::Instant;

const GUEST: [u8; 6] = [2, 0xae, 0, 0, 0, 1];

/// Frames of both sides, through everything that looks at them.
pub(crate) fn packets(bytes: &[u8]) {
    let order = Order {
        guest: GUEST,
        allowed: vec!["10.0.0.0/8:80".parse().expect("a host")],
        own: Vec::new(),
        ipv4: true,
        ipv6: bytes.first().is_some_and(|first| first % 2 == 0),
    };
    let mut gateway = Gateway::new(0, Instant::ZERO);
    let mut rest = bytes;
    let mut millis = 0;
    while let [kind, low, high, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])) % (MAX_FRAME + 2);
        let (frame, left) = more.split_at(length.min(more.len()));
        rest = left;
        let frame = addressed(*kind, frame.to_vec());
        match outbound(&order, &frame) {
            Outbound::Pass(passed) => {
                let Ok(Content::Ip(packet)) = read(&passed.frame).map(|frame| frame.content) else {
                    panic!("what passed is no packet");
                };
                assert_eq!(packet.bytes.len(), passed.frame.len() - ETHERNET);
                assert!(packet.source == GUEST_V4 || packet.source == GUEST_V6);
                let port = packet.kind.ports().map(|ports| ports.destination);
                let verdict = judge(&order, packet.destination, port.or(Some(0)));
                assert_eq!(verdict, Verdict::Pass);
                assert!(!is_gateway(packet.destination));
            }
            Outbound::Gateway => gateway.receive(&frame),
            Outbound::Refuse(answer) => assert!(read(&answer).is_ok()),
            Outbound::Drop => {}
        }
        if let Some(passed) = inbound(&order, &frame) {
            assert_eq!(passed.frame[..6], GUEST);
        }
        millis += i64::from(*kind);
        gateway.poll(Instant::from_millis(millis));
        while let Some(question) = gateway.next_question() {
            gateway.answered(question.id, &question.message);
        }
        while let Some(frame) = gateway.next_frame() {
            assert!(frame.len() <= MAX_FRAME);
        }
    }
}

/// A frame with some of its addresses as they should be.
fn addressed(kind: u8, mut frame: Vec<u8>) -> Vec<u8> {
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = frame.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(6, &GUEST);
    match kind >> 4 & 3 {
        0 => {}
        1 => {
            put(ETHERNET + 12, &GUEST_V4.octets());
            put(ETHERNET + 16, &GATEWAY_V4.octets());
        }
        2 => put(ETHERNET + 12, &GUEST_V4.octets()),
        _ => put(ETHERNET + 8, &GUEST_V6.octets()),
    }
    frame
}

/// The stream of passt, cut anyhow.
pub(crate) fn stream(bytes: &[u8]) {
    let mut reader = Reader::default();
    let size = bytes.last().map_or(1, |size| 1 + 40 * usize::from(*size));
    for piece in bytes.chunks(size) {
        let room = reader.room();
        let count = piece.len().min(room.len());
        room[..count].copy_from_slice(&piece[..count]);
        reader.filled(count);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => assert!(frame.len() <= MAX_FRAME),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}
