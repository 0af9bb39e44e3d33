//! Exposed ports: `[ADDRESS:]HOST:GUEST[/tcp]`, or `GUEST` alone, for which a number
//! on the host is chosen once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One port of the host that leads to a port in the guest.
///
/// Without an address it listens on 127.0.0.1: a port is open to other machines
/// only where the user says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortMapping {
    /// Where the host listens.
    pub host: SocketAddr,
    /// The TCP port in the guest, 1 to 65535.
    pub guest: u16,
}

/// A port as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "RequestText", into = "String")]
pub enum PortRequest {
    /// Where the host listens is said.
    Mapping(PortMapping),
    /// A port in the guest; on the host any number of 127.0.0.1 will do.
    Guest(u16),
}

/// Which ports of an instance are meant: by their number on the host, else in the
/// guest; by the address of the host; or by both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSelector {
    Number(u16),
    Host(SocketAddr),
    Mapping(PortMapping),
}

/// Why a text is not a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    #[error("the port '{0}' is not [[ADDRESS:]HOST:]GUEST, e.g. 8080:80")]
    Form(String),
    #[error("the port '{text}' holds '{number}', which is not a number from 1 to 65535")]
    Number { text: String, number: String },
    #[error("the port '{text}' holds '{address}', which is not an IP address")]
    Address { text: String, address: String },
    #[error("the port '{text}' asks for the protocol '{protocol}'; only tcp can be exposed")]
    Protocol { text: String, protocol: String },
}

impl PortRequest {
    /// Whether a port is one that was asked for.
    pub fn is_met_by(&self, port: &PortMapping) -> bool {
        match self {
            Self::Mapping(mapping) => mapping == port,
            Self::Guest(guest) => *guest == port.guest,
        }
    }

    /// The port in the guest.
    pub fn guest(&self) -> u16 {
        match self {
            Self::Mapping(mapping) => mapping.guest,
            Self::Guest(guest) => *guest,
        }
    }
}

impl PortSelector {
    /// Those of some ports that are meant.
    pub fn among(&self, ports: &[PortMapping]) -> Vec<PortMapping> {
        let those = |is_meant: &dyn Fn(&PortMapping) -> bool| -> Vec<PortMapping> {
            ports
                .iter()
                .filter(|port| is_meant(port))
                .copied()
                .collect()
        };
        match self {
            Self::Mapping(mapping) => those(&|port| port == mapping),
            Self::Host(host) => those(&|port| port.host == *host),
            Self::Number(number) => {
                let by_host = those(&|port| port.host.port() == *number);
                match by_host.is_empty() {
                    true => those(&|port| port.guest == *number),
                    false => by_host,
                }
            }
        }
    }
}

impl FromStr for PortMapping {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let form = || PortError::Form(text.to_owned());
        let (host, guest) = without_protocol(text)?.rsplit_once(':').ok_or_else(form)?;
        Ok(Self {
            host: host_side(text, host)?,
            guest: number(text, guest)?,
        })
    }
}

impl FromStr for PortRequest {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        match without_protocol(text)? {
            body if body.contains(':') => text.parse().map(Self::Mapping),
            "" => Err(PortError::Form(text.to_owned())),
            body => number(text, body).map(Self::Guest),
        }
    }
}

impl FromStr for PortSelector {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let body = without_protocol(text)?;
        if !body.contains(':') {
            return number(text, body).map(Self::Number);
        }
        // No address is a number, so that a text is one of them at most.
        let mapping = text.parse().map(Self::Mapping);
        mapping.or_else(|_| host_side(text, body).map(Self::Host))
    }
}

/// The text without `/tcp`.
fn without_protocol(text: &str) -> Result<&str, PortError> {
    match text.split_once('/') {
        None => Ok(text),
        Some((body, protocol)) if protocol.eq_ignore_ascii_case("tcp") => Ok(body),
        Some((_, protocol)) => Err(PortError::Protocol {
            text: text.into(),
            protocol: protocol.into(),
        }),
    }
}

fn host_side(text: &str, host: &str) -> Result<SocketAddr, PortError> {
    let Some((address, host)) = host.rsplit_once(':') else {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, number(text, host)?)));
    };
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
    let parsed: IpAddr = bare
        .unwrap_or(address)
        .parse()
        .map_err(|_| PortError::Address {
            text: text.into(),
            address: address.into(),
        })?;
    Ok(SocketAddr::new(parsed, number(text, host)?))
}

