//! Who is at the other end of a local socket, as the kernel tells it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio::net::UnixStream;

/// The programs that start a unit's commands: the manager itself until systemd 254, from
/// then on an executor of its own.
const STARTERS: [&str; 2] = ["systemd-executor", "systemd"];

/// The name of the unit that the peer's process belongs to; empty where it is in none.
///
/// # Errors
/// The process is gone, or hidden.
pub(crate) fn unit(stream: &UnixStream) -> io::Result<String> {
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid(stream)?))?;
    Ok(unit_of(&groups).unwrap_or_default().to_owned())
}

/// Whether the peer runs a program of the service manager that no user can change.
///
/// # Errors
/// The process is gone, or hidden.
pub(crate) fn is_service_manager(stream: &UnixStream) -> io::Result<bool> {
    let link = format!("/proc/{}/exe", pid(stream)?);
    let program = std::fs::read_link(&link)?;
    // Through the link, which leads to what runs even where the path is another's by now.
    let owner = std::fs::metadata(&link)?.uid();
    Ok(owner == 0 && is_starter(&program))
}

fn pid(stream: &UnixStream) -> io::Result<i32> {
    let pid = stream.peer_cred()?.pid();
    pid.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn is_starter(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str());
    // An upgrade may have removed the one that the manager has open.
    let name = name.map(|name| name.trim_end_matches(" (deleted)"));
    name.is_some_and(|name| STARTERS.contains(&name))
}

/// The unit in the text of `/proc/PID/cgroup` (cgroups(7)): the last part of the
/// path in the hierarchy that systemd keeps, which is the unified one or, on old
/// systems, one of its own.
fn unit_of(groups: &str) -> Option<&str> {
    let path_in = |hierarchy: &str| {
        let line = groups.lines().find(|line| line.contains(hierarchy))?;
        let unit = line.rsplit('/').next()?;
        (!unit.is_empty()).then_some(unit)
    };
    path_in("0::/").or_else(|| path_in(":name=systemd:/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_last_part_of_the_control_group() {
        let user = "0::/user.slice/user-1000.slice/user@1000.service/aegis.slice/\
                    aegis-web.slice/aegis-api-web.service\n";
        assert_eq!(unit_of(user), Some("aegis-api-web.service"));
        let old = "12:pids:/x\n1:name=systemd:/aegis.slice/aegis-api-web.service\n";
        assert_eq!(unit_of(old), Some("aegis-api-web.service"));
        let both = format!("9:name=systemd:/\n{user}");
        assert_eq!(unit_of(&both), Some("aegis-api-web.service"));
        assert_eq!(unit_of("0::/\n"), None);
        assert_eq!(unit_of(""), None);
    }

    #[test]
    fn the_manager_s_programs_are_known_by_name() {
        for program in [
            "/usr/lib/systemd/systemd-executor",
            "/usr/lib/systemd/systemd-executor (deleted)",
            "/lib/systemd/systemd",
        ] {
            assert!(is_starter(Path::new(program)), "{program}");
        }
        for program in ["/usr/bin/python3", "/usr/bin/systemd-run", "/"] {
            assert!(!is_starter(Path::new(program)), "{program}");
        }
    }
}
