//! Skipping as an outcome that is counted: a test that cannot run here says
//! why, and the closing line of `make test` shows it.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::{Context, Result};

/// Names the file that `xtask test` collects reasons in.
pub const LOG_VARIABLE: &str = "AEGIS_SKIP_LOG";

/// Records that the calling test is skipped, to be returned by it:
/// `return skip("no /dev/kvm")`.
///
/// # Errors
/// The reason cannot be recorded, which would make the skip a silent pass.
pub fn skip(reason: &str) -> Result<()> {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    let Some(path) = std::env::var_os(LOG_VARIABLE) else {
        return std::io::stderr()
            .write_all(line.as_bytes())
            .context("reporting a skip");
    };
    let mut log = OpenOptions::new()
        .append(true)
        .open(path)
        .context("opening the skip log")?;
    log.write_all(line.as_bytes()).context("recording a skip")
}
