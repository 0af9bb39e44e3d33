//! The suites, and running one of them by cargo-nextest where it is installed,
//! else by `cargo test`.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use aegis_tests::skip;
use anyhow::{Context, Result};

use crate::build::cargo;
use crate::dist;

/// A group of checks with a title and a time of its own.
#[derive(Debug)]
pub(super) struct Suite {
    /// What it is called in the report.
    pub(super) title: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// One check that passes or fails as a whole: arguments of cargo.
    Check(&'static [&'static str]),
    /// The tests beside the code of all crates.
    Crates,
    /// Whether `make dist` packs what is built; the packages' tests take them from there.
    Packages,
    /// System tests, chosen by parts of their names.
    System(Names),
}

/// Which system tests are meant. A test says by its name where it belongs:
/// `..._on_systemd_252`, `system_mode_...`, `..._on_own_kernel_252`; all others are
/// for systemd 257 in user mode.
#[derive(Debug)]
struct Names {
    with: &'static str,
    without: &'static [&'static str],
}

/// All suites, in the order they run in: what fails fast first.
pub(super) const ALL: [Suite; 8] = [
    Suite {
        title: "format",
        kind: Kind::Check(&["fmt", "--all", "--check"]),
    },
    Suite {
        title: "lints",
        kind: Kind::Check(&[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-Dwarnings",
        ]),
    },
    Suite {
        title: "crates",
        kind: Kind::Crates,
    },
    Suite {
        title: "packages are made",
        kind: Kind::Packages,
    },
    Suite {
        title: "system tests, systemd 257, user mode",
        kind: Kind::System(Names {
            with: "",
            without: &["systemd_252", "system_mode", "own_kernel"],
        }),
    },
    Suite {
        title: "system tests, systemd 252, user mode",
        kind: Kind::System(Names {
            with: "systemd_252",
            without: &["system_mode"],
        }),
    },
    Suite {
        title: "system tests, system mode",
        kind: Kind::System(Names {
            with: "system_mode",
            without: &[],
        }),
    },
    Suite {
        title: "system tests, machines with a kernel of their own",
        kind: Kind::System(Names {
            with: "own_kernel",
            without: &[],
        }),
    },
];

impl Suite {
    /// Whether its tests boot guests or enter the shared machines.
    pub(super) fn needs_set_up(&self) -> bool {
        !matches!(self.kind, Kind::Check(_))
    }
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) skipped: u32,
}

