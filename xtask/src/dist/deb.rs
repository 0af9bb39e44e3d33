//! Debian packages, by Debian's own tools.
//!
//! ```text
//!  Plan ─► tree ─► + man pages and changelog compressed, copyright, overrides
//!                  + DEBIAN/control      dpkg-shlibdeps, dpkg-gencontrol
//!                  + DEBIAN/postinst …   packaging/debian, with the function of `managers`
//!                  + DEBIAN/md5sums
//!               ─► dpkg-deb ─► lintian
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aegis_tests::cache;
use aegis_tests::install::{Package, Plan};
use anyhow::{Context, Result, bail, ensure};

use super::release::{Release, write};
use super::tree;
use crate::build::succeed;

/// The moments at which dpkg asks a package's own scripts.
const MOMENTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// Makes all of them and has lintian look at them.
///
/// # Errors
/// Something is not built, a tool is missing or fails, or lintian objects.
pub(super) fn make(release: &Release) -> Result<()> {
    let source = release.work.join("deb");
    let arch = architecture()?;
    let date = release.date("%a, %d %b %Y %H:%M:%S +0000")?;
    for (name, values) in [
        ("control", [("ARCH", arch.as_str())]),
        ("changelog", [("DATE", date.as_str())]),
    ] {
        let text = release.text(&format!("debian/{name}"), &values)?;
        write(&source.join("debian").join(name), &text)?;
    }
    let mut packages = Vec::new();
    for package in Package::ALL {
        packages.push(make_one(release, &source, package, &arch)?);
    }
    let mut lintian = release.command("lintian", &release.folder);
    lintian.args(["--fail-on", "error,warning", "--suppress-tags"]);
    // There is no distribution to close a bug in.
    lintian.arg("initial-upload-closes-no-bugs").args(&packages);
    succeed(&mut lintian)
}

fn make_one(release: &Release, source: &Path, package: Package, arch: &str) -> Result<PathBuf> {
    let name = package.name();
    let tree = source.join(name);
    let plan = tree::lay_out(release, package, "/usr", &tree)?;
    add_documents(release, source, package, &tree)?;
    add_scripts(release, package, &tree)?;
    add_control(release, source, package, &tree, &plan)?;
    let sums = "find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums";
    succeed(release.command("sh", &tree).args(["-ec", sums]))?;

    let file = format!("{name}_{}-1_{arch}.deb", release.version);
    let path = release.folder.join(file);
    let mut build = release.command("dpkg-deb", source);
    // Level 3 of xz packs in a fifth of the time, a tenth larger.
    build.args(["--root-owner-group", "-Zxz", "-z3", "--build"]);
    succeed(
        build
            .arg(&tree)
            .arg(&path)
            .stdout(std::process::Stdio::null()),
    )?;
    Ok(path)
}

/// What Debian wants of every package, in the forms it wants.
fn add_documents(release: &Release, source: &Path, package: Package, tree: &Path) -> Result<()> {
    let name = package.name();
    let documents = tree.join("usr/share/doc").join(name);
    let copyright = release.text("debian/copyright", &[("PACKAGE", name)])?;
    write(&documents.join("copyright"), &copyright)?;
    let changelog = documents.join("changelog.Debian");
    fs::copy(source.join("debian/changelog"), &changelog)
        .with_context(|| format!("writing {}", changelog.display()))?;
    let overrides = format!("debian/{name}.lintian-overrides");
    if is_there(&overrides) {
        let path = tree.join("usr/share/lintian/overrides").join(name);
        write(&path, &release.text(&overrides, &[])?)?;
    }
    let compress = "gzip -9n usr/share/doc/*/changelog.Debian && \
        if [ -d usr/share/man ]; then find usr/share/man -type f -exec gzip -9n {} +; fi";
    succeed(release.command("sh", tree).args(["-ec", compress]))
}

fn add_scripts(release: &Release, package: Package, tree: &Path) -> Result<()> {
    let managers = release.text("debian/managers", &[])?;
    for moment in MOMENTS {
        // The refusal of a downgrade is that of every package.
        let own = format!("debian/{}.{moment}", package.name());
        let shared = format!("debian/{moment}");
        let Some(script) = [own, shared].into_iter().find(|path| is_there(path)) else {
            continue;
        };
        let path = tree.join("DEBIAN").join(moment);
        write(&path, &release.text(&script, &[("MANAGERS", &managers)])?)?;
        succeed(Command::new("chmod").arg("755").arg(&path))?;
    }
    Ok(())
}

fn add_control(
    release: &Release,
    source: &Path,
    package: Package,
    tree: &Path,
    plan: &Plan,
) -> Result<()> {
    let name = package.name();
    let variables = source.join(format!("{name}.substvars"));
    // Those that are linked statically need no libraries, and dpkg-shlibdeps says so.
    let programs: Vec<PathBuf> = plan
        .entries
        .iter()
        .filter(|entry| tree::is_program(entry) && !entry.destination.ends_with("/aegis-agent"))
        .map(|entry| tree.join(entry.destination.trim_start_matches('/')))
        .collect();
    if !programs.is_empty() {
        let mut libraries = release.command("dpkg-shlibdeps", source);
        libraries.arg(format!("-T{}", variables.display()));
        succeed(libraries.args(&programs))?;
    }
    let mut control = release.command("dpkg-gencontrol", source);
    control.arg(format!("-p{name}"));
    control.arg(format!("-P{}", tree.display()));
    control.arg(format!("-T{}", variables.display()));
    control.arg(format!("-f{}", source.join("files").display()));
    succeed(&mut control)
}

/// Debian's name of this machine's architecture.
fn architecture() -> Result<String> {
    let output = Command::new("dpkg")
        .arg("--print-architecture")
        .output()
        .context("running dpkg")?;
    ensure!(output.status.success(), "dpkg failed ({})", output.status);
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if name.is_empty() {
        bail!("dpkg names no architecture");
    }
    Ok(name)
}

fn is_there(path: &str) -> bool {
    cache::repository().join("packaging").join(path).exists()
}
