//! Where built roots, machines and kernels are kept, and the keys they are
//! kept under.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The cache directory: `$AEGIS_CACHE`, else `$XDG_CACHE_HOME/aegisvm`, else
/// `~/.cache/aegisvm`. `guest/kernel/build` uses the same one.
///
/// # Errors
/// None of the three variables is set.
pub fn directory() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = variable("AEGIS_CACHE") {
        return Ok(PathBuf::from(cache));
    }
    if let Some(cache) = variable("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(cache).join("aegisvm"));
    }
    let home = variable("HOME").context("no cache directory: set AEGIS_CACHE or HOME")?;
    Ok(PathBuf::from(home).join(".cache/aegisvm"))
}

/// The top of the source tree this crate was built from.
#[must_use]
pub fn repository() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map_or_else(|| tests.clone(), PathBuf::from)
}

/// A 16-digit name for `content`, the start of its SHA-256.
///
/// # Errors
/// `sha256sum` (coreutils) cannot be run.
pub(crate) fn key(content: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("running sha256sum")?;
    let mut stdin = child
        .stdin
        .take()
        .context("sha256sum has no standard input")?;
    stdin.write_all(content).context("writing to sha256sum")?;
    drop(stdin);
    let output = child.wait_with_output().context("waiting for sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.get(..16) {
        Some(key) if output.status.success() => Ok(key.to_owned()),
        _ => bail!("sha256sum gave no digest ({})", output.status),
    }
}
