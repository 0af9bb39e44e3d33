//! Programs in C for the machines, linked statically: they need nothing there.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cache;

/// Compiles a file of `tests` on the host and gives the program.
///
/// # Errors
/// There is no compiler, or the file does not compile.
pub fn compile(source: &str) -> Result<Vec<u8>> {
    // Of this run alone: tests build at the same time.
    let folder = cache::repository().join("target/tests");
    std::fs::create_dir_all(&folder).context("making target/tests")?;
    let program = folder.join(format!("compiled-{}", std::process::id()));
    let built = Command::new("cc")
        .args(["-static", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&program)
        .arg(cache::repository().join("tests").join(source))
        .output()
        .context("running cc")?;
    let errors = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success(), "{errors}");
    let content = std::fs::read(&program);
    drop(std::fs::remove_file(&program));
    content.with_context(|| format!("reading {}", program.display()))
}
