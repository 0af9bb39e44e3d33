//! The TCP ports of this host: which number to choose for one, and who has one.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::Path;

/// Numbers to choose from: above those of most services that have one of their own.
const CHOICE: RangeInclusive<u16> = 20_000..=u16::MAX;
/// Those there are besides, where the kernel keeps all of these for itself.
const LAST_CHOICE: RangeInclusive<u16> = 1024..=19_999;
/// What the kernel gives to connections (ip(7)).
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The same where that cannot be read: the kernel's own default.
const USUAL_EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;
/// `TCP_LISTEN` in /proc/net/tcp (proc_net(5)).
const LISTENING: &str = "0A";

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the process {} ({})", self.pid, self.name)
    }
}

/// A number of 127.0.0.1 that is none of `taken`, that nobody listens on, and that the
/// kernel gives to no connection: it is kept, and has to be free again and again.
pub(crate) fn choose(taken: &BTreeSet<u16>) -> Option<u16> {
    let ephemeral = fs::read_to_string(EPHEMERAL).ok();
    let ephemeral = ephemeral.as_deref().and_then(parse_range);
    // Any two who choose, of other users too, seldom choose the same.
    let start = usize::try_from(RandomState::new().hash_one(())).unwrap_or_default();
    let is_free = |number| TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
    let choice = candidates(taken, &ephemeral.unwrap_or(USUAL_EPHEMERAL), start);
    choice.into_iter().find(|number| is_free(*number))
}

/// The numbers to try, beginning at one of them.
fn candidates(taken: &BTreeSet<u16>, ephemeral: &RangeInclusive<u16>, start: usize) -> Vec<u16> {
    let of = |numbers: RangeInclusive<u16>| -> Vec<u16> {
        let ours = |number: &u16| !ephemeral.contains(number) && !taken.contains(number);
        let mut numbers: Vec<u16> = numbers.filter(ours).collect();
        let start = start % numbers.len().max(1);
        numbers.rotate_left(start);
        numbers
    };
    let mut all = of(CHOICE);
    all.extend(of(LAST_CHOICE));
    all
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

/// Whether two listeners cannot be there at a time.
pub(crate) fn conflict(a: SocketAddr, b: SocketAddr) -> bool {
    let any = |address: SocketAddr| address.ip().is_unspecified();
    a.port() == b.port() && (a.ip() == b.ip() || any(a) || any(b))
}

/// Whether somebody listens at this very address.
pub(crate) fn is_listening(address: SocketAddr) -> bool {
    let here = |table: &String| !listening(table, |local| local == address).is_empty();
    tables().any(|table| here(&table))
}

/// The process that listens where nobody else can then, if we may know.
pub(crate) fn holder(address: SocketAddr) -> Option<Holder> {
    let inodes: BTreeSet<String> = tables()
        .flat_map(|table| listening(&table, |local| conflict(local, address)))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.into_iter().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        has_one(&process.path(), &inodes).then(|| Holder {
            pid,
            name: fs::read_to_string(process.path().join("comm"))
                .map(|name| name.trim().to_owned())
                .unwrap_or_default(),
        })
    })
}

fn tables() -> impl Iterator<Item = String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter();
    tables.filter_map(|table| fs::read_to_string(table).ok())
}

/// The inodes of the sockets of a table that listen at addresses that are meant.
fn listening(table: &str, is_meant: impl Fn(SocketAddr) -> bool) -> Vec<String> {
    let rows = table.lines().skip(1);
    rows.filter_map(|row| {
        let fields: Vec<&str> = row.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let is_one = *state == LISTENING && is_meant(parse_address(local)?);
        is_one.then(|| (*inode).to_owned())
    })
    .collect()
}

/// Reads `0100007F:1F90`: words of the host's byte order, then the port.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    let address: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some(SocketAddr::new(
        address,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

/// Whether a process has one of these sockets open. One of another user's does not say.
fn has_one(process: &Path, inodes: &BTreeSet<String>) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
    descriptors.flatten().any(|descriptor| {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[");
        let inode = inode.and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.contains(inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_chosen_beside_what_is_taken_and_what_is_the_kernels() {
        let taken = (20_000..20_100).collect();
        for start in [0, 1, 12_667, 12_668, usize::MAX] {
            let all = candidates(&taken, &(20_200..=60_999), start);
            assert!(all.iter().all(|number| !taken.contains(number)));
            assert!(all.iter().all(|number| !(20_200..=60_999).contains(number)));
            assert!(CHOICE.contains(&all[0]), "{start}");
            assert_eq!(all.len(), 64_512 - 100 - 40_800, "each once");
        }
        let narrow = candidates(&taken, &(1025..=u16::MAX), 7);
        assert_eq!(narrow, [1024]);
        assert_eq!(parse_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(parse_range("x"), None);
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_ne!(choose(&taken), Some(held.local_addr().unwrap().port()));
    }

    #[test]
    fn who_has_a_port_is_found_by_any_address_it_conflicts_with() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        for asked in [address, any] {
            assert_eq!(holder(asked).unwrap().pid, std::process::id());
        }
        assert!(is_listening(address) && !is_listening(any));
        let other = SocketAddr::new([127, 0, 0, 2].into(), address.port());
        assert_eq!(holder(other), None);
        drop(held);
        assert_eq!(holder(address), None);
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 77 1\n\
             1: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 78 1\n\
             2: 00000000000000000000000001000000:1F92 00000000000000000000000001000000:1F91 01 00000000:00000000 00:00000000 00000000  1000        0 79 1\n\
             nonsense\n";
        let inodes = |address: &str| {
            let address = address.parse().unwrap();
            listening(table, |local| conflict(local, address))
        };
        assert_eq!(inodes("127.0.0.1:8080"), ["77"]);
        if cfg!(target_endian = "little") {
            assert_eq!(inodes("[::1]:8081"), ["78"]);
        }
        assert!(inodes("127.0.0.1:8081").is_empty());
        assert!(inodes("[::1]:8082").is_empty(), "it does not listen");
    }
}
