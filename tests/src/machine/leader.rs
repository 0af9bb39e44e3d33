//! The process on the host that a machine lives and ends with: its PID 1, or the
//! QEMU it runs in.
//!
//! A pid alone may be another process by now, so a leader is a pid with the
//! start time of the process (field 22 of /proc/PID/stat, proc_pid_stat(5)).

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait::wait_for;

/// Identity of a process on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leader {
    pid: u32,
    start: u64,
}

/// What /proc/PID/stat says that is of use here.
struct Stat {
    parent: u32,
    start: u64,
}

impl Leader {
    /// Waits for the first child of `parent`, which is PID 1 of its new pid
    /// namespace.
    ///
    /// # Errors
    /// It did not appear in time, as happens when `unshare` is refused.
    pub(super) fn child_of(parent: u32) -> Result<Self> {
        wait_for(
            Duration::from_secs(10),
            "the machine's first process",
            || {
                for entry in fs::read_dir("/proc").context("reading /proc")? {
                    let Some(pid) = entry?
                        .file_name()
                        .to_str()
                        .and_then(|name| name.parse().ok())
                    else {
                        continue;
                    };
                    if let Some(stat) = stat(pid)
                        && stat.parent == parent
                    {
                        return Ok(Some(Self {
                            pid,
                            start: stat.start,
                        }));
                    }
                }
                Ok(None)
            },
        )
    }

    /// The process with this pid, which is a child of the caller.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let stat = stat(pid).with_context(|| format!("there is no process {pid}"))?;
        Ok(Self {
            pid,
            start: stat.start,
        })
    }

    /// Reads what [`Leader::save`] wrote; `None` if there is no such file or
    /// it names no process that still lives.
    pub(super) fn load(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        let leader = Self {
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
        };
        leader.alive().then_some(leader)
    }

    /// Writes the identity to a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        fs::write(path, format!("{} {}\n", self.pid, self.start))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Whether this very process still exists.
    pub(super) fn alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start)
    }

    /// The pid on the host.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command in the second field may hold spaces and parentheses, so fields
/// are counted from the last ')'.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stat_line_whose_command_has_a_parenthesis() {
        let line = "7 (a) b) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 1 2";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.parent, stat.start), (3, 987));
    }

    #[test]
    fn a_process_with_another_start_time_is_not_the_leader() {
        let own = std::process::id();
        let start = stat(own).unwrap().start;
        assert!(Leader { pid: own, start }.alive());
        assert!(
            !Leader {
                pid: own,
                start: start + 1
            }
            .alive()
        );
    }
}
