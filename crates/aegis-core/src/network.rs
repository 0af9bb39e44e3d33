//! The guest's network: what a user asked for, and the addresses it is made of.
//!
//! Every guest has a network of its own with nobody else in it, so all have the same
//! addresses. Those of IPv4 are from the range that is kept for such translated links
//! (RFC 7335) and in use on no host's network; those of IPv6 are local ones, so that
//! programs prefer IPv4 (RFC 6724) where a host has no IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::handle::Handle;

/// The guest's address of IPv4.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);
/// The gateway's, which answers questions of DNS too.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
/// Bits of the network in [`GUEST_V4`].
pub const PREFIX_V4: u8 = 29;
/// The guest's address of IPv6.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd61, 0x6567, 0x6973, 0, 0, 0, 0, 2);
/// The gateway's.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd61, 0x6567, 0x6973, 0, 0, 0, 0, 1);
/// Bits of the network in [`GUEST_V6`].
pub const PREFIX_V6: u8 = 64;
/// The longest packet, the largest of IPv4 in 32-bit words: connections are carried, not
/// packets, so that long ones cost the fewest steps and none is ever taken apart.
pub const MTU: u16 = 65520;

/// Most addresses that an instance can be allowed.
pub const MAX_ALLOWED: usize = 64;

/// What of the network a guest reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Public addresses, and those that it is allowed by name.
    #[default]
    Open,
    /// Nothing: the guest has no network device.
    None,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::None => "none",
        })
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        match text {
            "open" => Ok(Self::Open),
            "none" => Ok(Self::None),
            other => Err(NetworkError::Policy(other.to_owned())),
        }
    }
}

/// Why a setting of the network is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("'{0}' is not a network; known are open and none")]
    Policy(String),
    #[error(
        "'{0}' is not ADDRESS[/PREFIX][:PORT] with an address of IPv4, or of IPv6 in brackets where a port follows"
    )]
    Form(String),
    #[error("'{text}' has bits behind its prefix; the network is {network}")]
    HostBits { text: String, network: AllowedHost },
    #[error("'{0}' cannot be reached by any guest: {1}")]
    Unreachable(String, &'static str),
    #[error("{0} hosts are more than the {MAX_ALLOWED} that an instance can be allowed")]
    TooMany(usize),
    #[error("a guest without network reaches no host, allowed or not")]
    NoNetwork,
}

/// A host or network that a guest reaches although it is not public:
/// `ADDRESS[/PREFIX][:PORT]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AllowedHost {
    address: IpAddr,
    prefix: u8,
    /// `None` means all of them.
    port: Option<u16>,
}

impl AllowedHost {
    /// Whether it names this address, and this port of it; without a port, whether it
    /// names the address with any.
    pub fn covers(&self, address: IpAddr, port: Option<u16>) -> bool {
        let of_port = match (self.port, port) {
            (None, _) | (_, None) => true,
            (Some(own), Some(port)) => own == port,
        };
        of_port && network(address, self.prefix) == Some(self.address)
    }

    /// Whether it means this host's loopback, which a guest reaches at its gateway.
    pub fn is_loopback(&self) -> bool {
        self.address.is_loopback()
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }
}

/// The address with the bits behind the prefix cleared; `None` for a longer prefix than
/// the address is.
fn network(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(address) => {
            let host = 32_u32.checked_sub(prefix)?;
            let mask = u32::MAX.checked_shl(host).unwrap_or(0);
            Some(Ipv4Addr::from_bits(address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let host = 128_u32.checked_sub(prefix)?;
            let mask = u128::MAX.checked_shl(host).unwrap_or(0);
            Some(Ipv6Addr::from_bits(address.to_bits() & mask).into())
        }
    }
}

fn full(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.port) {
            (IpAddr::V6(address), Some(_)) => write!(f, "[{address}]")?,
            (address, _) => write!(f, "{address}")?,
        }
        if self.prefix != full(self.address) {
            write!(f, "/{}", self.prefix)?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl FromStr for AllowedHost {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let form = || NetworkError::Form(text.to_owned());
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
        let (address, rest): (IpAddr, &str) = if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or_else(form)?;
            let address: Ipv6Addr = address.parse().map_err(|_| form())?;
            (address.into(), rest)
        } else {
            let is_v6 = text.matches(':').count() > 1;
            let ends = |c| c == '/' || (c == ':' && !is_v6);
            let (address, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
            (address.parse().map_err(|_| form())?, rest)
        };
        let (prefix, port) = match rest.split_once(':') {
            Some((prefix, port)) => (prefix, Some(number(port).ok_or_else(form)?)),
            None => (rest, None),
        };
        let prefix = match prefix {
            "" => full(address),
            prefix => {
                let prefix = prefix.strip_prefix('/').and_then(|bits| bits.parse().ok());
                prefix
                    .filter(|bits| *bits <= full(address))
                    .ok_or_else(form)?
            }
        };
        let asked = Self {
            address,
            prefix,
            port,
        };
        if let Some(why) = asked.obstacle() {
            return Err(NetworkError::Unreachable(text.to_owned(), why));
        }
        match network(address, prefix) {
            Some(network) if network == address => Ok(asked),
            Some(address) => Err(NetworkError::HostBits {
                text: text.to_owned(),
                network: Self { address, ..asked },
            }),
            None => Err(form()),
        }
    }
}

impl AllowedHost {
    /// Why no guest can reach it, whatever it is allowed.
    fn obstacle(&self) -> Option<&'static str> {
        match self.address {
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
                Some("write the address of IPv4 in it")
            }
            address if address.is_multicast() => Some("it is no single host"),
            IpAddr::V4(Ipv4Addr::BROADCAST) => Some("it is no single host"),
            address if address.is_unspecified() && self.prefix == full(address) => {
                Some("it is no address of a host")
            }
            address @ (IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST))
                if self.prefix == full(address) =>
            {
                None
            }
            address if address.is_loopback() => Some("of the loopback there are 127.0.0.1 and ::1"),
            _ => None,
        }
    }
}

