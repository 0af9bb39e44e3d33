//! The packages of `make dist`, and bringing them into machines.
//!
//! What `upgraded` gives is the same tree packed again under a higher version: what dpkg
//! does with it is what it does with a later release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::cache;
use crate::install::Package;
use crate::machine::{Machine, User};

/// Where packages lie in a machine.
const PLACE: &str = "/var/tmp/packages";

/// Where `make dist` puts them.
#[must_use]
pub fn folder() -> PathBuf {
    cache::repository().join("target/dist")
}

/// The one file in `target/dist` that is called so.
///
/// # Errors
/// There is none, or several.
pub fn file(start: &str, end: &str) -> Result<PathBuf> {
    let folder = folder();
    let mut found = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("{}: make dist", folder.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(start) && name.ends_with(end) {
            found.push(path.clone());
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => bail!(
            "{} files {start}*{end} in {}: run make dist",
            found.len(),
            folder.display()
        ),
    }
}

/// The Debian package.
///
/// # Errors
/// It is not built.
pub fn deb(package: Package) -> Result<PathBuf> {
    file(&format!("{}_", package.name()), ".deb")
}

/// All Debian packages under another version, in a folder that goes with the value.
///
/// # Errors
/// dpkg-deb fails.
pub fn upgraded(version: &str) -> Result<TempDir> {
    let folder = tempfile::tempdir().context("making a folder")?;
    for package in Package::ALL {
        let name = package.name();
        let script = format!(
            "dpkg-deb -R '{}' {name} && \
             old=$(sed -n 's/^Version: //p' {name}/DEBIAN/control) && \
             sed -i -e \"/^Version: /s/ .*/ {version}/\" -e \"s/(= $old)/(= {version})/\" \
                 {name}/DEBIAN/control && \
             dpkg-deb --root-owner-group -Znone -b {name} {name}.deb >/dev/null && rm -r {name}",
            deb(package)?.display()
        );
        run(Command::new("sh")
            .args(["-ec", &script])
            .current_dir(folder.path()))?;
    }
    Ok(folder)
}

/// Copies packages into a machine and gives them as words of a shell line.
///
/// # Errors
/// One cannot be read or written.
pub fn bring(machine: &Machine, packages: &[PathBuf]) -> Result<String> {
    let mut words = Vec::new();
    for package in packages {
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        let target = format!("{PLACE}/{name}");
        let source =
            fs::File::open(package).with_context(|| format!("opening {}", package.display()))?;
        let line = format!("mkdir -p {PLACE} && cat >'{target}'");
        run(machine
            .command(User::Root, &line)
            .stdin(Stdio::from(source)))?;
        words.push(format!("'{target}'"));
    }
    Ok(words.join(" "))
}

/// The paths of files and links below a folder, `/` being that folder, in order.
///
/// # Errors
/// The folder cannot be read.
pub fn files_below(folder: &Path) -> Result<Vec<String>> {
    let mut find = Command::new("find");
    find.arg(folder)
        .args(["!", "-type", "d", "-printf", "/%P\\n"]);
    Ok(sorted(&run(&mut find)?))
}

/// Lines in the order of their bytes.
#[must_use]
pub fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Runs a command of this host, which must succeed, and gives its standard output.
///
/// # Errors
/// It fails; the text holds what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("running {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}
