//! What processes hold: descriptors, memory, threads.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::instance::Instance;
use crate::machine::User;
use crate::seat::Seat;
use crate::wait::wait_until;

/// What a process may hold in memory beyond what it held, in KiB: an allocator keeps
/// some of what was freed, and the more the more went on at once.
const SLACK_KIB: u64 = 4096;

/// How long descriptors may take to be closed, and processes to end, after the last of
/// their users is gone.
pub(super) const SETTLE: Duration = Duration::from_secs(30);

/// What the long-lived processes of a seat hold at one moment, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint(BTreeMap<String, Held>);

/// What one process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Open descriptors.
    pub descriptors: u64,
    /// Resident memory in KiB.
    pub memory_kib: u64,
    /// Threads.
    pub threads: u64,
}

impl Footprint {
    /// Of aegisd, the service manager and the owners of these instances' VMs.
    ///
    /// # Errors
    /// One of them does not run.
    pub fn take(seat: Seat<'_>, instances: &[&Instance<'_>]) -> Result<Self> {
        let mut held = BTreeMap::new();
        let aegisd = seat.main_pid("aegisd.service")?;
        held.insert(
            "aegisd".to_owned(),
            Held::by(seat, aegisd.context("aegisd does not run")?)?,
        );
        held.insert("systemd".to_owned(), Held::by(seat, manager(seat)?)?);
        for instance in instances {
            let unit = instance.vm_unit();
            let owner = seat.main_pid(&unit)?;
            let owner = owner.with_context(|| format!("{unit} does not run"))?;
            let name = format!("aegis-vmm of {}", instance.handle());
            held.insert(name, Held::by(seat, owner)?);
        }
        Ok(Self(held))
    }

    /// What of `later` is more than here, in words: descriptors, threads, and memory
    /// beyond some slack.
    #[must_use]
    pub fn growth(&self, later: &Self) -> Vec<String> {
        let mut grown = Vec::new();
        for (name, before) in &self.0 {
            let Some(after) = later.0.get(name) else {
                grown.push(format!("{name} is gone"));
                continue;
            };
            for (what, before, after, slack) in [
                ("descriptors", before.descriptors, after.descriptors, 0),
                ("threads", before.threads, after.threads, 0),
                ("KiB", before.memory_kib, after.memory_kib, SLACK_KIB),
            ] {
                if after > before + slack {
                    grown.push(format!("{name} held {before} {what}, then {after}"));
                }
            }
        }
        grown
    }

    /// Waits until nothing has grown but for the slack; gives what is held then.
    ///
    /// # Errors
    /// Something has, with what.
    pub fn wait_until_restored(&self, seat: Seat<'_>, instances: &[&Instance<'_>]) -> Result<Self> {
        let mut later = self.clone();
        let mut grown = Vec::new();
        let settled = wait_until(SETTLE, "what processes hold to be as before", || {
            later = Self::take(seat, instances)?;
            grown = self.growth(&later);
            Ok(grown.is_empty())
        });
        settled.with_context(|| grown.join("; "))?;
        Ok(later)
    }

    /// A table of this beside `later`, in Markdown.
    #[must_use]
    pub fn beside(&self, later: &Self) -> String {
        let mut table =
            String::from("| process | descriptors | KiB resident | threads |\n|---|---|---|---|\n");
        for (name, before) in &self.0 {
            let after = later.0.get(name).copied().unwrap_or(*before);
            table += &format!(
                "| {name} | {} → {} | {} → {} | {} → {} |\n",
                before.descriptors,
                after.descriptors,
                before.memory_kib,
                after.memory_kib,
                before.threads,
                after.threads
            );
        }
        table
    }
}

impl Held {
    fn by(seat: Seat<'_>, pid: u32) -> Result<Self> {
        let line = format!(
            "ls /proc/{pid}/fd | wc -l; \
             sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB$/\\1/p; s/^Threads:[^0-9]*//p' \
             /proc/{pid}/status"
        );
        let text = seat.machine().run(User::Root, &line)?.success()?;
        let numbers = text.lines().map(|line| line.trim().parse::<u64>());
        let numbers = numbers.collect::<Result<Vec<_>, _>>();
        match numbers.as_deref() {
            Ok(&[descriptors, memory_kib, threads]) => Ok(Self {
                descriptors,
                memory_kib,
                threads,
            }),
            _ => anyhow::bail!("process {pid} of {text:?}"),
        }
    }
}

/// The pid of the seat's service manager.
fn manager(seat: Seat<'_>) -> Result<u32> {
    match seat.user() {
        User::Root => Ok(1),
        User::Alice => {
            let line = "systemctl show --property=MainPID --value user@1000.service";
            let text = seat.machine().run(User::Root, line)?.success()?;
            text.trim().parse().context("the pid of alice's manager")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_names_what_grew_beyond_the_slack() {
        let of = |descriptors, memory_kib| {
            let held = Held {
                descriptors,
                memory_kib,
                threads: 3,
            };
            Footprint([("aegisd".to_owned(), held)].into())
        };
        let before = of(20, 10_000);
        assert!(before.growth(&of(20, 10_000 + SLACK_KIB)).is_empty());
        assert_eq!(
            before.growth(&of(21, 10_001 + SLACK_KIB)),
            [
                "aegisd held 20 descriptors, then 21",
                "aegisd held 10000 KiB, then 14097"
            ]
        );
    }
}