impl Counts {
    fn of_one(passed: bool) -> Self {
        Self {
            passed: u32::from(passed),
            failed: u32::from(!passed),
            skipped: 0,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(
            formatter,
            "{passed} passed, {failed} failed, {skipped} skipped"
        )
    }
}

/// Which program runs tests.
#[derive(Clone, Copy, Debug)]
pub(super) enum Runner {
    /// A process and a time limit for each test.
    Nextest,
    /// What every Rust has.
    CargoTest,
}

impl Runner {
    /// Takes cargo-nextest if it is installed. It is not worth the minutes
    /// that installing it from source takes.
    pub(super) fn find() -> Self {
        let found = cargo()
            .args(["nextest", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if found {
            Self::Nextest
        } else {
            Self::CargoTest
        }
    }

    /// Runs a suite; its output goes on to ours.
    pub(super) fn run(self, suite: &Suite) -> Result<Counts> {
        let mut command = cargo();
        match &suite.kind {
            Kind::Check(arguments) => {
                let passed = command
                    .args(*arguments)
                    .status()
                    .context("running cargo")?
                    .success();
                return Ok(Counts::of_one(passed));
            }
            Kind::Packages => {
                let made = dist::packages();
                if let Err(error) = &made {
                    println!("{error:#}");
                }
                return Ok(Counts::of_one(made.is_ok()));
            }
            Kind::Crates => {
                self.command(&mut command);
                if matches!(self, Self::Nextest) {
                    command.args(["--profile", "crates"]);
                }
                command.args(["--workspace", "--exclude", "aegis-tests"]);
            }
            Kind::System(names) => {
                self.command(&mut command);
                command.args(["--package", "aegis-tests"]);
                self.choose(&mut command, names);
            }
        }
        let skips = SkipLog::create()?;
        command.env(skip::LOG_VARIABLE, &skips.path);
        // A failed assertion names its line; a backtrace only buries that.
        command.env("RUST_BACKTRACE", "0");
        for (kind, machines) in [("", super::MACHINES), ("KERNEL_", super::OWN_KERNEL)] {
            for (systemd, name) in machines {
                command.env(format!("AEGIS_MACHINE_{kind}{}", systemd.number()), name);
            }
        }
        let mut counts = self.count(&mut command)?;
        let skipped = skips.reasons()?;
        for reason in &skipped {
            println!("skipped: {reason}");
        }
        let skipped = u32::try_from(skipped.len()).context("more skips than fit a number")?;
        counts.passed = counts.passed.saturating_sub(skipped);
        counts.skipped += skipped;
        Ok(counts)
    }

    fn command(self, command: &mut Command) {
        match self {
            Self::Nextest => command.args(["nextest", "run", "--release", "--no-tests=pass"]),
            Self::CargoTest => command.args(["test", "--release", "--no-fail-fast"]),
        };
    }

    fn choose(self, command: &mut Command, names: &Names) {
        match self {
            Self::Nextest => {
                let mut filter = format!("test(/{}/)", names.with);
                for part in names.without {
                    filter += &format!(" - test(/{part}/)");
                }
                command.args(["--filterset", &filter]);
            }
            Self::CargoTest => {
                command.arg("--").arg(names.with);
                for part in names.without {
                    command.args(["--skip", part]);
                }
            }
        }
    }

    /// Passes the runner's report on, and reads its sums from it: nextest
    /// reports on standard error, cargo test on standard output.
    fn count(self, command: &mut Command) -> Result<Counts> {
        match self {
            Self::Nextest => command.stderr(Stdio::piped()),
            Self::CargoTest => command.stdout(Stdio::piped()),
        };
        let mut child = command.spawn().context("running cargo")?;
        let report: Box<dyn std::io::Read> = match self {
            Self::Nextest => Box::new(child.stderr.take().context("cargo has no standard error")?),
            Self::CargoTest => Box::new(
                child
                    .stdout
                    .take()
                    .context("cargo has no standard output")?,
            ),
        };
        let mut counts = Counts::default();
        for line in BufReader::new(report).split(b'\n') {
            let line = line.context("reading cargo's report")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            counts += self.sums(&line);
        }
        let status = child.wait().context("waiting for cargo")?;
        if !status.success() && counts.failed == 0 {
            // It did not compile, or was killed: no test says so.
            counts.failed = 1;
        }
        Ok(counts)
    }

    /// The sums in a line of the report; zero for other lines. nextest calls
    /// tests of other suites skipped, so its own skips are not counted.
    fn sums(self, line: &str) -> Counts {
        let before = |word: &str| number_before(line, word);
        match self {
            Self::Nextest if line.trim_start().starts_with("Summary [") => Counts {
                passed: before("passed"),
                failed: before("failed") + before("timed out") + before("exec failed"),
                skipped: 0,
            },
            Self::CargoTest if line.starts_with("test result:") => Counts {
                passed: before("passed"),
                failed: before("failed"),
                skipped: before("ignored"),
            },
            _ => Counts::default(),
        }
    }
}

/// The number that stands before `word`, or 0.
fn number_before(line: &str, word: &str) -> u32 {
    let before = line
        .split_once(&format!(" {word}"))
        .map_or("", |(before, _)| before);
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Where tests write why they skipped themselves.
struct SkipLog {
    path: PathBuf,
}

impl SkipLog {
    fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("aegis-skips-{}", std::process::id()));
        fs::write(&path, "").with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { path })
    }

    fn reasons(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.path)
            .with_context(|| format!("reading {}", self.path.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for SkipLog {
    fn drop(&mut self) {
        // A leftover in /tmp harms nobody, and a drop can report to nobody.
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_from_both_reports() {
        let nextest = "     Summary [   6.8s] 7/11 tests run: 5 passed (1 slow), 1 failed, 1 timed out, 4 skipped";
        let counts = Runner::Nextest.sums(nextest);
        assert_eq!((counts.passed, counts.failed, counts.skipped), (5, 2, 0));
        let plain = "     Summary [   9.0s] 11 tests run: 11 passed, 0 skipped";
        assert_eq!(Runner::Nextest.sums(plain).passed, 11);
        let cargo = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        let counts = Runner::CargoTest.sums(cargo);
        assert_eq!((counts.passed, counts.failed, counts.skipped), (5, 2, 1));
    }
}
