//! The Homebrew tap: what the repository `homebrew-aegisvm` has to hold.

use std::path::Path;

use anyhow::{Context, Result};

use super::release::{Release, sha256, write};
use super::tarball::Tarball;

/// The formulae, under `Formula/` there as here under `packaging/homebrew`.
const FORMULAE: [&str; 2] = ["aegisvm.rb", "aegisvm-agent-kit.rb"];

/// Writes them: their source is the tarball, on macOS the sources, and the guests' files
/// are a resource.
///
/// # Errors
/// They cannot be written.
pub(super) fn make(
    release: &Release,
    tarball: &Tarball,
    sources: &Path,
    guest: &Path,
) -> Result<()> {
    let name = |path: &Path| {
        let name = path.file_name().context("a tarball has a name")?;
        Ok::<_, anyhow::Error>(name.to_string_lossy().into_owned())
    };
    let values = [
        ("SOURCE", &*name(&tarball.path)?),
        ("SHA256", &sha256(&tarball.path)?),
        ("SOURCES", &name(sources)?),
        ("SOURCES_SHA256", &sha256(sources)?),
        ("GUEST_SOURCE", &name(guest)?),
        ("GUEST_SHA256", &sha256(guest)?),
    ];
    for formula in FORMULAE {
        let text = release.text(&format!("homebrew/{formula}"), &values)?;
        let path = release.folder.join("homebrew-aegisvm/Formula");
        write(&path.join(formula), &text)?;
    }
    Ok(())
}
