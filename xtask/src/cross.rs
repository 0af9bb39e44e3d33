//! `make check-cross`: the workspace for the platforms that this machine is not.
//!
//! ```text
//!  guest/toolchain ─► compiler with the sources of its library ─┐
//!  crates.io ───────► cargo-zigbuild                            ├─► cargo check, each target
//!  PyPI ────────────► zig: a C compiler for all of them ────────┘
//! ```
//!
//! That it compiles is all that is shown: nothing is linked or run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aegis_tests::cache;
use anyhow::{Context, Result, bail};

use crate::build::succeed;
use crate::progress::step;

/// cargo-zigbuild lets cargo compile and link C with zig.
const ZIGBUILD: &str = "0.24.1";
/// The wheel of zig on PyPI.
const ZIG: &str = "0.17.1";

/// A platform that is checked.
struct Target {
    triple: &'static str,
    /// The compiler comes with no library for it: it is built from its sources.
    builds_std: bool,
    /// Programs for Linux alone, which have nothing to check there.
    leaves_out: &'static [&'static str],
}

const TARGETS: [Target; 2] = [
    Target {
        triple: "aarch64-unknown-linux-gnu",
        builds_std: false,
        leaves_out: &[],
    },
    Target {
        triple: "aarch64-apple-darwin",
        builds_std: true,
        leaves_out: &LINUX_ALONE,
    },
];

/// What is for Linux alone: the guest's first process, the filter between two Linux
/// programs, what tests and measures with namespaces and systemd; and the owner of VMs,
/// whose jail is made of namespaces and has no counterpart on macOS yet.
const LINUX_ALONE: [&str; 6] = [
    "aegis-egress",
    "aegis-harness",
    "aegis-vmm",
    "aegis-tests",
    "aegis-bench",
    "xtask",
];

/// Checks every target.
pub(crate) fn run() -> Result<()> {
    let tools = Tools::fetch()?;
    for target in &TARGETS {
        println!("\n== check {}", target.triple);
        let mut check = tools.check(target);
        check.arg("--workspace");
        for package in target.leaves_out {
            check.args(["--exclude", package]);
        }
        succeed(&mut check)?;
    }
    println!("\nAll of it compiles. Nothing of it was run.");
    Ok(())
}

/// What compiles for other platforms.
struct Tools {
    rustc: PathBuf,
    zigbuild: PathBuf,
    zig: PathBuf,
    /// Where the results go: beside those for this machine.
    target_dir: PathBuf,
}

impl Tools {
    /// Gets them, unless the cache has them.
    fn fetch() -> Result<Self> {
        let repository = cache::repository();
        let toolchain = toolchain(&repository.join("guest/toolchain"))?;
        let tools = cache::directory()?.join("cross");
        let zigbuild = tools.join(format!("zigbuild-{ZIGBUILD}"));
        if !zigbuild.join("bin/cargo-zigbuild").exists() {
            let estimate = Duration::from_secs(60);
            step("Building cargo-zigbuild", estimate, || {
                let mut cargo = crate::build::cargo();
                cargo
                    .args(["install", "--quiet", "--locked", "cargo-zigbuild"])
                    .args(["--version", ZIGBUILD, "--root"])
                    .arg(&zigbuild);
                succeed(&mut cargo)
            })?;
        }
        let zig = tools.join(format!("zig-{ZIG}"));
        if !zig.join("ziglang/zig").exists() {
            step("Fetching zig", Duration::from_secs(20), || {
                let mut pip = Command::new("python3");
                pip.args(["-m", "pip", "install", "--quiet", "--no-deps"])
                    .args(["--disable-pip-version-check", "--target"])
                    .arg(&zig)
                    .arg(format!("ziglang=={ZIG}"));
                succeed(&mut pip)
            })?;
        }
        Ok(Self {
            rustc: toolchain.join("bin/rustc"),
            zigbuild: zigbuild.join("bin/cargo-zigbuild"),
            zig: zig.join("ziglang/zig"),
            target_dir: repository.join("target/cross"),
        })
    }

    /// `cargo check` for a target. Debug information is left out: it would be gigabytes
    /// that nobody looks at.
    fn check(&self, target: &Target) -> Command {
        let mut cargo = Command::new(&self.zigbuild);
        cargo.current_dir(cache::repository()).arg("check");
        if target.builds_std {
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        cargo
            .args(["--locked", "--quiet", "--target", target.triple])
            // The sources of the library need it, of this compiler and no other.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", &self.rustc)
            .env("CARGO_ZIGBUILD_ZIG_PATH", &self.zig)
            .env("CARGO_TARGET_DIR", &self.target_dir)
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        cargo
    }
}

/// The folder of the compiler, which the script fetches if need be.
fn toolchain(script: &Path) -> Result<PathBuf> {
    let estimate = Duration::from_secs(60);
    let output = step("Getting a compiler for other platforms", estimate, || {
        let run = Command::new(script).stderr(Stdio::inherit()).output();
        run.with_context(|| format!("running {}", script.display()))
    })?;
    if !output.status.success() {
        bail!("{} failed ({})", script.display(), output.status);
    }
    let text = String::from_utf8(output.stdout).context("the path of the compiler")?;
    Ok(PathBuf::from(text.trim_end()))
}
