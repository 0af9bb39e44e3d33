//! The sources, of which the formula builds the programs on macOS.

use std::path::PathBuf;
use std::process::Command;

use aegis_tests::cache;
use anyhow::Result;

use super::release::Release;
use crate::build::succeed;

/// Packs what the last commit holds, and gives the path.
///
/// # Errors
/// git knows no commit here, or fails.
pub(super) fn make(release: &Release) -> Result<PathBuf> {
    let name = format!("aegisvm-{}-source", release.version);
    let path = release.folder.join(format!("{name}.tar.gz"));
    let mut git = Command::new("git");
    git.current_dir(cache::repository())
        .args(["archive", "--format=tar.gz"])
        .arg(format!("--prefix={name}/"))
        .arg("--output")
        .arg(&path)
        .arg("HEAD");
    succeed(&mut git)?;
    Ok(path)
}
