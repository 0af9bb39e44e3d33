//! The network that a guest is given.

use serde::{Deserialize, Serialize};

/// The network of a guest, which has one device for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Hardware address of the device, six numbers in hex with colons between.
    pub hardware: String,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// IPv4.
    pub ipv4: NetworkAddress,
    /// IPv6.
    pub ipv6: NetworkAddress,
    /// Who answers questions of DNS.
    pub name_server: String,
}

/// An address of the guest, and the way to all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAddress {
    /// The guest's own.
    pub address: String,
    /// Bits of the network that it is in.
    pub prefix: u8,
    /// Its gateway.
    pub gateway: String,
}
