//! The unit that a process belongs to, as the kernel tells it.

use std::io;

/// The name of the unit that a process belongs to; empty where it is in none.
///
/// # Errors
/// The process is gone, or hidden.
pub(super) fn of_process(pid: u32) -> io::Result<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(unit_of(&groups).unwrap_or_default().to_owned())
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
}
