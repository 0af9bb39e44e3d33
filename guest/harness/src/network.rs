//! The network of the guest: its loopback, the device that the host gave it, and the
//! connections over that.
//!
//! Everything about it is in the boot order, so nothing is asked for on the network
//! itself, and nothing that arrives there changes it.

mod netlink;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use aegis_link::message::{Network, NetworkAddress};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockProtocol;

use netlink::{Netlink, Request};

const DEVICES: &str = "/sys/class/net";

/// Why the guest's network is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("Cannot open a socket to the kernel's network")]
    Socket(#[source] Errno),
    #[error("There is no network device with the address {0}")]
    NoDevice(String),
    #[error("Cannot read {text:?} as an address")]
    Address {
        text: String,
        #[source]
        source: std::net::AddrParseError,
    },
    #[error("Cannot {operation}")]
    Kernel {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
}

fn kernel(operation: &'static str) -> impl Fn(io::Error) -> NetworkError {
    move |source| NetworkError::Kernel { operation, source }
}

/// Brings `lo` up; the kernel then gives it its addresses by itself.
pub(crate) fn loopback_up() -> Result<(), NetworkError> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkRoute).map_err(NetworkError::Socket)?;
    // The first device of every network (Linux, LOOPBACK_IFINDEX).
    let request = link_up(1, None);
    netlink
        .ask(&request)
        .map_err(kernel("bring up the loopback interface"))
}

/// Gives the device its addresses and the routes over it.
pub(crate) fn configure(network: &Network) -> Result<(), NetworkError> {
    let name = device(&network.hardware)?;
    let index = if_nametoindex(name.as_str())
        .map_err(|errno| kernel("find the network device")(errno.into()))?;
    // Routers are not believed, and there is nobody who could have the same address.
    for (setting, value) in [
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_dad", "0"),
        ("addr_gen_mode", "1"),
    ] {
        // A kernel without IPv6 has none of them.
        fs::write(format!("/proc/sys/net/ipv6/conf/{name}/{setting}"), value).ok();
    }
    let mut netlink = Netlink::open(SockProtocol::NetlinkRoute).map_err(NetworkError::Socket)?;
    let mut ask = |operation, request: Request| netlink.ask(&request).map_err(kernel(operation));
    ask(
        "bring up the network device",
        link_up(index, Some(network.mtu)),
    )?;
    for part in [&network.ipv4, &network.ipv6] {
        let (own, gateway) = (address(&part.address)?, address(&part.gateway)?);
        let done = ask(
            "give the network device its address",
            address_of(index, own, part),
        )
        .and_then(|()| ask("make the default route", default_route(index, gateway)));
        match done {
            // A kernel without IPv6 does without.
            Err(_) if own.is_ipv6() && !Path::new("/proc/net/if_inet6").exists() => {}
            done => done?,
        }
    }
    Ok(())
}

/// The name of the device with this hardware address.
fn device(hardware: &str) -> Result<String, NetworkError> {
    let devices = fs::read_dir(DEVICES).map_err(kernel("list the network devices"))?;
    for found in devices.flatten() {
        let address = fs::read_to_string(found.path().join("address"));
        if address.is_ok_and(|text| text.trim() == hardware)
            && let Ok(name) = found.file_name().into_string()
        {
            return Ok(name);
        }
    }
    Err(NetworkError::NoDevice(hardware.to_owned()))
}

fn address(text: &str) -> Result<IpAddr, NetworkError> {
    text.parse().map_err(|source| NetworkError::Address {
        text: text.to_owned(),
        source,
    })
}

