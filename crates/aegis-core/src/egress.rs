//! What aegis-vmm and the filter of a VM's network tell each other, a message in each
//! packet of a socket (unix(7), `SOCK_SEQPACKET`).
//!
//! ```text
//!  aegis-vmm                            aegis-egress
//!    │ order, with three descriptors ───►│  the guest, the outside, the counters
//!    │ order ───────────────────────────►│  whenever the host's addresses change
//!    │◄──────────────────────── question │  of DNS, as the guest wrote it
//!    │ answer ──────────────────────────►│
//! ```

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::network::AllowedHost;

/// The longest message of DNS (RFC 1035, section 4.2.2).
pub const MAX_DNS: usize = 65535;
/// The longest message: one of DNS with what stands before it.
pub const MAX_MESSAGE: usize = MAX_DNS + QUESTION_HEADER;
/// A kind, a number and how it came.
const QUESTION_HEADER: usize = 6;

/// Descriptors that come with the first order: packets of the guest, one in each
/// datagram; the stream of the outside, where four bytes tell the length of each; and a
/// file that takes the [`Carried`].
pub const DESCRIPTORS: usize = 3;

/// What the filter lets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The guest's hardware address.
    pub guest: [u8; 6],
    /// What it reaches beside public addresses.
    pub allowed: Vec<AllowedHost>,
    /// The host's own addresses, public ones too.
    pub own: Vec<IpAddr>,
    /// Whether there is a way out for IPv4.
    pub ipv4: bool,
    /// The same for IPv6.
    pub ipv6: bool,
}

/// How a question reached the gateway, and has to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// To the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToFilter {
    Order(Order),
    /// An answer of DNS; an empty one where there is none.
    Answer {
        id: u32,
        message: Vec<u8>,
    },
}

/// From the filter: a question of DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub id: u32,
    pub transport: Transport,
    pub message: Vec<u8>,
}

const ORDER: u8 = b'o';
const ANSWER: u8 = b'a';
const QUESTION: u8 = b'q';

impl ToFilter {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Order(order) => {
                let mut bytes = vec![ORDER];
                // Writing to memory cannot fail, and there are no maps.
                bytes.extend(serde_json::to_vec(order).unwrap_or_default());
                bytes
            }
            Self::Answer { id, message } => {
                let mut bytes = vec![ANSWER];
                bytes.extend(id.to_be_bytes());
                bytes.extend(message);
                bytes
            }
        }
    }

    /// `None` for what is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [ORDER, json @ ..] => serde_json::from_slice(json).ok().map(Self::Order),
            [ANSWER, a, b, c, d, message @ ..] => Some(Self::Answer {
                id: u32::from_be_bytes([*a, *b, *c, *d]),
                message: message.to_vec(),
            }),
            _ => None,
        }
    }
}

impl Question {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![QUESTION];
        bytes.extend(self.id.to_be_bytes());
        bytes.push(u8::from(self.transport == Transport::Tcp));
        bytes.extend(&self.message);
        bytes
    }

    /// `None` for what is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [QUESTION, a, b, c, d, transport, message @ ..] = bytes else {
            return None;
        };
        Some(Self {
            id: u32::from_be_bytes([*a, *b, *c, *d]),
            transport: match transport {
                0 => Transport::Udp,
                1 => Transport::Tcp,
                _ => return None,
            },
            message: message.to_vec(),
        })
    }
}

/// Bytes of packets that were let through since the VM began, as they lie in the file of
/// the counters: eight bytes each, by the machine's own order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the guest.
    pub sent: u64,
    /// To the guest.
    pub received: u64,
}

impl Carried {
    /// Bytes of the file.
    pub const SIZE: usize = 16;

    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.sent.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.received.to_ne_bytes());
        bytes
    }

    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            sent: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            received: u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let order = ToFilter::Order(Order {
            guest: [2, 0xae, 1, 2, 3, 4],
            allowed: vec!["10.0.0.0/8:80".parse().unwrap()],
            own: vec!["192.0.2.1".parse().unwrap()],
            ipv4: true,
            ipv6: false,
        });
        let answer = ToFilter::Answer {
            id: 7,
            message: vec![1, 2, 3],
        };
        for message in [order, answer] {
            assert_eq!(ToFilter::decode(&message.encode()), Some(message));
        }
        let question = Question {
            id: u32::MAX,
            transport: Transport::Tcp,
            message: vec![0; 12],
        };
        assert_eq!(Question::decode(&question.encode()), Some(question));
        for bytes in [
            &b""[..],
            b"x",
            b"q\0\0\0\0",
            b"q\0\0\0\0\x02",
            b"o{}",
            b"a\0\0\0",
        ] {
            assert_eq!(ToFilter::decode(bytes), None);
            assert_eq!(Question::decode(bytes), None);
        }
        let carried = Carried {
            sent: 1,
            received: u64::MAX,
        };
        assert_eq!(Carried::from_bytes(carried.to_bytes()), carried);
    }
}
