//! The names of our units. People read them in `systemctl`, so they carry the
//! handle as it is; only slices need escaping, since `-` nests them
//! (systemd.slice(5)).

use std::net::SocketAddr;

use crate::handle::Handle;
use crate::port::PortMapping;

/// The slice above all instances.
pub const ROOT_SLICE: &str = "aegis.slice";
/// aegisd's own unit.
pub const AEGISD: &str = "aegisd.service";
/// The units of aegisd itself, which an installation brings as files.
pub const CONTROL_PLANE: [&str; 3] = [AEGISD, "aegisd.socket", "aegisd-credentials.socket"];
/// Matches every unit of an instance.
pub const PATTERN: &str = "aegis-*";

/// What a unit of ours is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnitKind {
    /// The instance's slice. Carries nothing but its members.
    Slice,
    /// The socket unit with the control socket.
    Socket,
    /// aegis-vmm.
    Vm,
    /// An instance daemon.
    Daemon(String),
    /// The socket unit of the daemons' API socket.
    ApiSocket,
    /// aegis-shim, which brings the API socket to aegisd.
    Door,
    /// The socket unit of an exposed port.
    PortSocket(PortMapping),
    /// aegis-shim, which brings the port's socket to the VM's owner.
    PortDoor(PortMapping),
}

/// `aegis-ESCAPED.slice`, below `aegis.slice`.
pub fn slice(handle: &Handle) -> String {
    let mut name = String::from("aegis-");
    for c in handle.as_str().chars() {
        // systemd.unit(5), "String escaping for inclusion in unit names".
        if c == '-' {
            name.push_str("\\x2d");
        } else {
            name.push(c);
        }
    }
    name.push_str(".slice");
    name
}

/// `aegis-vm-HANDLE.socket`
pub fn socket(handle: &Handle) -> String {
    format!("aegis-vm-{handle}.socket")
}

/// `aegis-vm-HANDLE.service`
pub fn vm(handle: &Handle) -> String {
    format!("aegis-vm-{handle}.service")
}

/// `aegis-kit-HANDLE:DAEMON.service`
pub fn daemon(handle: &Handle, daemon: &str) -> String {
    format!("aegis-kit-{handle}:{daemon}.service")
}

/// `aegis-kit-HANDLE:DAEMON`, the word by which the journal knows each line of a daemon
/// and of its children (systemd.exec(5), `SyslogIdentifier=`).
pub fn daemon_identifier(unit: &str) -> &str {
    unit.strip_suffix(".service").unwrap_or(unit)
}

/// `aegis-api-HANDLE.socket`
pub fn api_socket(handle: &Handle) -> String {
    format!("aegis-api-{handle}.socket")
}

/// `aegis-api-HANDLE.service`
pub fn door(handle: &Handle) -> String {
    format!("aegis-api-{handle}.service")
}

/// `aegis-port-HANDLE:ADDRESS:HOST:GUEST.socket`. All of a port is in the name, so that
/// a unit never is of another port than its name says.
pub fn port_socket(handle: &Handle, port: &PortMapping) -> String {
    format!("{}.socket", port_name(handle, port))
}

/// `aegis-port-HANDLE:ADDRESS:HOST:GUEST.service`
pub fn port_door(handle: &Handle, port: &PortMapping) -> String {
    format!("{}.service", port_name(handle, port))
}

/// Without the brackets of IPv6, which no unit name may hold.
fn port_name(handle: &Handle, port: &PortMapping) -> String {
    let (address, number) = (port.host.ip(), port.host.port());
    format!("aegis-port-{handle}:{address}:{number}:{}", port.guest)
}

/// Reads `ADDRESS:HOST:GUEST`.
fn parse_port(text: &str) -> Option<PortMapping> {
    let (host, guest) = text.rsplit_once(':')?;
    let (address, number) = host.rsplit_once(':')?;
    Some(PortMapping {
        host: SocketAddr::new(address.parse().ok()?, number.parse().ok()?),
        guest: guest.parse().ok()?,
    })
}

/// `aegis-pull-NUMBER`, without the suffix: a program that brings an image here.
pub fn pull(number: u64) -> String {
    format!("aegis-pull-{number:012x}")
}

/// `aegis-import-NUMBER`, without the suffix: a program that makes an image here.
pub fn import(number: u64) -> String {
    format!("aegis-import-{number:012x}")
}

/// What the names of all units of one instance match, in the patterns of glob(7) that
/// [`PATTERN`] is in too. No handle has a character with a meaning there.
pub fn patterns(handle: &Handle) -> [String; 5] {
    [
        slice(handle),
        format!("aegis-vm-{handle}.*"),
        format!("aegis-api-{handle}.*"),
        format!("aegis-kit-{handle}:*"),
        format!("aegis-port-{handle}:*"),
    ]
}

