//! A machine's own cgroup, a direct child of the caller's cgroup2 mount, so
//! that two machines side by side never share a tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait::wait_until;

/// The group that processes entering the machine are put in. It lies beside
/// systemd's own groups, which systemd leaves alone.
const ENTER: &str = "enter";

/// The control group of one machine.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The group of the machine called `name`, whether or not it exists.
    ///
    /// # Errors
    /// The host has no cgroup2 mount.
    pub(super) fn of(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
        let mount = cgroup2_mount(&mounts).context(
            "no cgroup2 mount in /proc/mounts; a machine needs one \
             (mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified)",
        )?;
        Ok(Self {
            path: mount.join(format!("aegisvm-{name}")),
        })
    }

    /// Makes the group and the one for entering.
    ///
    /// # Errors
    /// The file system refuses, or somebody's processes are in the group.
    pub(super) fn create(&self) -> Result<()> {
        self.remove()?;
        for path in [self.path.clone(), self.path.join(ENTER)] {
            fs::create_dir_all(&path)
                .with_context(|| format!("making the cgroup {}", path.display()))?;
        }
        Ok(())
    }

    /// The file that moves a process into the machine's top group.
    pub(super) fn boot_file(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// The file that moves a process into the group for entering.
    pub(super) fn enter_file(&self) -> PathBuf {
        self.path.join(ENTER).join("cgroup.procs")
    }

    /// Kills what is left in the group and removes it with all below it.
    ///
    /// # Errors
    /// Something still runs there 10 s after the kill.
    pub(super) fn remove(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let kill = self.path.join("cgroup.kill");
        if kill.exists() {
            fs::write(&kill, "1").with_context(|| format!("writing {}", kill.display()))?;
        }
        let what = format!("the cgroup {} to empty", self.path.display());
        wait_until(Duration::from_secs(10), &what, || {
            Ok(remove_tree(&self.path).is_ok())
        })
    }
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
