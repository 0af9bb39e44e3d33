//! A machine's own cgroup, a direct child of the caller's cgroup2 mount, so
//! that two machines side by side never share a tree. Its name is made at each
//! boot and kept with the machine: another cache may know a machine of the same
//! name, whose processes are not ours to kill.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::wait::wait_until;

/// The group that processes entering the machine are put in. It lies beside
/// systemd's own groups, which systemd leaves alone.
const ENTER: &str = "enter";

/// The file in a machine's directory that names its group.
const RECORD: &str = "cgroup";

/// The control group of one machine.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The group of the machine called `name` that its last boot made, as kept
    /// in its `directory`; `None` if it never booted.
    ///
    /// # Errors
    /// The host has no cgroup2 mount.
    pub(super) fn of(directory: &Path) -> Result<Option<Self>> {
        let Ok(group) = fs::read_to_string(directory.join(RECORD)) else {
            return Ok(None);
        };
        Ok(Some(Self {
            path: mount()?.join(group.trim()),
        }))
    }

    /// Makes a new group for a boot of the machine called `name`, with the one
    /// for entering, and records it in the machine's `directory`.
    ///
    /// # Errors
    /// The host has no cgroup2 mount, or the file system refuses.
    pub(super) fn create(name: &str, directory: &Path) -> Result<Self> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let group = format!("aegisvm-{name}-{:x}", now.as_nanos());
        let record = directory.join(RECORD);
        let path = mount()?.join(&group);
        fs::write(&record, group).with_context(|| format!("writing {}", record.display()))?;
        for path in [path.clone(), path.join(ENTER)] {
            fs::create_dir(&path)
                .with_context(|| format!("making the cgroup {}", path.display()))?;
        }
        Ok(Self { path })
    }

    /// The file that moves a process into the machine's top group.
    pub(super) fn boot_file(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// The file that moves a process into the group for entering.
    pub(super) fn enter_file(&self) -> PathBuf {
        self.path.join(ENTER).join("cgroup.procs")
    }

    /// Kills the commands that entered the machine. Their nsenter, outside the
    /// machine's pid namespace, is stopped when a power-off stops its child, and
    /// then reaps nothing: the namespace could not end.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn kill_entered(&self) -> Result<()> {
        kill(&self.path.join(ENTER))
    }

    /// Kills what is left in the group and removes it with all below it.
    ///
    /// # Errors
    /// Something still runs there 10 s after the kill.
    pub(super) fn remove(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        kill(&self.path)?;
        let what = format!("the cgroup {} to empty", self.path.display());
        wait_until(Duration::from_secs(10), &what, || {
            Ok(remove_tree(&self.path).is_ok())
        })
    }
}

/// Sends SIGKILL to all processes of a group and those below it
/// (cgroup.kill, from Linux 5.14).
fn kill(group: &Path) -> Result<()> {
    let file = group.join("cgroup.kill");
    if file.exists() {
        fs::write(&file, "1").with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// The directory where the host has cgroup2.
fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
    cgroup2_mount(&mounts).context(
        "no cgroup2 mount in /proc/mounts; a machine needs one \
         (mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified)",
    )
}

/// Finds where cgroup2 is mounted, in the text of /proc/mounts.
fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (target, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(target))
    })
}

/// Removes a cgroup and those below it, deepest first. Only directories can be
/// removed there; the files belong to the kernel.
fn remove_tree(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    if let Err(error) = fs::remove_dir(path) {
        bail!("removing the cgroup {}: {error}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_unified_mount_among_others() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            cgroup2_mount(mounts),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(cgroup2_mount("proc /proc proc rw 0 0\n"), None);
    }
}
