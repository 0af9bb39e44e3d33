//! Everything in a machine that a run could leave behind, to be compared before
//! and after it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use crate::instance::DEADLINE;
use crate::machine::User;
use crate::seat::Seat;
use crate::wait::wait_until;

/// What is listed, each by a shell line that root runs and that prints one
/// thing a line. The journal's files are left out: it alone may grow. Processes
/// in `/enter` are the test's own, and systemd keeps its folders of transient units
/// and of credentials once it has made one, and the slice of its service that seals keys.
/// Mounts are compared as such: their units come some time after them.
const KINDS: [(&str, &str); 8] = [
    (
        "system unit",
        "systemctl list-units --all --no-legend --plain --full | cut -d' ' -f1 \
         | grep -v -e '[.]mount$' -e '^system-systemd.x2dcreds[.]slice$'",
    ),
    (
        "user unit",
        "runuser -u alice -- env XDG_RUNTIME_DIR=/run/user/1000 \
         systemctl --user list-units --all --no-legend --plain --full | cut -d' ' -f1",
    ),
    (
        "cgroup",
        "find /sys/fs/cgroup -type d ! -name 'system-systemd?x2dcreds.slice'",
    ),
    (
        "unix socket",
        "awk 'NR > 1 && $8 != \"\" { print $8 }' /proc/net/unix",
    ),
    (
        "tcp socket",
        "ss --no-header --numeric --listening --tcp | awk '{ print $4 }'",
    ),
    ("mount", "awk '{ print $5 }' /proc/1/mountinfo"),
    (
        "process",
        "ps -eo pid=,cgroup=,args= | grep -v ' 0::/enter ' | awk '{ $2 = \"\"; print }'",
    ),
    (
        "file",
        "find /home /root /tmp /var/tmp /var/lib/aegis /etc/aegis /run /dev/shm \
         -path /run/systemd/journal -prune -o -path '/run/user/1000/systemd/units/*' -prune -o \
         -path '/run/systemd/units/*' -prune -o ! -path '*/systemd/transient' \
         ! -path '*/systemd/temporary-credentials' ! -path '/run/user/1000/credentials' \
         ! -path '/run/credentials' -print 2>/dev/null",
    ),
];

/// What a start of a VM may leave for later ones: the accelerator that its probe found,
/// and a guest that had just begun.
#[must_use]
pub fn is_remembered(thing: &str) -> bool {
    let is_template = thing.contains("/.aegis/templates") && !thing.contains("/.partial-");
    is_template || thing.ends_with("/accel.json")
}

/// All there is in a machine at one moment, by kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Inventory(BTreeMap<&'static str, BTreeSet<String>>);

impl Inventory {
    /// Lists everything.
    ///
    /// # Errors
    /// A listing cannot be made.
    pub fn take(seat: Seat<'_>) -> Result<Self> {
        let mut kinds = BTreeMap::new();
        for (kind, line) in KINDS {
            let listed = seat.machine().run(User::Root, line)?;
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            kinds.insert(kind, text.lines().map(str::to_owned).collect());
        }
        Ok(Self(kinds))
    }

    /// Waits until the machine holds what it held then, and nothing else but
    /// what `allowed` says yes to.
    ///
    /// # Errors
    /// Something is left or missing; the text names each thing.
    pub fn wait_until_restored(
        &self,
        seat: Seat<'_>,
        allowed: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let mut difference = String::new();
        wait_until(DEADLINE, "the machine to be as it was", || {
            difference = self.difference(&Self::take(seat)?, &allowed);
            Ok(difference.is_empty())
        })
        .with_context(|| difference.clone())
    }

    fn difference(&self, later: &Self, allowed: impl Fn(&str) -> bool) -> String {
        let mut lines = Vec::new();
        for (kind, before) in &self.0 {
            let empty = BTreeSet::new();
            let after = later.0.get(kind).unwrap_or(&empty);
            for (word, things) in [
                ("left", after.difference(before)),
                ("missing", before.difference(after)),
            ] {
                for thing in things.filter(|thing| !allowed(thing)) {
                    lines.push(format!("{word}: {kind} {thing}"));
                }
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_left_and_what_is_missing() {
        let of = |things: &[&str]| {
            let set = things.iter().map(|&thing| thing.to_owned()).collect();
            Inventory([("file", set)].into())
        };
        let difference = of(&["/a", "/b"]).difference(&of(&["/b", "/c", "/d"]), |it| it == "/d");
        assert_eq!(difference, "left: file /c\nmissing: file /a");
    }
}