fn number(text: &str, digits: &str) -> Result<u16, PortError> {
    match digits.parse::<u16>() {
        Ok(port) if port != 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(PortError::Number {
            text: text.into(),
            number: digits.into(),
        }),
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.guest)
    }
}

impl fmt::Display for PortRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mapping(mapping) => mapping.fmt(f),
            Self::Guest(guest) => guest.fmt(f),
        }
    }
}

impl fmt::Display for PortSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Host(host) => host.fmt(f),
            Self::Mapping(mapping) => mapping.fmt(f),
        }
    }
}

impl From<PortRequest> for String {
    fn from(request: PortRequest) -> Self {
        request.to_string()
    }
}

impl From<PortMapping> for PortRequest {
    fn from(mapping: PortMapping) -> Self {
        Self::Mapping(mapping)
    }
}

/// A port in a manifest, where the guest's alone may be a plain number.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a port: \"HOST:GUEST\" or GUEST")]
enum RequestText {
    Number(u64),
    Text(String),
}

impl TryFrom<RequestText> for PortRequest {
    type Error = PortError;

    fn try_from(text: RequestText) -> Result<Self, PortError> {
        match text {
            RequestText::Number(number) => number.to_string().parse(),
            RequestText::Text(text) => text.parse(),
        }
    }
}

impl TryFrom<String> for PortMapping {
    type Error = PortError;

    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl From<PortMapping> for String {
    fn from(mapping: PortMapping) -> Self {
        mapping.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_and_prints_the_full_one() {
        for (text, full) in [
            ("8080:80", "127.0.0.1:8080:80"),
            ("8080:80/tcp", "127.0.0.1:8080:80"),
            ("0.0.0.0:1:2", "0.0.0.0:1:2"),
            ("[::1]:8080:80", "[::1]:8080:80"),
        ] {
            let mapping: PortMapping = text.parse().unwrap();
            assert_eq!(mapping.to_string(), full);
            assert_eq!(full.parse::<PortMapping>().unwrap(), mapping);
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        assert!(matches!(
            "80".parse::<PortMapping>(),
            Err(PortError::Form(_))
        ));
        assert!(matches!(
            "0:80".parse::<PortMapping>(),
            Err(PortError::Number { .. })
        ));
        assert!(matches!(
            "+8:80".parse::<PortMapping>(),
            Err(PortError::Number { .. })
        ));
        assert!(matches!(
            "8080:65536".parse::<PortMapping>(),
            Err(PortError::Number { .. })
        ));
        assert!(matches!(
            "host:8080:80".parse::<PortMapping>(),
            Err(PortError::Address { .. })
        ));
        for text in ["53:53/udp", "53/udp"] {
            assert!(matches!(
                text.parse::<PortRequest>(),
                Err(PortError::Protocol { .. })
            ));
        }
        for text in ["", ":", "0", "/tcp", "x", "80:", "1:2:3"] {
            assert!(text.parse::<PortRequest>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_guests_port_alone_leaves_the_hosts_to_be_chosen() {
        for (text, request) in [
            ("80", PortRequest::Guest(80)),
            ("80/tcp", PortRequest::Guest(80)),
            ("81:80", PortRequest::Mapping("81:80".parse().unwrap())),
        ] {
            let read: PortRequest = text.parse().unwrap();
            assert_eq!(read, request);
            assert_eq!(read.to_string().parse(), Ok(read));
        }
        let read: Vec<PortRequest> = serde_json::from_str(r#"[80, "80"]"#).unwrap();
        assert_eq!(read, [PortRequest::Guest(80); 2]);
        assert!(serde_json::from_str::<PortRequest>("70000").is_err());
    }

    #[test]
    fn ports_are_meant_by_either_end_or_both() {
        let ports = ["8080:80", "80:8081", "[::1]:8080:81", "9000:82"];
        let ports: Vec<PortMapping> = ports.iter().map(|port| port.parse().unwrap()).collect();
        for (text, meant) in [
            ("8080", &[0, 2][..]),
            ("80", &[1]),
            ("82", &[3]),
            ("8080:80", &[0]),
            ("[::1]:8080", &[2]),
            ("127.0.0.1:9000/tcp", &[3]),
            ("8080:82", &[]),
            ("1", &[]),
        ] {
            let selector: PortSelector = text.parse().unwrap();
            let meant: Vec<PortMapping> = meant.iter().map(|index| ports[*index]).collect();
            assert_eq!(selector.among(&ports), meant, "{text}");
            assert_eq!(selector.to_string().parse(), Ok(selector));
        }
        assert!("".parse::<PortSelector>().is_err());
        assert!("host:80".parse::<PortSelector>().is_err());
    }
}
