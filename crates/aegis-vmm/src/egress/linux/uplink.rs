//! The host's network as far as a guest's depends on it: the way out, and the addresses
//! that are the host's own. The kernel tells when either changes (rtnetlink(7)).

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;

use super::watched::watched;

/// Addresses and routes of both kinds (linux/rtnetlink.h, `RTMGRP_*`).
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// One change of the network is several of these; after this they are taken for one.
pub(super) const SETTLING: Duration = Duration::from_millis(300);

/// RTF_UP and RTF_REJECT (linux/route.h).
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// By which device packets leave the host; `None` where there is no way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uplink {
    pub(super) ipv4: Option<String>,
    pub(super) ipv6: Option<String>,
}

impl Uplink {
    /// How it is now. What cannot be read is no way out.
    pub(super) fn look() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            ipv4: default_v4(&read("/proc/net/route")),
            ipv6: default_v6(&read("/proc/net/ipv6_route")),
        }
    }

    pub(super) fn is_none(&self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }

    /// Whether what was started with this one does not serve the later one: a way has
    /// come, or is another one. One that is gone may come back.
    pub(super) fn is_outdone_by(&self, later: &Self) -> bool {
        let differs =
            |before: &Option<String>, after: &Option<String>| after.is_some() && before != after;
        differs(&self.ipv4, &later.ipv4) || differs(&self.ipv6, &later.ipv6)
    }
}

/// The device of the first default route in /proc/net/route.
fn default_v4(text: &str) -> Option<String> {
    text.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let device = fields.next()?;
        let destination = fields.next()?;
        let flags = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
        let mask = fields.nth(3)?;
        let is_default = destination == "00000000" && mask == "00000000";
        (is_default && leads_out(device, flags)).then(|| device.to_owned())
    })
}

/// The same in /proc/net/ipv6_route.
fn default_v6(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, prefix, _, _, _, _, _, _, flags, device] = fields[..] else {
            return None;
        };
        let is_default = prefix == "00" && destination.bytes().all(|digit| digit == b'0');
        let flags = u32::from_str_radix(flags, 16).ok()?;
        (is_default && leads_out(device, flags)).then(|| device.to_owned())
    })
}

fn leads_out(device: &str, flags: u32) -> bool {
    device != "lo" && flags & UP != 0 && flags & REJECT == 0
}

/// Every address of the host.
pub(super) fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Follows the changes.
#[derive(Debug)]
pub(super) struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    pub(super) fn follow() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            flags,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self(watched(socket)?))
    }

    /// Resolves when something changed. Loses nothing when it is dropped.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut guard = self.0.readable().await?;
        // What changed is looked up, not read here.
        let mut message = [0; 4096];
        loop {
            match recv(self.0.as_raw_fd(), &mut message, MsgFlags::empty()) {
                // More changed than the kernel kept.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    guard.clear_ready();
                    return Ok(());
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_the_first_default_route_that_leads_somewhere() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                    eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(default_v4(text), Some("eth0".to_owned()));
        assert_eq!(
            default_v4("Iface\n*\t00000000\t00000000\t0201\t0\t0\t0\t00000000\n"),
            None
        );
        let zero = "0".repeat(32);
        let line = |flags: &str, device: &str| {
            format!("{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 {flags} {device}\n")
        };
        let text = line("00200200", "lo") + &line("00000003", "wlan0");
        assert_eq!(default_v6(&text), Some("wlan0".to_owned()));
        assert_eq!(default_v6(&line("00200200", "lo")), None);
    }

    #[test]
    fn a_way_that_is_lost_may_come_back_and_another_one_counts() {
        let uplink = |ipv4: Option<&str>, ipv6: Option<&str>| Uplink {
            ipv4: ipv4.map(str::to_owned),
            ipv6: ipv6.map(str::to_owned),
        };
        let both = uplink(Some("eth0"), Some("eth0"));
        assert!(!both.is_outdone_by(&both));
        assert!(!both.is_outdone_by(&uplink(None, None)));
        assert!(!both.is_outdone_by(&uplink(Some("eth0"), None)));
        assert!(both.is_outdone_by(&uplink(Some("wlan0"), None)));
        assert!(uplink(Some("eth0"), None).is_outdone_by(&both));
    }

    #[test]
    fn the_loopback_is_the_hosts_own() {
        let own = own_addresses().unwrap();
        assert!(own.contains(&"127.0.0.1".parse().unwrap()), "{own:?}");
    }
}
