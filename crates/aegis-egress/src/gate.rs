//! The one place that decides about every packet, in both directions. Pure.

use std::net::IpAddr;

use aegis_core::egress::Order;
use aegis_core::network::{GUEST_V4, GUEST_V6};

use crate::flows::Flow;
use crate::packet::{Content, ETHERTYPE_V4, ETHERTYPE_V6, Kind, Packet, read};
use crate::policy::{Verdict, is_gateway, judge, leads_to_loopback};
use crate::refusal::{ethernet, refusal};

/// The gateway's hardware address, no guest's.
pub const GATEWAY_HARDWARE: [u8; 6] = [0x02, 0xaf, 0, 0, 0, 1];

/// The port of DNS.
pub const DNS: u16 = 53;

/// What becomes of a frame of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// This one goes out.
    Pass(Passed),
    /// It is for the gateway itself.
    Gateway,
    /// The guest gets this frame instead.
    Refuse(Vec<u8>),
    /// Nobody hears of it.
    Drop,
}

/// A frame to pass on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    pub frame: Vec<u8>,
    /// What it belongs to, where that is not for passt to know.
    pub flow: Option<Flow>,
}

/// Decides about a frame of the guest.
pub fn outbound(order: &Order, frame: &[u8]) -> Outbound {
    let Ok(frame) = read(frame) else {
        return Outbound::Drop;
    };
    if frame.source != order.guest {
        return Outbound::Drop;
    }
    let packet = match frame.content {
        Content::Arp => return Outbound::Gateway,
        Content::Ip(packet) => packet,
    };
    if packet.kind == Kind::Neighbour {
        return Outbound::Gateway;
    }
    // What claims to come from elsewhere is not answered either: the answer would not
    // reach who sent it.
    if !is_guest(packet.source) || packet.destination.is_multicast() {
        return Outbound::Drop;
    }
    let to = packet.kind.ports().map(|ports| ports.destination);
    let verdict = match packet.kind {
        Kind::EchoReply | Kind::Error | Kind::Neighbour => return Outbound::Drop,
        Kind::Tcp(_) | Kind::Udp(_) if is_gateway(packet.destination) => {
            if to == Some(DNS) {
                return Outbound::Gateway;
            }
            match leads_to_loopback(order, packet.destination, to) {
                true => Verdict::Pass,
                false => Verdict::Forbidden,
            }
        }
        Kind::EchoRequest if is_gateway(packet.destination) => return Outbound::Gateway,
        // An echo has no port: a host of which one port is allowed is not asked.
        Kind::Tcp(_) | Kind::Udp(_) | Kind::EchoRequest => {
            judge(order, packet.destination, to.or(Some(0)))
        }
    };
    match verdict {
        Verdict::Pass => Outbound::Pass(passed(order, &packet)),
        Verdict::Forbidden | Verdict::NoRoute => {
            Outbound::Refuse(refusal(order.guest, &packet, verdict))
        }
    }
}

/// Decides about a frame from outside: the one that the guest gets, if it gets any.
/// What is no packet of a host that the guest may talk to is not for it, announcements of
/// routers and the like above all.
pub fn inbound(order: &Order, frame: &[u8]) -> Option<Passed> {
    let Content::Ip(packet) = read(frame).ok()?.content else {
        return None;
    };
    if !is_guest(packet.destination) {
        return None;
    }
    let from = match packet.kind {
        Kind::Tcp(ports) | Kind::Udp(ports) => Some(ports.source),
        Kind::EchoReply => Some(0),
        // It speaks of any port.
        Kind::Error => None,
        Kind::EchoRequest | Kind::Neighbour => return None,
    };
    let passes = match is_gateway(packet.source) {
        true => leads_to_loopback(order, packet.source, from),
        false => judge(order, packet.source, from) == Verdict::Pass,
    };
    passes.then(|| passed(order, &packet))
}

fn is_guest(address: IpAddr) -> bool {
    address == GUEST_V4 || address == GUEST_V6
}

fn passed(order: &Order, packet: &Packet<'_>) -> Passed {
    let flow = match packet.kind {
        Kind::Udp(ports) if is_guest(packet.source) => Some(Flow {
            guest: ports.source,
            peer: packet.destination,
            port: ports.destination,
        }),
        Kind::Udp(ports) => Some(Flow {
            guest: ports.destination,
            peer: packet.source,
            port: ports.source,
        }),
        _ => None,
    };
    Passed {
        frame: framed(order, packet),
        flow,
    }
}

