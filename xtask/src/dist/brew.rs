//! The Homebrew tap: what the repository `homebrew-aegisvm` has to hold.

use anyhow::{Context, Result};

use super::release::{Release, sha256, write};
use super::tarball::Tarball;

/// The formulae, under `Formula/` there as here under `packaging/homebrew`.
const FORMULAE: [&str; 2] = ["aegisvm.rb", "aegisvm-agent-kit.rb"];

/// Writes them.
///
/// # Errors
/// They cannot be written.
pub(super) fn make(release: &Release, tarball: &Tarball) -> Result<()> {
    let file = tarball.path.file_name().context("a tarball has a name")?;
    let values = [
        ("SOURCE", &*file.to_string_lossy()),
        ("SHA256", &sha256(&tarball.path)?),
    ];
    for formula in FORMULAE {
        let text = release.text(&format!("homebrew/{formula}"), &values)?;
        let path = release.folder.join("homebrew-aegisvm/Formula");
        write(&path.join(formula), &text)?;
    }
    Ok(())
}
