//! rpm packages: rpmbuild runs the tarball's `install`, and the lists of files are the
//! plan's.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use aegis_tests::install::{Package, Plan};
use anyhow::{Context, Result};

use super::release::{Release, write};
use super::tarball::Tarball;
use super::tree;
use crate::build::succeed;

/// Makes all of them.
///
/// # Errors
/// rpmbuild is missing or fails.
pub(super) fn make(release: &Release, tarball: &Tarball) -> Result<()> {
    let top = release.work.join("rpm");
    let sources = top.join("SOURCES");
    for package in Package::ALL {
        let list = sources.join(format!("{}.files", package.name()));
        write(&list, &files_of(package)?)?;
    }
    let file = tarball.path.file_name().context("a tarball has a name")?;
    std::os::unix::fs::symlink(&tarball.path, sources.join(file))
        .context("giving rpmbuild the tarball")?;
    let managers = release.text("debian/managers", &[])?;
    let values = [
        ("ARCH", std::env::consts::ARCH),
        ("SOURCE", &file.to_string_lossy()),
        ("FOLDER", &tarball.name),
        ("MANAGERS", &managers),
    ];
    let spec = top.join("aegisvm.spec");
    write(&spec, &release.text("rpm/aegisvm.spec", &values)?)?;
    let mut rpmbuild = release.command("rpmbuild", &top);
    rpmbuild.args(["-bb", "--quiet", "--define"]);
    rpmbuild.arg(format!("_topdir {}", top.display()));
    rpmbuild.arg("--define");
    rpmbuild.arg(format!("_rpmdir {}", release.folder.display()));
    rpmbuild.args([
        "--define",
        "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
    ]);
    succeed(rpmbuild.arg(&spec))
}

/// A package's files and the folders that are its own, as `%files -f` reads them.
fn files_of(package: Package) -> Result<String> {
    let plan = Plan::of(package, "/usr")?;
    let mut lines = String::from("%defattr(-,root,root,-)\n");
    let mut folders = BTreeSet::new();
    for entry in plan
        .entries
        .iter()
        .filter(|entry| !tree::is_fallback(entry))
    {
        let path = &entry.destination;
        let above = Path::new(path).ancestors().skip(1);
        folders.extend(above.filter(|folder| is_own(folder)));
        if path.starts_with("/usr/share/man/") {
            writeln!(lines, "%doc {path}")?;
        } else if path.starts_with("/usr/share/licenses/") {
            writeln!(lines, "%license {path}")?;
        } else {
            writeln!(lines, "{path}")?;
        }
    }
    for folder in folders {
        writeln!(lines, "%dir {}", folder.display())?;
    }
    Ok(lines)
}

/// Whether a folder is there for AegisVM alone, and so goes with it.
fn is_own(folder: &Path) -> bool {
    let mut parts = folder.iter();
    parts.any(|part| part.to_string_lossy().starts_with("aegisvm"))
}
