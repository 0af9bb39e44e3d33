//! `make check-cross`: the workspace for the platforms that this machine is not.
//!
//! ```text
//!  guest/toolchain ─► compiler with the sources of its library ─┐
//!  crates.io ───────► cargo-zigbuild                            ├─► cargo check, each target
//!  PyPI ────────────► zig: a C compiler for all of them ────────┤
//!  xtask/frameworks: what is used of macOS's libraries ─────────┴─► programs for macOS
//! ```
//!
//! That it compiles is shown of everything, and that it links of what runs on macOS.
//! Nothing is run. Apple's libraries cannot be had here, but a linker wants no more of one
//! than its names: `xtask/frameworks` has those that our programs use, as text-based stubs
//! (`.tbd`, the format of Apple's own SDK). A name that is not there ends the link with
//! "undefined symbol": whoever adds a call adds it, once Apple's documentation has shown
//! that the library has it. zig brings the names of the C library by itself.

mod macho;

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
    /// Packages whose programs are linked too.
    links: &'static [&'static str],
    /// How long it takes on two idle cores, from nothing.
    estimate: Duration,
}

const TARGETS: [Target; 2] = [
    Target {
        triple: "aarch64-unknown-linux-gnu",
        builds_std: false,
        links: &[],
        estimate: Duration::from_secs(300),
    },
    Target {
        triple: "aarch64-apple-darwin",
        builds_std: true,
        links: &[
            "aegisctl",
            "aegisd",
            "aegis-shim",
            "aegis-vmm",
            "aegis-image",
            "aegis-gateway",
        ],
        estimate: Duration::from_secs(300),
    },
];

/// How long the programs of a target take to build.
const BUILD_ESTIMATE: Duration = Duration::from_secs(300);

/// Checks every target, and links what is to be.
pub(crate) fn run() -> Result<()> {
    let tools = Tools::fetch()?;
    for target in &TARGETS {
        let what = format!("Checking for {}", target.triple);
        let mut check = tools.cargo(target, "check");
        step(&what, target.estimate, || succeed(check.arg("--workspace")))?;
        println!("{}: all of it compiles", target.triple);
        if !target.links.is_empty() {
            tools.link(target)?;
        }
    }
    println!("Nothing of it was run.");
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

    /// Links the programs of a target and looks at them.
    fn link(&self, target: &Target) -> Result<()> {
        let what = format!("Building programs for {}", target.triple);
        let mut build = self.cargo(target, "build");
        build.arg("--bins");
        for package in target.links {
            build.args(["--package", package]);
        }
        step(&what, BUILD_ESTIMATE, || succeed(&mut build))?;
        for program in target.links {
            let folder = self.target_dir.join(target.triple).join("debug");
            macho::expect_executable(&folder.join(program))?;
            println!("{}: {program} is linked", target.triple);
        }
        Ok(())
    }

    /// A command of cargo for a target. Debug information is left out: it would be
    /// gigabytes that nobody looks at.
    fn cargo(&self, target: &Target, command: &str) -> Command {
        let mut cargo = Command::new(&self.zigbuild);
        cargo.current_dir(cache::repository()).arg(command);
        if target.builds_std {
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        let frameworks = cache::repository().join("xtask/frameworks");
        cargo
            .args(["--locked", "--quiet", "--target", target.triple])
            // The sources of the library need it, of this compiler and no other.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", &self.rustc)
            .env("CARGO_ZIGBUILD_ZIG_PATH", &self.zig)
            .env("CARGO_TARGET_DIR", &self.target_dir)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            // What is left of it after that is not stripped: rustc would want a program for it.
            .env("CARGO_PROFILE_DEV_STRIP", "none")
            .env("CARGO_INCREMENTAL", "0")
            // It would be taken instead of the next one.
            .env_remove("RUSTFLAGS")
            .env(
                "CARGO_TARGET_AARCH64_APPLE_DARWIN_RUSTFLAGS",
                format!("-Lframework={}", frameworks.display()),
            );
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
