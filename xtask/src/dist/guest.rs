//! The guest's files for hosts of another architecture, as a tarball.
//!
//! ```text
//!  aegisvm-guest-aarch64-VERSION.tar.gz
//!   └ aarch64/              initramfs, base.squashfs, Image, aegis-agent, licences
//! ```
//!
//! Unpacked in `lib/aegisvm/guest` it is where aegisd looks for guests of arm64. The
//! formulae take it as a resource.

use std::fs;
use std::path::PathBuf;

use aegis_tests::cache;
use aegis_tests::install::{Package, Plan};
use anyhow::{Context, Result};

use super::release::Release;

/// The architecture, and so the one folder in the tarball.
const ARCHITECTURE: &str = "aarch64";

/// Makes it and gives its path.
///
/// # Errors
/// Something is not built, or cannot be written.
pub(super) fn make(release: &Release) -> Result<PathBuf> {
    let name = format!("{}-{}", Package::ForeignGuest.name(), release.version);
    let work = release.work.join(&name);
    let mut plan = Plan::of(Package::ForeignGuest, "")?;
    for entry in &mut plan.entries {
        entry.optional = false;
    }
    plan.install(&work)?;
    let guest = work.join("lib/aegisvm/guest");
    let folder = guest.join(ARCHITECTURE);
    let package = Package::ForeignGuest.name();
    for (from, to) in [
        ("LICENSE".to_owned(), "LICENSE"),
        (format!("target/licences/{package}.txt"), "third-party.txt"),
    ] {
        let from = cache::repository().join(from);
        fs::copy(&from, folder.join(to)).with_context(|| format!("copying {}", from.display()))?;
    }
    let path = release.folder.join(format!("{name}.tar.gz"));
    let mut tar = release.command("tar", &guest);
    release.pack(&mut tar, "--gzip", &path, ARCHITECTURE)?;
    Ok(path)
}
