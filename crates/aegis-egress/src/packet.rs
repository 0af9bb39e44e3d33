//! Reading packets of the guest and of the outside, strictly: what is not plainly one
//! of the few kinds that are carried is none of them.
//!
//! The filter and those behind it must not see two different packets in the same bytes.
//! So headers with options, extension headers and fragments are not read around but
//! refused; no guest needs them, since its packets may be as long as any message. What is
//! passed on is exactly the packet that was read, without what follows it in the frame.

use std::net::{IpAddr, Ipv4Addr};

use aegis_core::network::MTU;

/// Bytes of the header of Ethernet.
pub const ETHERNET: usize = 14;
/// The longest frame.
pub const MAX_FRAME: usize = ETHERNET + MTU as usize;

pub(crate) const ETHERTYPE_V4: u16 = 0x0800;
pub(crate) const ETHERTYPE_V6: u16 = 0x86dd;
const ETHERTYPE_ARP: u16 = 0x0806;

const HEADER_V4: usize = 20;
const HEADER_V6: usize = 40;
const TCP_HEADER: usize = 20;
/// Of UDP, of an echo, and of what an error of ICMP says before it quotes.
const SHORT_HEADER: usize = 8;

pub(crate) const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
pub(crate) const ICMP_V6: u8 = 58;

/// Why a frame is of no kind that is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Oddity {
    #[error("the frame is shorter than what is in it, or too long")]
    Length,
    #[error("the frame is neither IP nor ARP")]
    EtherType,
    #[error("the packet is a fragment, or has options or extension headers")]
    Header,
    #[error("the packet is neither TCP, UDP, an echo nor an error of them")]
    Protocol,
}

/// A frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The hardware address it comes from.
    pub source: [u8; 6],
    pub content: Content<'a>,
}

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Who has an address of IPv4.
    Arp,
    Ip(Packet<'a>),
}

/// A packet of IP, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub kind: Kind,
    pub bytes: &'a [u8],
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp(Ports),
    Udp(Ports),
    EchoRequest,
    EchoReply,
    /// An error of ICMP about a packet sent before.
    Error,
    /// Who has an address of IPv6 (RFC 4861).
    Neighbour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub source: u16,
    pub destination: u16,
}

impl Kind {
    pub fn ports(self) -> Option<Ports> {
        match self {
            Self::Tcp(ports) | Self::Udp(ports) => Some(ports),
            Self::EchoRequest | Self::EchoReply | Self::Error | Self::Neighbour => None,
        }
    }
}

/// Reads a frame.
///
/// # Errors
/// It is of no kind that is carried.
pub fn read(frame: &[u8]) -> Result<Frame<'_>, Oddity> {
    if frame.len() > MAX_FRAME {
        return Err(Oddity::Length);
    }
    let (header, rest) = frame.split_at_checked(ETHERNET).ok_or(Oddity::Length)?;
    let [_, _, _, _, _, _, a, b, c, d, e, f, high, low] = header else {
        return Err(Oddity::Length);
    };
    let content = match u16::from_be_bytes([*high, *low]) {
        ETHERTYPE_ARP => Content::Arp,
        ETHERTYPE_V4 => Content::Ip(read_v4(rest)?),
        ETHERTYPE_V6 => Content::Ip(read_v6(rest)?),
        _ => return Err(Oddity::EtherType),
    };
    Ok(Frame {
        source: [*a, *b, *c, *d, *e, *f],
        content,
    })
}

fn read_v4(bytes: &[u8]) -> Result<Packet<'_>, Oddity> {
    let header: &[u8; HEADER_V4] = bytes.first_chunk().ok_or(Oddity::Length)?;
    // Version 4 and five words of header.
    if header[0] != 0x45 {
        return Err(Oddity::Header);
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let bytes = bytes.get(..length).ok_or(Oddity::Length)?;
    let body = bytes.get(HEADER_V4..).ok_or(Oddity::Length)?;
    // All but "do not fragment" says that it is a part, or that there is more.
    if u16::from_be_bytes([header[6], header[7]]) & !0x4000 != 0 {
        return Err(Oddity::Header);
    }
    let [
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        protocol,
        _,
        _,
        a,
        b,
        c,
        d,
        w,
        x,
        y,
        z,
    ] = *header;
    let kind = match protocol {
        ICMP => match first(body, SHORT_HEADER)? {
            0 => Kind::EchoReply,
            8 => Kind::EchoRequest,
            3 | 11 | 12 => Kind::Error,
            _ => return Err(Oddity::Protocol),
        },
        other => transport(other, body)?,
    };
    Ok(Packet {
        source: Ipv4Addr::new(a, b, c, d).into(),
        destination: Ipv4Addr::new(w, x, y, z).into(),
        kind,
        bytes,
    })
}

fn read_v6(bytes: &[u8]) -> Result<Packet<'_>, Oddity> {
    let header: &[u8; HEADER_V6] = bytes.first_chunk().ok_or(Oddity::Length)?;
    if header[0] >> 4 != 6 {
        return Err(Oddity::Header);
    }
    let length = HEADER_V6 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let bytes = bytes.get(..length).ok_or(Oddity::Length)?;
    let body = bytes.get(HEADER_V6..).ok_or(Oddity::Length)?;
    let kind = match header[6] {
        ICMP_V6 => match first(body, SHORT_HEADER)? {
            128 => Kind::EchoRequest,
            129 => Kind::EchoReply,
            1..=4 => Kind::Error,
            135 | 136 => Kind::Neighbour,
            _ => return Err(Oddity::Protocol),
        },
        // Hop-by-hop options, routing, fragments, authentication, destination options.
        0 | 43 | 44 | 51 | 60 => return Err(Oddity::Header),
        other => transport(other, body)?,
    };
    let address = |from: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[from..from + 16]);
        IpAddr::V6(octets.into())
    };
    Ok(Packet {
        source: address(8),
        destination: address(24),
        kind,
        bytes,
    })
}

