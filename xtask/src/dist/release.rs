//! What all packages of one run have in common: version, time, folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aegis_tests::cache;
use anyhow::{Context, Result, bail, ensure};

use crate::build::succeed;

/// One run of `make dist`.
#[derive(Debug)]
pub(super) struct Release {
    /// AegisVM's version, that of every crate.
    pub(super) version: &'static str,
    /// Seconds since 1970 of the commit: the time of all files.
    pub(super) time: u64,
    /// Where the packages go.
    pub(super) folder: PathBuf,
    /// Where they are made.
    pub(super) work: PathBuf,
}

impl Release {
    /// Empties the folders.
    ///
    /// # Errors
    /// They cannot be made, or neither git nor `SOURCE_DATE_EPOCH` tells the time.
    pub(super) fn begin() -> Result<Self> {
        let folder = cache::repository().join("target/dist");
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("emptying {}", folder.display()))?;
        }
        let work = folder.join("work");
        fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            time: time()?,
            folder,
            work,
        })
    }

    /// Reads a text of `packaging/` and fills in `@VERSION@` and these, each `@NAME@`.
    ///
    /// # Errors
    /// It cannot be read, or something in it is not filled in.
    pub(super) fn text(&self, path: &str, values: &[(&str, &str)]) -> Result<String> {
        let path = cache::repository().join("packaging").join(path);
        let mut text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        for (name, value) in values.iter().chain(&[("VERSION", self.version)]) {
            text = text.replace(&format!("@{name}@"), value);
        }
        Ok(text)
    }

    /// A command whose files get the commit's time.
    pub(super) fn command(&self, program: &str, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(folder)
            .env("SOURCE_DATE_EPOCH", self.time.to_string())
            .env("LC_ALL", "C.UTF-8");
        command
    }

    /// Packs a folder by this tar, so that the same files give the same bytes.
    ///
    /// # Errors
    /// tar is missing or fails.
    pub(super) fn pack(
        &self,
        tar: &mut Command,
        compression: &str,
        path: &Path,
        folder: &str,
    ) -> Result<()> {
        tar.args(["--create", compression, "--sort=name", "--format=posix"])
            .args(["--owner=0", "--group=0", "--numeric-owner"])
            .arg("--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime")
            .arg(format!("--mtime=@{}", self.time))
            .arg("--file")
            .arg(path)
            .arg(folder);
        succeed(tar)
    }

    /// The time as date(1) prints it by `format`.
    ///
    /// # Errors
    /// date fails.
    pub(super) fn date(&self, format: &str) -> Result<String> {
        let output = Command::new("date")
            .args(["--utc", &format!("--date=@{}", self.time)])
            .arg(format!("+{format}"))
            .env("LC_ALL", "C.UTF-8")
            .output()
            .context("running date")?;
        ensure!(output.status.success(), "date failed ({})", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// Writes a file, with the folders above it.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// The SHA-256 of a file in hexadecimal.
///
/// # Errors
/// sha256sum fails.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum")
        .arg(path)
        .output()
        .context("running sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.get(..64) {
        Some(digest) if output.status.success() => Ok(digest.to_owned()),
        _ => bail!("sha256sum of {} failed ({})", path.display(), output.status),
    }
}

/// Copies a file of `packaging/` into a folder.
///
/// # Errors
/// It cannot be copied.
pub(super) fn copy(name: &str, to: &Path) -> Result<()> {
    let from = cache::repository().join("packaging").join(name);
    succeed(
        Command::new("install")
            .args(["-D", "-p", "-m", "755"])
            .arg(from)
            .arg(to),
    )
}

/// Reproducible builds name the time by this variable; else it is the last commit's.
fn time() -> Result<u64> {
    if let Ok(told) = std::env::var("SOURCE_DATE_EPOCH") {
        return told
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is no number of seconds: {told:?}"));
    }
    let output = Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .current_dir(cache::repository())
        .output()
        .context("running git")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim()
        .parse()
        .context("git tells no commit time here: set SOURCE_DATE_EPOCH")
}
