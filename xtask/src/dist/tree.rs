//! A package's files as a tree, ready to be packed.

use std::path::Path;

use aegis_tests::install::{Content, Entry, Package, Plan};
use anyhow::Result;

use super::release::Release;
use crate::build::succeed;

/// Puts a package's files under `folder` as they are to be under `prefix`, programs
/// without their debugging symbols, and gives its list.
///
/// # Errors
/// Something is not built, or cannot be written.
pub(super) fn lay_out(
    release: &Release,
    package: Package,
    prefix: &str,
    folder: &Path,
) -> Result<Plan> {
    let mut plan = Plan::of(package, prefix)?;
    plan.entries.retain(|entry| !is_fallback(entry));
    for entry in &mut plan.entries {
        // Packages have our own kernel.
        entry.optional = false;
    }
    plan.install(folder)?;
    let programs: Vec<&Entry> = plan.entries.iter().filter(|it| is_program(it)).collect();
    if !programs.is_empty() {
        let mut strip = release.command("strip", folder);
        strip.arg("--strip-unneeded");
        for program in programs {
            strip.arg(folder.join(program.destination.trim_start_matches('/')));
        }
        succeed(&mut strip)?;
    }
    Ok(plan)
}

/// Whether it is a compiled program of the host.
pub(super) fn is_program(entry: &Entry) -> bool {
    entry.mode == 0o755 && matches!(entry.content, Content::File(_))
}

/// Nobody reads a distribution's kernel where ours is.
pub(super) fn is_fallback(entry: &Entry) -> bool {
    entry.destination.contains("/guest/fallback/")
}
