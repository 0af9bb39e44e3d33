//! The gateway's answer to a packet that is not let through: an error of ICMP, so that
//! programs in the guest fail at once instead of waiting.

use aegis_core::network::{GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6};

use crate::gate::GATEWAY_HARDWARE;
use crate::packet::{ETHERTYPE_V4, ETHERTYPE_V6, ICMP, ICMP_V6, Packet};
use crate::policy::Verdict;

const ICMP_HEADER: usize = 8;
/// Bytes of the refused packet that an error quotes: its header and the ports (RFC 792),
/// or as much as fits into the shortest of the longest packets (RFC 4443).
const QUOTED_V4: usize = 20 + 8;
const QUOTED_V6: usize = 1280 - 40 - ICMP_HEADER;

/// The frame that tells the guest why its packet goes nowhere.
pub(crate) fn refusal(guest: [u8; 6], packet: &Packet<'_>, verdict: Verdict) -> Vec<u8> {
    if packet.destination.is_ipv4() {
        // Destination unreachable: administratively prohibited, or the network.
        let code = if verdict == Verdict::Forbidden { 13 } else { 0 };
        let icmp = with_checksum(error(3, code, packet.bytes, QUOTED_V4), 0);
        let mut frame = ethernet(guest, ETHERTYPE_V4);
        let mut header = [0; 20];
        let total = length(header.len() + icmp.len());
        header[0] = 0x45;
        header[2..4].copy_from_slice(&total);
        header[8] = 64;
        header[9] = ICMP;
        header[12..16].copy_from_slice(&GATEWAY_V4.octets());
        header[16..20].copy_from_slice(&GUEST_V4.octets());
        let checksum = folded(sum(&header));
        header[10..12].copy_from_slice(&checksum);
        frame.extend(header);
        frame.extend(icmp);
        frame
    } else {
        // Destination unreachable: administratively prohibited, or no route.
        let code = if verdict == Verdict::Forbidden { 1 } else { 0 };
        let icmp = error(1, code, packet.bytes, QUOTED_V6);
        let (source, destination) = (GATEWAY_V6.octets(), GUEST_V6.octets());
        let length = length(icmp.len());
        let pseudo = sum(&source) + sum(&destination) + sum(&length) + u32::from(ICMP_V6);
        let icmp = with_checksum(icmp, pseudo);
        let mut frame = ethernet(guest, ETHERTYPE_V6);
        frame.extend([0x60, 0, 0, 0, length[0], length[1], ICMP_V6, 64]);
        frame.extend(source);
        frame.extend(destination);
        frame.extend(icmp);
        frame
    }
}

/// The header of a frame from the gateway.
pub(crate) fn ethernet(guest: [u8; 6], ether_type: u16) -> Vec<u8> {
    let mut frame = guest.to_vec();
    frame.extend(GATEWAY_HARDWARE);
    frame.extend(ether_type.to_be_bytes());
    frame
}

fn error(kind: u8, code: u8, about: &[u8], quoted: usize) -> Vec<u8> {
    let mut icmp = vec![0; ICMP_HEADER];
    icmp[0] = kind;
    icmp[1] = code;
    icmp.extend(about.iter().take(quoted));
    icmp
}

fn with_checksum(mut icmp: Vec<u8>, pseudo: u32) -> Vec<u8> {
    let checksum = folded(sum(&icmp) + pseudo);
    icmp[2..4].copy_from_slice(&checksum);
    icmp
}

fn length(bytes: usize) -> [u8; 2] {
    // A header and a quotation, which are short.
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// The sum of 16-bit words of RFC 1071; of so few bytes it fits.
fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

fn folded(sum: u32) -> [u8; 2] {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    // Two folds of a sum of 32 bits leave 16.
    (!u16::try_from(twice).unwrap_or(u16::MAX)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Ipv4Packet};
    use smoltcp::wire::{Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr, Ipv6Packet};

    use super::*;
    use crate::packet::tests::{to_port, v4, v6};
    use crate::packet::{Content, ETHERNET, read};

    fn refused(frame: &[u8], verdict: Verdict) -> Vec<u8> {
        let Content::Ip(packet) = read(frame).unwrap().content else {
            panic!("not IP");
        };
        refusal([2, 0, 0, 0, 0, 1], &packet, verdict)
    }

    #[test]
    fn another_implementation_reads_the_errors_and_their_checksums() {
        let checked = ChecksumCapabilities::default();
        let frame = refused(
            &v4("192.0.0.2", "10.0.0.1", 6, &to_port(80)),
            Verdict::Forbidden,
        );
        let packet = Ipv4Packet::new_checked(&frame[ETHERNET..]).unwrap();
        assert!(packet.verify_checksum());
        let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert!(icmp.verify_checksum());
        assert_eq!(icmp.msg_type(), Icmpv4Message::DstUnreachable);
        assert_eq!(
            icmp.msg_code(),
            u8::from(Icmpv4DstUnreachable::CommProhibited)
        );
        assert_eq!(icmp.data()[16..20], [10, 0, 0, 1]);

        let frame = refused(
            &v6("fd61:6567:6973::2", "2a00::1", 6, &to_port(80)),
            Verdict::NoRoute,
        );
        let packet = Ipv6Packet::new_checked(&frame[ETHERNET..]).unwrap();
        let icmp = Icmpv6Packet::new_checked(packet.payload()).unwrap();
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let Icmpv6Repr::DstUnreachable { reason, .. } =
            Icmpv6Repr::parse(&source, &destination, &icmp, &checked).unwrap()
        else {
            panic!("another kind");
        };
        assert_eq!(reason, Icmpv6DstUnreachable::NoRoute);
    }
}
