//! The disks of a machine with a kernel of its own: trees as file systems in files.
//! QEMU keeps what a machine writes to them for itself (`snapshot=on`), so one disk
//! serves many machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Root, succeed};

/// The size of a disk: room for the largest tree and what is written later. It is a
/// sparse file.
const SIZE: &str = "3G";

/// The disk of a root that is built, kept beside it under the same key.
pub(super) fn of_root(root: &Root) -> Result<PathBuf> {
    let disk = root.path().with_extension("ext4");
    let lock_path = root.path().with_extension("ext4.lock");
    let lock =
        fs::File::create(&lock_path).with_context(|| format!("opening {}", lock_path.display()))?;
    lock.lock()
        .with_context(|| format!("locking {}", lock_path.display()))?;
    if disk.exists() {
        return Ok(disk);
    }
    make(root.path(), &disk)
}

/// Makes a disk of a tree.
pub(super) fn make(tree: &Path, disk: &Path) -> Result<PathBuf> {
    let unfinished = disk.with_extension("unfinished");
    // mke2fs writes into a file that exists without emptying it.
    if unfinished.exists() {
        fs::remove_file(&unfinished)
            .with_context(|| format!("removing {}", unfinished.display()))?;
    }
    let mut mke2fs = Command::new("mke2fs");
    // No journal: a machine that was killed is never booted again from its disk.
    mke2fs.args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"]);
    mke2fs.arg(tree).arg(&unfinished).arg(SIZE);
    succeed(&mut mke2fs)?;
    fs::rename(&unfinished, disk)
        .with_context(|| format!("renaming {} into place", unfinished.display()))?;
    Ok(disk.to_owned())
}
