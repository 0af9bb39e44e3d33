//! A value that must be nowhere but where it is used, and the search for it.

use anyhow::Result;

use crate::machine::User;
use crate::seat::Seat;

/// Where a value was found, a line each: `file PATH`, `cmdline PID`, `environ PID UNIT`,
/// `journal`, `units` of a service manager or `objects` of aegisd.
#[derive(Debug, Default)]
pub struct Places {
    /// Where `docs/SECRETS.md` says that it is.
    pub documented: Vec<String>,
    /// Where it must not be.
    pub elsewhere: Vec<String>,
}

/// Searches every place of the machine: files, snapshots among them, the journal, units,
/// command lines and environments. The disks of guests are left out, which have what the
/// guest writes, and files `environment`, which daemons of tests write.
///
/// # Errors
/// As [`Machine::run`](crate::machine::Machine::run).
pub fn search(seat: Seat<'_>, value: &str) -> Result<Places> {
    // A pattern that does not find itself.
    let (first, rest) = value.split_at(1);
    let pattern = format!("'[{first}]{rest}'");
    let line = format!(
        "cd /; grep -rlsa -D skip --exclude=environment --exclude=disk.img --exclude-dir=proc \
             {pattern} /home /root /var /etc /run /tmp /opt /srv /dev/shm 2>/dev/null | sed 's/^/file /'
         journalctl --no-pager -o export | grep -qa {pattern} && echo journal
         for pid in /proc/[0-9]*; do
             grep -qsa {pattern} $pid/cmdline && echo cmdline ${{pid#/proc/}}
             grep -qsa {pattern} $pid/environ \
                 && echo environ ${{pid#/proc/}} $(sed -n 's/^0::.*[/]//p' $pid/cgroup)
         done
         true"
    );
    let mut found = seat.machine().run(User::Root, &line)?.text();
    let scope = seat.scope();
    let line = format!(
        "{{ systemctl {scope} show '*' --all; systemctl {scope} cat '*'; }} 2>/dev/null \
             | grep -qa {pattern} && echo units
         busctl {scope} call org.aegisvm.Aegis1 /org/aegisvm/Aegis1 \
             org.freedesktop.DBus.ObjectManager GetManagedObjects | grep -qa {pattern} && echo objects
         true"
    );
    found.push('\n');
    found.push_str(&seat.run(&line)?.text());
    let mut places = Places::default();
    for place in found.lines().filter(|line| !line.is_empty()) {
        match is_documented(place) {
            true => places.documented.push(place.to_owned()),
            false => places.elsewhere.push(place.to_owned()),
        }
    }
    Ok(places)
}

/// Where a value is that must not be there, a line for each place.
///
/// # Errors
/// As [`search`].
pub fn found(seat: Seat<'_>, value: &str) -> Result<String> {
    Ok(search(seat, value)?.elsewhere.join("\n"))
}

/// The credential of a unit that runs, where the manager keeps it, and the environment of
/// a daemon.
fn is_documented(place: &str) -> bool {
    let kept = ["/run/credentials/", "/run/user/1000/credentials/"];
    match place.split_once(' ') {
        Some(("file", path)) => kept.iter().any(|folder| path.starts_with(folder)),
        Some(("environ", process)) => process.contains(" aegis-kit-"),
        _ => false,
    }
}