/// A frame with this packet and nothing of the one that it came in. To whom it is
/// addressed matters to the guest alone, so that one form serves both directions.
fn framed(order: &Order, packet: &Packet<'_>) -> Vec<u8> {
    let kind = match packet.source {
        IpAddr::V4(_) => ETHERTYPE_V4,
        IpAddr::V6(_) => ETHERTYPE_V6,
    };
    let mut frame = match is_guest(packet.source) {
        true => {
            let mut header = GATEWAY_HARDWARE.to_vec();
            header.extend(order.guest);
            header.extend(kind.to_be_bytes());
            header
        }
        false => ethernet(order.guest, kind),
    };
    frame.extend(packet.bytes);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::ETHERNET;
    use crate::packet::tests::{to_port, v4, v6};

    const GUEST: &str = "192.0.0.2";
    const GUEST6: &str = "fd61:6567:6973::2";
    const GATEWAY: &str = "192.0.0.1";
    const GATEWAY6: &str = "fd61:6567:6973::1";

    fn order(allowed: &[&str]) -> Order {
        Order {
            guest: [2, 0, 0, 0, 0, 1],
            allowed: allowed.iter().map(|text| text.parse().unwrap()).collect(),
            own: Vec::new(),
            ipv4: true,
            ipv6: true,
        }
    }

    fn sent(allowed: &[&str], frame: &[u8]) -> Outbound {
        outbound(&order(allowed), frame)
    }

    fn echo(kind: u8) -> Vec<u8> {
        vec![kind, 0, 0, 0, 0, 1, 0, 1]
    }

    #[test]
    fn public_addresses_pass_and_others_are_refused_with_a_word() {
        let passed = sent(&[], &v4(GUEST, "1.1.1.1", 6, &to_port(443)));
        assert!(matches!(passed, Outbound::Pass(_)));
        let passed = sent(&[], &v6(GUEST6, "2a00::1", 17, &to_port(443)));
        assert!(matches!(passed, Outbound::Pass(_)));
        for frame in [
            v4(GUEST, "10.0.0.1", 6, &to_port(443)),
            v4(GUEST, "127.0.0.1", 17, &to_port(443)),
            v4(GUEST, GATEWAY, 6, &to_port(22)),
            v6(GUEST6, "fd00::1", 6, &to_port(443)),
            v6(GUEST6, "::1", 6, &to_port(443)),
            v6(GUEST6, GATEWAY6, 6, &to_port(22)),
            v4(GUEST, "10.0.0.1", 1, &echo(8)),
        ] {
            let refused = sent(&[], &frame);
            assert!(matches!(refused, Outbound::Refuse(_)), "{refused:?}");
        }
    }

    #[test]
    fn who_claims_to_be_another_is_dropped() {
        let mut other = v4(GUEST, "1.1.1.1", 6, &to_port(80));
        other[11] = 9;
        for frame in [
            other,
            v4("192.0.0.3", "1.1.1.1", 6, &to_port(80)),
            v4("10.0.0.1", "1.1.1.1", 17, &to_port(80)),
            v6("fd61:6567:6973::3", "2a00::1", 6, &to_port(80)),
            v6("fe80::1", "2a00::1", 6, &to_port(80)),
            v4(GUEST, "224.0.0.251", 17, &to_port(5353)),
            v6(GUEST6, "ff02::fb", 17, &to_port(5353)),
            v4(GUEST, "1.1.1.1", 1, &echo(0)),
            v4(GUEST, "1.1.1.1", 1, &echo(5)),
        ] {
            assert_eq!(sent(&[], &frame), Outbound::Drop);
        }
    }

    #[test]
    fn the_gateway_is_asked_for_names_and_itself_and_leads_to_what_is_allowed() {
        for frame in [
            v4(GUEST, GATEWAY, 17, &to_port(53)),
            v4(GUEST, GATEWAY, 6, &to_port(53)),
            v6(GUEST6, GATEWAY6, 17, &to_port(53)),
            v4(GUEST, GATEWAY, 1, &echo(8)),
            v6("fe80::1", "ff02::1:ff00:1", 58, &echo(135)),
        ] {
            assert_eq!(sent(&[], &frame), Outbound::Gateway);
        }
        let local = v4(GUEST, GATEWAY, 6, &to_port(8080));
        assert!(matches!(
            sent(&["127.0.0.1:8080"], &local),
            Outbound::Pass(_)
        ));
        assert!(matches!(
            sent(&["127.0.0.1:8081"], &local),
            Outbound::Refuse(_)
        ));
        // Names are the gateway's business even then.
        let names = v4(GUEST, GATEWAY, 17, &to_port(53));
        assert_eq!(sent(&["127.0.0.1"], &names), Outbound::Gateway);
    }

    #[test]
    fn a_host_with_one_allowed_port_answers_no_echo() {
        let asked = v4(GUEST, "10.0.0.1", 1, &echo(8));
        assert!(matches!(sent(&["10.0.0.1"], &asked), Outbound::Pass(_)));
        assert!(matches!(
            sent(&["10.0.0.1:80"], &asked),
            Outbound::Refuse(_)
        ));
    }

    #[test]
    fn the_outside_reaches_the_guest_only_from_where_it_may_go() {
        let from = |port: u16| {
            let mut body = port.to_be_bytes().to_vec();
            body.resize(20, 0);
            body
        };
        let got = |allowed: &[&str], frame: &[u8]| inbound(&order(allowed), frame).is_some();
        assert!(got(&[], &v4("1.1.1.1", GUEST, 6, &from(443))));
        assert!(got(&[], &v4("1.1.1.1", GUEST, 1, &echo(0))));
        assert!(got(&[], &v4("1.1.1.1", GUEST, 1, &echo(3))));
        assert!(got(&["10.0.0.1:80"], &v4("10.0.0.1", GUEST, 6, &from(80))));
        assert!(got(&["127.0.0.1:80"], &v4(GATEWAY, GUEST, 6, &from(80))));
        for frame in [
            v4("10.0.0.1", GUEST, 6, &from(443)),
            v4("1.1.1.1", "192.0.0.3", 6, &from(443)),
            v4(GATEWAY, GUEST, 17, &from(53)),
            v4("1.1.1.1", GUEST, 1, &echo(8)),
            // Announcements of a router, and of a neighbour.
            v6("fe80::1", "ff02::1", 58, &echo(134)),
            v6("fe80::1", GUEST6, 58, &echo(136)),
        ] {
            assert!(!got(&[], &frame));
        }
        let passed = inbound(&order(&[]), &v4("1.1.1.1", GUEST, 6, &from(443))).unwrap();
        let frame = passed.frame;
        assert_eq!(frame[..6], order(&[]).guest);
        assert_eq!(frame[6..12], GATEWAY_HARDWARE);
    }

    proptest! {
        /// Whatever the guest writes: what goes out is from the guest, to a place that it
        /// may reach, and exactly the packet that was judged.
        #[test]
        fn nothing_goes_out_that_was_not_judged(
            is_v6: bool,
            destination: [u8; 16],
            protocol in prop_oneof![Just(6_u8), Just(17), Just(1), Just(58), any::<u8>()],
            body in prop::collection::vec(any::<u8>(), 0..64),
            flips in prop::collection::vec((0_usize..80, any::<u8>()), 0..4),
        ) {
            let mut frame = if is_v6 {
                let destination = std::net::Ipv6Addr::from(destination).to_string();
                v6(GUEST6, &destination, protocol, &body)
            } else {
                let [a, b, c, d, ..] = destination;
                let destination = std::net::Ipv4Addr::from([a, b, c, d]).to_string();
                v4(GUEST, &destination, protocol, &body)
            };
            for (at, byte) in flips {
                if let Some(found) = frame.get_mut(at) {
                    *found ^= byte;
                }
            }
            let order = order(&["10.0.0.0/8:80", "fd00::/8"]);
            if let Outbound::Pass(Passed { frame: out, .. }) = outbound(&order, &frame) {
                let Content::Ip(packet) = read(&out).unwrap().content else {
                    panic!("not IP");
                };
                prop_assert_eq!(packet.bytes.len(), out.len() - ETHERNET);
                prop_assert!(is_guest(packet.source));
                let port = packet.kind.ports().map(|ports| ports.destination);
                prop_assert_eq!(judge(&order, packet.destination, port.or(Some(0))), Verdict::Pass);
            }
            if let Some(got) = inbound(&order, &frame) {
                prop_assert_eq!(&got.frame[..6], &order.guest[..]);
            }
        }
    }
}
