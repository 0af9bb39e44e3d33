//! A machine's writable file system: an overlay over the cached root, or a
//! copy of it where the cache lies on a file system that overlays refuse as
//! their upper layer (another overlay, as in most containers).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The directories a machine's files come from.
#[derive(Debug)]
pub(super) struct Scratch {
    /// What becomes `/` in the machine.
    pub(super) root: PathBuf,
    /// Options of the overlay mounted there; empty for a copy.
    pub(super) overlay: String,
    /// Where the host writes files that the machine is to see from its boot.
    pub(super) writable: PathBuf,
}

impl Scratch {
    /// Takes the files under `directory` up again, or makes them from `lower`.
    ///
    /// # Errors
    /// The directories cannot be made, or the root cannot be copied.
    pub(super) fn open(directory: &Path, lower: &Path) -> Result<Self> {
        let (root, upper, work) = (
            directory.join("root"),
            directory.join("upper"),
            directory.join("work"),
        );
        let copied = directory.join("copied");
        for path in [&root, &upper, &work] {
            fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        }
        let overlay = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        if !copied.exists() && overlay_works(&overlay, &root)? {
            return Ok(Self {
                root,
                overlay,
                writable: upper,
            });
        }
        if !copied.exists() {
            let status = Command::new("cp")
                .args(["-a", "--reflink=auto"])
                .args([lower.join("."), root.clone()])
                .status()
                .context("running cp")?;
            if !status.success() {
                bail!(
                    "copying {} to {} failed ({status})",
                    lower.display(),
                    root.display()
                );
            }
            fs::write(&copied, "").with_context(|| format!("writing {}", copied.display()))?;
        }
        Ok(Self {
            writable: root.clone(),
            root,
            overlay: String::new(),
        })
    }
}

/// Tries the mount in a mount namespace that ends with the trial.
fn overlay_works(options: &str, target: &Path) -> Result<bool> {
    let status = Command::new("unshare")
        .args([
            "--mount", "mount", "-t", "overlay", "-o", options, "aegisvm",
        ])
        .arg(target)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("running unshare (apt-get install util-linux)")?;
    Ok(status.success())
}
