//! The tarball: every file once, and `install`, which puts them under any prefix.
//!
//! ```text
//!  aegisvm-VERSION-linux-ARCH/
//!   ├ install               packaging/tarball/install
//!   ├ LICENSE, INSTALL.md
//!   └ PACKAGE/
//!      ├ files/…            by destination, @PREFIX@ not yet filled in
//!      └ system             which of them are for the system's service manager
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use aegis_tests::cache;
use aegis_tests::install::Package;
use anyhow::{Context, Result};

use super::release::{Release, copy, write};
use super::tree;

/// Filled in by `install`; in the tree it is a folder's name for a moment.
const PREFIX: &str = "@PREFIX@";

/// The tarball that was made.
#[derive(Debug)]
pub(super) struct Tarball {
    /// The file.
    pub(super) path: PathBuf,
    /// The folder in it, as which it lies in the work folder too.
    pub(super) name: String,
}

/// Makes it.
///
/// # Errors
/// Something is not built, or cannot be written.
pub(super) fn make(release: &Release) -> Result<Tarball> {
    let arch = std::env::consts::ARCH;
    let name = format!("aegisvm-{}-linux-{arch}", release.version);
    let top = release.work.join(&name);
    for package in Package::ALL {
        lay_out(release, package, &top.join(package.name()))?;
    }
    copy("tarball/install", &top.join("install"))?;
    for text in ["LICENSE", "docs/INSTALL.md"] {
        let from = cache::repository().join(text);
        let to = top.join(from.file_name().unwrap_or_default());
        fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    let path = release.folder.join(format!("{name}.tar.xz"));
    let mut tar = release.command("tar", &release.work);
    // Level 3 packs in a fifth of the time, a tenth larger.
    tar.env("XZ_OPT", "-3 -T0");
    release.pack(&mut tar, "--xz", &path, &name)?;
    Ok(Tarball { path, name })
}

fn lay_out(release: &Release, package: Package, folder: &Path) -> Result<()> {
    let plan = tree::lay_out(release, package, PREFIX, folder)?;
    let files = folder.join("files");
    fs::rename(folder.join(PREFIX), &files)
        .with_context(|| format!("making {}", files.display()))?;
    let system: String = plan
        .entries
        .iter()
        .filter(|entry| entry.system)
        .filter_map(|entry| entry.destination.strip_prefix(PREFIX)?.strip_prefix('/'))
        .map(|path| format!("{path}\n"))
        .collect();
    write(&folder.join("system"), &system)
}
