//! Unix sockets: abstract names, and whether one listens.

use std::os::fd::AsFd;

use rustix::net::SocketAddrUnix;

/// The abstract name of an address (unix(7)), which only Linux has.
#[cfg(target_os = "linux")]
pub fn abstract_name(address: &SocketAddrUnix) -> Option<&[u8]> {
    address.abstract_name()
}

/// The abstract name of an address, which only Linux has.
#[cfg(not(target_os = "linux"))]
pub fn abstract_name(_address: &SocketAddrUnix) -> Option<&[u8]> {
    None
}

/// Whether a socket listens.
#[cfg(target_os = "linux")]
pub fn listens(socket: impl AsFd) -> bool {
    rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false)
}

/// Whether a socket listens. macOS does not tell (it has `SO_ACCEPTCONN` in name only):
/// who accepts on one that does not learns of it then.
#[cfg(not(target_os = "linux"))]
pub fn listens(_socket: impl AsFd) -> bool {
    true
}