fn transport(protocol: u8, body: &[u8]) -> Result<Kind, Oddity> {
    let (needed, kind): (usize, fn(Ports) -> Kind) = match protocol {
        TCP => (TCP_HEADER, Kind::Tcp),
        UDP => (SHORT_HEADER, Kind::Udp),
        _ => return Err(Oddity::Protocol),
    };
    let [a, b, c, d, ..] = *body.get(..needed).ok_or(Oddity::Length)? else {
        return Err(Oddity::Length);
    };
    Ok(kind(Ports {
        source: u16::from_be_bytes([a, b]),
        destination: u16::from_be_bytes([c, d]),
    }))
}

/// The first byte of what is at least so long.
fn first(body: &[u8], needed: usize) -> Result<u8, Oddity> {
    let body = body.get(..needed).ok_or(Oddity::Length)?;
    body.first().copied().ok_or(Oddity::Length)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    /// A frame of IPv4 with this body.
    pub(crate) fn v4(source: &str, destination: &str, protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 8, 0];
        let length = u16::try_from(HEADER_V4 + body.len()).unwrap().to_be_bytes();
        frame.extend([
            0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0,
        ]);
        frame.extend(source.parse::<Ipv4Addr>().unwrap().octets());
        frame.extend(destination.parse::<Ipv4Addr>().unwrap().octets());
        frame.extend(body);
        frame
    }

    /// The same of IPv6.
    pub(crate) fn v6(source: &str, destination: &str, protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        frame.extend([0x60, 0, 0, 0, length[0], length[1], protocol, 64]);
        frame.extend(source.parse::<Ipv6Addr>().unwrap().octets());
        frame.extend(destination.parse::<Ipv6Addr>().unwrap().octets());
        frame.extend(body);
        frame
    }

    /// The beginning of TCP or UDP from port 1000.
    pub(crate) fn to_port(port: u16) -> Vec<u8> {
        let mut body = 1000_u16.to_be_bytes().to_vec();
        body.extend(port.to_be_bytes());
        body.resize(TCP_HEADER, 0);
        body
    }

    fn oddity(frame: &[u8]) -> Oddity {
        read(frame).unwrap_err()
    }

    #[test]
    fn a_packet_is_what_its_header_says_and_no_more() {
        let mut frame = v4("192.0.0.2", "1.1.1.1", TCP, &to_port(80));
        frame.extend([0xaa; 6]);
        let Content::Ip(packet) = read(&frame).unwrap().content else {
            panic!("not IP");
        };
        assert_eq!(packet.bytes.len(), HEADER_V4 + TCP_HEADER);
        assert_eq!(packet.kind.ports().unwrap().destination, 80);
        let frame = v6("fd00::2", "2a00::1", UDP, &to_port(53));
        let Content::Ip(packet) = read(&frame).unwrap().content else {
            panic!("not IP");
        };
        assert_eq!(packet.destination, "2a00::1".parse::<IpAddr>().unwrap());
        assert_eq!(packet.bytes, &frame[ETHERNET..]);
    }

    #[test]
    fn fragments_options_and_extension_headers_are_not_read_around() {
        let plain = v4("192.0.0.2", "1.1.1.1", TCP, &to_port(80));
        for (at, byte) in [
            (20, 0x20),
            (21, 1),
            (20, 0x80),
            (14, 0x46),
            (14, 0x55),
            (14, 0x44),
        ] {
            let mut frame = plain.clone();
            frame[at] = byte;
            assert_eq!(oddity(&frame), Oddity::Header, "{at}: {byte:#x}");
        }
        for header in [0, 43, 44, 51, 60] {
            let frame = v6("fd00::2", "2a00::1", header, &[TCP, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(oddity(&frame), Oddity::Header, "{header}");
        }
        for protocol in [2, 4, 41, 47, 50, 132] {
            let frame = v4("192.0.0.2", "1.1.1.1", protocol, &to_port(80));
            assert_eq!(oddity(&frame), Oddity::Protocol, "{protocol}");
        }
        let mut vlan = plain;
        vlan[12..14].copy_from_slice(&[0x81, 0]);
        assert_eq!(oddity(&vlan), Oddity::EtherType);
    }

    #[test]
    fn what_is_cut_short_is_no_packet() {
        for frame in [
            v4("192.0.0.2", "1.1.1.1", TCP, &to_port(80)),
            v6("fd00::2", "2a00::1", TCP, &to_port(80)),
            v4("192.0.0.2", "1.1.1.1", UDP, &to_port(80)[..SHORT_HEADER]),
        ] {
            for length in 0..frame.len() {
                assert_eq!(oddity(&frame[..length]), Oddity::Length, "{length}");
            }
        }
        let long = vec![0; MAX_FRAME + 1];
        assert_eq!(oddity(&long), Oddity::Length);
        // A length of its own that leaves no room for the header of TCP.
        let mut frame = v4("192.0.0.2", "1.1.1.1", TCP, &to_port(80));
        frame[17] = 39;
        assert_eq!(oddity(&frame), Oddity::Length);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(Frame { content: Content::Ip(packet), .. }) = read(&bytes) {
                prop_assert!(bytes[ETHERNET..].starts_with(packet.bytes));
            }
        }
    }
}
