//! What a guest may reach: public addresses, and what its order allows by name.
//!
//! | destination | reached |
//! |---|---|
//! | no single host; the guest's own network; this host's loopback by its own address | never |
//! | allowed by name | yes |
//! | an address of this host, whichever | no |
//! | in a special-purpose range of the IANA registries, or where clouds keep metadata | no |
//! | IPv6 outside of what is given to the Internet, 2000::/3 | no |
//! | the rest | yes |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aegis_core::egress::Order;
use aegis_core::network::{GATEWAY_V4, GATEWAY_V6, GUEST_V6, PREFIX_V4, PREFIX_V6};

/// The IANA IPv4 Special-Purpose Address Registry, those that are globally reachable too:
/// they lead to services of a network, not to hosts of the Internet. Then multicast,
/// and the address at which Azure serves its machines, which looks like any other.
const SPECIAL_V4: [(Ipv4Addr, u32); 18] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 52, 193, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(192, 175, 48, 0), 24),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
];

/// The IANA IPv6 Special-Purpose Address Registry, as far as it lies in 2000::/3:
/// protocol assignments with Teredo, ORCHIDs and benchmarking in them, documentation,
/// 6to4, AS112.
const SPECIAL_V6: [(Ipv6Addr, u32); 5] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// What is given to the Internet.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Whether a guest may exchange packets with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// The policy keeps it from that.
    Forbidden,
    /// The host has no way out for this kind of address.
    NoRoute,
}

/// Judges an address other than the gateway's, and a port of it where there is one.
pub fn judge(order: &Order, address: IpAddr, port: Option<u16>) -> Verdict {
    let allowed = |address| {
        let mut hosts = order.allowed.iter();
        hosts.any(|host| !host.is_loopback() && host.covers(address, port))
    };
    let is_special = match address {
        IpAddr::V4(v4) => is_special_v4(v4),
        IpAddr::V6(v6) => is_special_v6(v6),
    };
    let refused = order.own.contains(&address) || is_special;
    if is_never_reached(address) || (refused && !allowed(address)) {
        return Verdict::Forbidden;
    }
    let has_way = match address {
        IpAddr::V4(_) => order.ipv4,
        IpAddr::V6(_) => order.ipv6,
    };
    if has_way {
        Verdict::Pass
    } else {
        Verdict::NoRoute
    }
}

/// Whether a port of the gateway leads to this host's loopback.
pub fn leads_to_loopback(order: &Order, gateway: IpAddr, port: Option<u16>) -> bool {
    let loopback = match gateway {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let mut hosts = order.allowed.iter();
    hosts.any(|host| host.is_loopback() && host.covers(loopback, port))
}

/// Whether an address is the gateway's.
pub fn is_gateway(address: IpAddr) -> bool {
    address == GATEWAY_V4 || address == GATEWAY_V6
}

/// What no order can allow: passt and the host would take it for something else than
/// what was asked for.
fn is_never_reached(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4_in(v4, GATEWAY_V4, u32::from(PREFIX_V4))
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_multicast()
                || v6.to_ipv4_mapped().is_some()
                || v6_in(v6, GUEST_V6, u32::from(PREFIX_V6))
        }
    }
}

fn is_special_v4(address: Ipv4Addr) -> bool {
    SPECIAL_V4
        .iter()
        .any(|(network, bits)| v4_in(address, *network, *bits))
}

fn is_special_v6(address: Ipv6Addr) -> bool {
    !v6_in(address, GLOBAL_V6.0, GLOBAL_V6.1)
        || SPECIAL_V6
            .iter()
            .any(|(network, bits)| v6_in(address, *network, *bits))
}

/// Whether the first `bits` of both are the same; 1 to 32 of them.
fn v4_in(address: Ipv4Addr, network: Ipv4Addr, bits: u32) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (32 - bits) == 0
}

