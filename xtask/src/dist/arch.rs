//! The PKGBUILD of Arch Linux, which packs the tarball, and the scripts beside it.

use std::env::consts::ARCH;

use anyhow::{Context, Result};

use super::release::{Release, sha256, write};
use super::tarball::Tarball;

/// Writes both.
///
/// # Errors
/// They cannot be written.
pub(super) fn make(release: &Release, tarball: &Tarball) -> Result<()> {
    let folder = release.folder.join("arch");
    let file = tarball.path.file_name().context("a tarball has a name")?;
    let values = [
        ("ARCH", ARCH),
        ("SOURCE", &file.to_string_lossy()),
        ("FOLDER", &tarball.name),
        ("SHA256", &sha256(&tarball.path)?),
    ];
    let build = release.text("arch/PKGBUILD", &values)?;
    write(&folder.join("PKGBUILD"), &build)?;
    let managers = release.text("debian/managers", &[])?;
    let scripts = release.text("arch/aegisvm.install", &[("MANAGERS", &managers)])?;
    write(&folder.join("aegisvm.install"), &scripts)
}
