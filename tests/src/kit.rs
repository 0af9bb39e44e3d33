//! The kits of the tests, `tests/kits/NAME.json` with the daemon's program
//! beside it: what other people's kits may look like.

use std::fs;

use anyhow::{Context, Result};

use crate::cache;
use crate::machine::User;
use crate::seat::Seat;

/// Puts a kit into the user's kit folder: the manifest `tests/kits/KIT.json`
/// and the programs, files of `tests/kits`.
///
/// # Errors
/// A file cannot be read or written.
pub fn install(seat: Seat<'_>, kit: &str, programs: &[&str]) -> Result<()> {
    let source = cache::repository().join("tests/kits");
    let manifest = format!("{kit}.json");
    for name in programs.iter().copied().chain([manifest.as_str()]) {
        let path = source.join(name);
        let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let target = format!("{}/{name}", seat.kits());
        seat.machine().write_file(seat.user(), &target, &content)?;
        if name != manifest {
            seat.machine()
                .run(User::Root, &format!("chmod 755 '{target}'"))?
                .success()?;
        }
    }
    Ok(())
}