impl From<AllowedHost> for String {
    fn from(host: AllowedHost) -> Self {
        host.to_string()
    }
}

impl TryFrom<String> for AllowedHost {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

/// Checks the hosts that an instance is allowed.
///
/// # Errors
/// There are too many.
pub fn validate(allowed: &[AllowedHost]) -> Result<(), NetworkError> {
    if allowed.len() > MAX_ALLOWED {
        return Err(NetworkError::TooMany(allowed.len()));
    }
    Ok(())
}

/// Checks what is asked for at once. Hosts that were allowed before are kept for the day
/// that there is a network again.
///
/// # Errors
/// Hosts are allowed and the network is taken away.
pub fn check_request(
    network: Option<Network>,
    allowed: &[AllowedHost],
) -> Result<(), NetworkError> {
    if network == Some(Network::None) && !allowed.is_empty() {
        return Err(NetworkError::NoNetwork);
    }
    Ok(())
}

/// The hardware address of an instance's network device, the same at every start: a
/// locally administered one, with a hash of the handle (FNV-1a), since guests keep what
/// they know of a network under it.
pub fn hardware_address(handle: &Handle) -> [u8; 6] {
    let hash = handle.as_str().bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let [a, b, c, d] = hash.to_be_bytes();
    [0x02, 0xae, a, b, c, d]
}

/// The hardware address of every instance whose guest keeps nothing.
pub const AFRESH_HARDWARE: [u8; 6] = [0x02, 0xae, 0, 0, 0, 0];

/// A hardware address as QEMU and Linux write it.
pub fn hardware_text(address: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = address;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> AllowedHost {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_are_written_as_they_are_read() {
        for text in [
            "10.0.0.5",
            "10.0.0.5:5432",
            "10.0.0.0/8",
            "10.0.0.0/8:443",
            "fd00::1",
            "fd00::/8",
            "[fd00::1]:80",
            "[fd00::]/8:80",
            "127.0.0.1:8080",
            "0.0.0.0/0",
        ] {
            assert_eq!(host(text).to_string(), text);
        }
        assert_eq!(host("[fd00::1]").to_string(), "fd00::1");
    }

    #[test]
    fn what_names_no_reachable_host_is_refused() {
        for text in [
            "",
            "host",
            "10.0.0.1:0",
            "10.0.0.1:x",
            "10.0.0.1/33",
            "10.0.0.1/",
            "fd00::1]:80",
            "[10.0.0.1]:80",
            "fd00::/129",
            "10.0.0.1:80:90",
            "10.0.0.1/8/8",
        ] {
            let refused = text.parse::<AllowedHost>();
            assert!(
                matches!(refused, Err(NetworkError::Form(_))),
                "{text:?}: {refused:?}"
            );
        }
        for text in [
            "::ffff:10.0.0.1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "0.0.0.0",
            "::",
            "127.0.0.53",
            "127.0.0.0/8",
        ] {
            let refused = text.parse::<AllowedHost>();
            assert!(
                matches!(refused, Err(NetworkError::Unreachable(..))),
                "{text:?}: {refused:?}"
            );
        }
        let refused = "10.0.0.5/24:80".parse::<AllowedHost>().unwrap_err();
        assert!(refused.to_string().contains("10.0.0.0/24:80"), "{refused}");
    }

    #[test]
    fn a_host_covers_its_network_and_its_port() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(host("10.0.0.0/8").covers(address("10.200.0.1"), Some(1)));
        assert!(!host("10.0.0.0/8").covers(address("11.0.0.1"), Some(1)));
        assert!(host("10.0.0.1:80").covers(address("10.0.0.1"), Some(80)));
        assert!(!host("10.0.0.1:80").covers(address("10.0.0.1"), Some(81)));
        assert!(host("10.0.0.1:80").covers(address("10.0.0.1"), None));
        assert!(!host("0.0.0.0/0").covers(address("fd00::1"), None));
        assert!(host("0.0.0.0/0").covers(address("10.0.0.1"), None));
        assert!(host("fd00::/8").covers(address("fd12::1"), None));
    }

    #[test]
    fn an_instance_keeps_its_hardware_address() {
        let of = |name: &str| hardware_text(hardware_address(&name.parse().unwrap()));
        assert_eq!(of("web"), of("web"));
        assert_ne!(of("web"), of("db"));
        assert!(of("web").starts_with("02:ae:"));
    }
}
