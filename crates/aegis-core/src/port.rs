//! Exposed ports: `[ADDRESS:]HOST:GUEST[/tcp]`.

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

/// Why a text is not a port mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    #[error("the port '{0}' is not [ADDRESS:]HOST:GUEST, e.g. 8080:80")]
    Form(String),
    #[error("the port '{text}' holds '{number}', which is not a number from 1 to 65535")]
    Number { text: String, number: String },
    #[error("the port '{text}' holds '{address}', which is not an IP address")]
    Address { text: String, address: String },
    #[error("the port '{text}' asks for the protocol '{protocol}'; only tcp can be exposed")]
    Protocol { text: String, protocol: String },
}

impl FromStr for PortMapping {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let body = match text.split_once('/') {
            None => text,
            Some((body, protocol)) if protocol.eq_ignore_ascii_case("tcp") => body,
            Some((_, protocol)) => {
                return Err(PortError::Protocol {
                    text: text.into(),
                    protocol: protocol.into(),
                });
            }
        };
        let form = || PortError::Form(text.to_owned());
        let (host, guest) = body.rsplit_once(':').ok_or_else(form)?;
        Ok(Self {
            host: host_side(text, host)?,
            guest: number(text, guest)?,
        })
    }
}

/// Reads where a port listens on the host: `[ADDRESS:]HOST`.
///
/// # Errors
/// The text is nothing of the kind.
pub fn parse_host(text: &str) -> Result<SocketAddr, PortError> {
    host_side(text, text)
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
        assert!(matches!(
            "53:53/udp".parse::<PortMapping>(),
            Err(PortError::Protocol { .. })
        ));
    }
}