/// The instance and kind a unit name stands for; `None` if it is not ours.
pub fn parse(unit: &str) -> Option<(Handle, UnitKind)> {
    let kind_of = |text: &str, kind| text.parse().ok().map(|handle| (handle, kind));
    if let Some(rest) = unit.strip_prefix("aegis-vm-") {
        if let Some(text) = rest.strip_suffix(".socket") {
            return kind_of(text, UnitKind::Socket);
        }
        return kind_of(rest.strip_suffix(".service")?, UnitKind::Vm);
    }
    if let Some(rest) = unit.strip_prefix("aegis-api-") {
        if let Some(text) = rest.strip_suffix(".socket") {
            return kind_of(text, UnitKind::ApiSocket);
        }
        return kind_of(rest.strip_suffix(".service")?, UnitKind::Door);
    }
    if let Some(rest) = unit.strip_prefix("aegis-port-") {
        let (name, suffix) = rest.rsplit_once('.')?;
        let (handle, port) = name.split_once(':')?;
        let port = parse_port(port)?;
        return match suffix {
            "socket" => kind_of(handle, UnitKind::PortSocket(port)),
            "service" => kind_of(handle, UnitKind::PortDoor(port)),
            _ => None,
        };
    }
    if let Some(rest) = unit.strip_prefix("aegis-kit-") {
        let (handle, daemon) = rest.strip_suffix(".service")?.split_once(':')?;
        return kind_of(handle, UnitKind::Daemon(daemon.to_owned()));
    }
    let escaped = unit.strip_prefix("aegis-")?.strip_suffix(".slice")?;
    kind_of(&escaped.replace("\\x2d", "-"), UnitKind::Slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patterns_of_an_instance_match_all_its_units_and_no_other() {
        let handle: Handle = "a-b".parse().unwrap();
        let matched = |unit: &str| {
            patterns(&handle).iter().any(|pattern| {
                let fixed = pattern.trim_end_matches('*');
                unit == pattern || (fixed != pattern && unit.starts_with(fixed))
            })
        };
        let all = [slice, socket, vm, api_socket, door].map(|name| name(&handle));
        assert!(all.iter().all(|unit| matched(unit)));
        assert!(matched(&daemon(&handle, "x")));
        let port: PortMapping = "1:2".parse().unwrap();
        assert!(matched(&port_socket(&handle, &port)) && matched(&port_door(&handle, &port)));
        let other: Handle = "a-b-c".parse().unwrap();
        let all = [slice, socket, vm, api_socket, door].map(|name| name(&other));
        assert!(!all.iter().any(|unit| matched(unit)));
        assert!(!matched(&daemon(&other, "x")) && !matched(&port_socket(&other, &port)));
    }

    #[test]
    fn every_name_is_read_back() {
        for text in ["web", "my-agent", "a.b_c-d", "vm-x", "kit-y"] {
            let handle: Handle = text.parse().unwrap();
            assert_eq!(
                parse(&slice(&handle)),
                Some((handle.clone(), UnitKind::Slice))
            );
            assert_eq!(
                parse(&socket(&handle)),
                Some((handle.clone(), UnitKind::Socket))
            );
            assert_eq!(parse(&vm(&handle)), Some((handle.clone(), UnitKind::Vm)));
            assert_eq!(
                parse(&api_socket(&handle)),
                Some((handle.clone(), UnitKind::ApiSocket))
            );
            assert_eq!(
                parse(&door(&handle)),
                Some((handle.clone(), UnitKind::Door))
            );
            for port in ["8080:80", "0.0.0.0:1:65535", "[::1]:8080:80", "[::]:1:2"] {
                let port: PortMapping = port.parse().unwrap();
                let (socket, door) = (port_socket(&handle, &port), port_door(&handle, &port));
                let kinds = [UnitKind::PortSocket(port), UnitKind::PortDoor(port)];
                let kinds = kinds.map(|kind| Some((handle.clone(), kind)));
                assert_eq!([parse(&socket), parse(&door)], kinds);
            }
            let kind = UnitKind::Daemon("gateway".into());
            assert_eq!(parse(&daemon(&handle, "gateway")), Some((handle, kind)));
        }
    }

    #[test]
    fn slices_do_not_nest_by_the_dashes_of_a_handle() {
        let handle: Handle = "my-agent".parse().unwrap();
        assert_eq!(slice(&handle), "aegis-my\\x2dagent.slice");
    }

    #[test]
    fn foreign_units_are_not_ours() {
        for unit in [
            "aegisd.service",
            "aegis.slice",
            "aegis-vm-.service",
            "aegis-kit-a.service",
            "aegis-port-a:80.socket",
            "x",
        ] {
            assert_eq!(parse(unit), None, "{unit}");
        }
    }
}
