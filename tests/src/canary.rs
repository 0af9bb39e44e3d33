//! A value that must be nowhere but where it is used, and the search for it.

use anyhow::Result;

use crate::machine::User;
use crate::seat::Seat;

/// Every place of the machine where a value is to be found: files, snapshots among them,
/// the journal, units and command lines. Left out are the credentials of units, the disks
/// of guests, and files `environment`, which daemons of tests write.
///
/// # Errors
/// As [`Machine::run`](crate::machine::Machine::run).
pub fn found(seat: Seat<'_>, value: &str) -> Result<String> {
    // A pattern that does not find itself.
    let (first, rest) = value.split_at(1);
    let pattern = format!("'[{first}]{rest}'");
    let line = format!(
        "cd /; grep -rlsa --exclude=environment --exclude=disk.img --exclude-dir=credentials \
             {pattern} /home /var/lib/aegis /var/lib/systemd/coredump /etc/aegis /run /tmp /var/log \
             2>/dev/null
         journalctl --no-pager -o export | grep -a {pattern}
         grep -lsa {pattern} /proc/[0-9]*/cmdline 2>/dev/null
         systemctl show '*' --no-pager 2>/dev/null | grep {pattern}
         true"
    );
    let system = seat.machine().run(User::Root, &line)?.text();
    let shown = format!("show '*' --no-pager | grep {pattern}; true");
    let user = seat.systemctl(&shown)?.text();
    Ok(format!("{system}{user}"))
}