/// The address family of a message to the kernel.
fn family(address: IpAddr) -> u8 {
    let family = match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    // Both are small numbers.
    u8::try_from(family).unwrap_or_default()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// RTM_NEWLINK with an ifinfomsg (rtnetlink(7)).
fn link_up(index: u32, mtu: Option<u16>) -> Request {
    const IFLA_MTU: u16 = 4;
    let up = libc::IFF_UP.unsigned_abs().to_ne_bytes();
    let mut request = Request::new(libc::RTM_NEWLINK, 0);
    request.bytes(&[0; 4]);
    request.bytes(&index.to_ne_bytes());
    // The flags and which of them are meant.
    request.bytes(&up);
    request.bytes(&up);
    if let Some(mtu) = mtu {
        request.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
    }
    request
}

/// RTM_NEWADDR with an ifaddrmsg.
fn address_of(index: u32, own: IpAddr, part: &NetworkAddress) -> Request {
    // Nobody is asked whether it is free (linux/if_addr.h, IFA_F_NODAD).
    const WITHOUT_PROBE: u8 = 2;
    let mut request = Request::new(libc::RTM_NEWADDR, netlink::MAKE);
    request.bytes(&[family(own), part.prefix, WITHOUT_PROBE, 0]);
    request.bytes(&index.to_ne_bytes());
    for attribute in [libc::IFA_LOCAL, libc::IFA_ADDRESS] {
        request.attribute(attribute, &octets(own));
    }
    request
}

/// RTM_NEWROUTE with an rtmsg: of everything, in the main table, by the administrator.
fn default_route(index: u32, gateway: IpAddr) -> Request {
    const BY_ADMINISTRATOR: u8 = 4;
    let mut request = Request::new(libc::RTM_NEWROUTE, netlink::MAKE);
    let table = libc::RT_TABLE_MAIN;
    let head = [family(gateway), 0, 0, 0, table, BY_ADMINISTRATOR];
    request.bytes(&head);
    request.bytes(&[libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST]);
    request.bytes(&[0; 4]);
    request.attribute(libc::RTA_OIF, &index.to_ne_bytes());
    request.attribute(libc::RTA_GATEWAY, &octets(gateway));
    request
}

/// Breaks off the guest's TCP connections to the outside: what carried them there is
/// gone, so they would wait for ever. Those within the guest go on, and so does what
/// listens. How many there were.
pub(crate) fn reset_flows() -> Result<u32, NetworkError> {
    let failed = kernel("break off connections");
    let mut netlink = Netlink::open(SockProtocol::NetlinkSockDiag).map_err(NetworkError::Socket)?;
    let mut broken = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or_default();
        let mut dump = Request::new(SOCK_DIAG_BY_FAMILY, netlink::DUMP);
        dump.bytes(&inquiry(family, CONNECTED, &[0; SOCKET_ID]));
        for found in netlink.dump(&dump).map_err(&failed)? {
            // inet_diag_msg: four bytes, then which socket it is.
            let Some(id) = found.get(4..4 + SOCKET_ID) else {
                continue;
            };
            if !leads_outside(family, id) {
                continue;
            }
            let mut destroy = Request::new(SOCK_DESTROY, 0);
            destroy.bytes(&inquiry(family, CONNECTED, id));
            match netlink.ask(&destroy) {
                Ok(()) => broken += 1,
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(broken)
}

/// linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// Bytes of an inet_diag_sockid: two ports, two addresses of sixteen bytes, the device and
/// a cookie.
const SOCKET_ID: usize = 48;
/// The states of TCP (net/tcp_states.h) but TIME_WAIT, CLOSE, LISTEN and NEW_SYN_RECV,
/// which are no connections of a program's.
const CONNECTED: u32 = 0x0fff & !(1 << 6 | 1 << 7 | 1 << 10);

/// An inet_diag_req_v2 about TCP.
fn inquiry(family: u8, states: u32, id: &[u8]) -> Vec<u8> {
    // IPPROTO_TCP of ip(7).
    const TCP: u8 = 6;
    let mut bytes = vec![family, TCP, 0, 0];
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// Whether a socket is connected to another host than this one.
fn leads_outside(family: u8, id: &[u8]) -> bool {
    let address = |from: usize| {
        let bytes: [u8; 16] = id.get(from..from + 16)?.try_into().ok()?;
        Some(if i32::from(family) == libc::AF_INET {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        } else {
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        })
    };
    match (address(4), address(20)) {
        (Some(own), Some(peer)) => !peer.is_loopback() && own != peer,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(own: &str, peer: &str) -> Vec<u8> {
        let mut id = vec![0; SOCKET_ID];
        for (from, address) in [(4, own), (20, peer)] {
            let octets = octets(address.parse().unwrap());
            id[from..from + octets.len()].copy_from_slice(&octets);
        }
        id
    }

    #[test]
    fn connections_within_the_guest_are_told_from_others() {
        for (own, peer, outside) in [
            ("192.0.0.2", "1.1.1.1", true),
            ("127.0.0.1", "127.0.0.1", false),
            ("192.0.0.2", "192.0.0.2", false),
            ("fd00::2", "2a00::1", true),
            ("::1", "::1", false),
            ("::ffff:192.0.0.2", "::ffff:1.1.1.1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", false),
        ] {
            let family = family(own.parse().unwrap());
            assert_eq!(leads_outside(family, &id(own, peer)), outside, "{peer}");
        }
        assert!(!leads_outside(2, &[0; 3]));
    }
}