/// The same for 1 to 128.
fn v6_in(address: Ipv6Addr, network: Ipv6Addr, bits: u32) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (128 - bits) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(allowed: &[&str]) -> Order {
        Order {
            guest: [2, 0, 0, 0, 0, 1],
            allowed: allowed.iter().map(|text| text.parse().unwrap()).collect(),
            own: vec![
                "93.184.215.1".parse().unwrap(),
                "2606:2800::1".parse().unwrap(),
            ],
            ipv4: true,
            ipv6: true,
        }
    }

    fn verdict(allowed: &[&str], address: &str, port: u16) -> Verdict {
        judge(&order(allowed), address.parse().unwrap(), Some(port))
    }

    /// One of each class that must not be reached, at both ends of its range.
    const FORBIDDEN: [&str; 62] = [
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.0.1",
        "169.254.169.254",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.2",
        "192.0.0.192",
        "192.0.2.1",
        "192.31.196.1",
        "192.52.193.1",
        "192.88.99.1",
        "192.168.0.0",
        "192.168.255.255",
        "192.175.48.1",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "::8.8.8.8",
        "64:ff9b::1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "100:0:0:1::1",
        "2001::1",
        "2001:1ff::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:a00::1",
        "2002:808:808::1",
        "2620:4f:8000::1",
        "3fff::1",
        "3fff:fff::1",
        "4000::1",
        "5f00::1",
        "8000::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        // This host, by the addresses that the Internet knows it by.
        "93.184.215.1",
        "2606:2800::1",
    ];

    #[test]
    fn what_is_not_public_is_not_reached() {
        for address in FORBIDDEN {
            assert_eq!(verdict(&[], address, 80), Verdict::Forbidden, "{address}");
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.215.14",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2606:2800:21f::1",
            "2a00::1",
            "3ffe::1",
        ] {
            assert_eq!(verdict(&[], address, 80), Verdict::Pass, "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_reached_and_nothing_beside_it() {
        let allowed = [
            "10.1.0.0/16",
            "192.168.1.5:5432",
            "fd00::1",
            "169.254.169.254:80",
        ];
        for (address, port, expected) in [
            ("10.1.2.3", 1, Verdict::Pass),
            ("10.2.0.0", 1, Verdict::Forbidden),
            ("192.168.1.5", 5432, Verdict::Pass),
            ("192.168.1.5", 5433, Verdict::Forbidden),
            ("fd00::1", 9, Verdict::Pass),
            ("fd00::2", 9, Verdict::Forbidden),
            ("169.254.169.254", 80, Verdict::Pass),
            ("169.254.169.254", 81, Verdict::Forbidden),
        ] {
            assert_eq!(
                verdict(&allowed, address, port),
                expected,
                "{address}:{port}"
            );
        }
        assert_eq!(
            verdict(&["93.184.215.1:22"], "93.184.215.1", 22),
            Verdict::Pass
        );
    }

    #[test]
    fn everything_allowed_is_still_no_loopback_and_no_broadcast() {
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "192.0.0.2",
            "::1",
            "::",
            "ff02::1",
            "::ffff:127.0.0.1",
            "fd61:6567:6973::9",
        ] {
            let all = ["0.0.0.0/0", "::/0", "127.0.0.1"];
            assert_eq!(verdict(&all, address, 80), Verdict::Forbidden, "{address}");
        }
        assert_eq!(verdict(&["0.0.0.0/0"], "10.0.0.1", 80), Verdict::Pass);
    }

    #[test]
    fn the_loopback_is_reached_at_the_gateway_where_it_is_allowed() {
        let order = order(&["127.0.0.1:8080", "::1"]);
        let leads = |gateway: IpAddr, port| leads_to_loopback(&order, gateway, Some(port));
        assert!(leads(GATEWAY_V4.into(), 8080));
        assert!(!leads(GATEWAY_V4.into(), 8081));
        assert!(leads(GATEWAY_V6.into(), 1));
    }

    #[test]
    fn a_kind_of_address_without_a_way_out_has_no_route() {
        let order = Order {
            ipv6: false,
            ..order(&["10.0.0.0/8"])
        };
        let of = |address: &str| judge(&order, address.parse().unwrap(), Some(1));
        assert_eq!(of("2a00::1"), Verdict::NoRoute);
        assert_eq!(of("fd00::1"), Verdict::Forbidden);
        assert_eq!(of("1.1.1.1"), Verdict::Pass);
    }

    proptest! {
        /// The standard library's own notion of these, where it has one that is stable.
        #[test]
        fn nothing_private_passes(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let inner = address.is_private() || address.is_link_local() || address.is_loopback()
                || address.is_multicast() || address.is_documentation() || address.is_unspecified();
            if inner {
                prop_assert_eq!(judge(&order(&[]), address.into(), None), Verdict::Forbidden);
            }
        }

        #[test]
        fn nothing_local_passes_in_ipv6(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            if judge(&order(&[]), address.into(), None) == Verdict::Pass {
                prop_assert_eq!(bits >> 125, 1);
                prop_assert!(address.to_ipv4().is_none() && address.segments()[0] != 0x2002);
            }
        }
    }
}
