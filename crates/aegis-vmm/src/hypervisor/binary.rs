//! Where QEMU is and which version it has.
//!
//! A launch does not run `qemu -version`: the running process tells its version
//! in the QMP greeting. The program is only asked where it ended before that, to
//! tell "too old" from other reasons.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use aegis_core::platform::Platform;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::LaunchError;

/// The oldest QEMU the command line of [`super::argv`] is written for: Debian 12's.
pub const OLDEST_QEMU: Version = Version {
    major: 7,
    minor: 2,
    micro: 0,
};

/// Where services look that have no PATH of a login shell.
const DIRECTORIES: [&str; 4] = [
    "/usr/bin",
    "/usr/local/bin",
    "/usr/libexec",
    "/opt/homebrew/bin",
];

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

impl Version {
    /// Reads the first line of `qemu -version`, e.g.
    /// `QEMU emulator version 7.2.9 (Debian 1:7.2+dfsg-7+deb12u5)`.
    pub fn parse(output: &str) -> Option<Self> {
        let line = output.lines().next()?;
        let number = line
            .strip_prefix("QEMU emulator version ")?
            .split([' ', '('])
            .next()?;
        let mut parts = number.split('.').map(|part| {
            let digits = part
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(part.len());
            part[..digits].parse().ok()
        });
        let mut next = || parts.next().flatten();
        Some(Self {
            major: next()?,
            minor: next()?,
            micro: next().unwrap_or(0),
        })
    }
}

/// A QEMU program, as it lies on the disk.
#[derive(Clone, Debug)]
pub struct Binary {
    path: PathBuf,
}

/// What tells one build of QEMU from another without running it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildIdentity {
    path: PathBuf,
    size: u64,
    /// Of the last change of content, nanoseconds since 1970.
    modified_ns: i128,
}

impl Binary {
    /// Finds the QEMU for guests of a platform: `$AEGIS_QEMU`, else `PATH`, else the
    /// usual directories. The variable names the one for guests of the host's own
    /// platform; those for others lie beside it.
    ///
    /// # Errors
    /// [`LaunchError::QemuMissing`].
    pub fn find(platform: Platform) -> Result<Self, LaunchError> {
        Self::find_in(platform, env::var_os("AEGIS_QEMU"), env::var_os("PATH"))
    }

    fn find_in(
        platform: Platform,
        chosen: Option<OsString>,
        path: Option<OsString>,
    ) -> Result<Self, LaunchError> {
        if let Some(chosen) = chosen {
            let chosen = Path::new(&chosen);
            let program = match platform.is_host() {
                true => chosen.to_owned(),
                false => chosen.with_file_name(platform.qemu()),
            };
            return Self::at(&program).ok_or_else(|| LaunchError::QemuMissing {
                platform,
                searched: format!("{}, by AEGIS_QEMU", program.display()),
            });
        }
        let path = path.unwrap_or_default();
        let directories: Vec<PathBuf> = env::split_paths(&path)
            .chain(DIRECTORIES.iter().map(PathBuf::from))
            .collect();
        directories
            .iter()
            .find_map(|dir| Self::at(&dir.join(platform.qemu())))
            .ok_or_else(|| {
                let searched: Vec<String> = directories
                    .iter()
                    .map(|dir| dir.display().to_string())
                    .collect();
                LaunchError::QemuMissing {
                    platform,
                    searched: searched.join(":"),
                }
            })
    }

    /// The program at a path, links resolved, as the jail shows it under its real name.
    fn at(path: &Path) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        path.is_file().then_some(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which build this is; `None` when the file vanished.
    pub fn identity(&self) -> Option<BuildIdentity> {
        let meta = self.path.metadata().ok()?;
        Some(BuildIdentity {
            path: self.path.clone(),
            size: meta.size(),
            modified_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        })
    }

    /// What tells this very file from one that was put in its place; `None` when
    /// nothing is there.
    pub fn file(&self) -> Option<(u64, u64, BuildIdentity)> {
        let meta = self.path.metadata().ok()?;
        Some((meta.dev(), meta.ino(), self.identity()?))
    }

    /// Runs `qemu -version`, some 30 ms; for failed launches only.
    pub async fn ask_version(&self) -> Option<Version> {
        let output = Command::new(&self.path)
            .arg("-version")
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .ok()?;
        Version::parse(&String::from_utf8_lossy(&output.stdout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_debian_releases_and_candidates_are_read() {
        let parse = |text| Version::parse(text).map(|version| version.to_string());
        assert_eq!(
            parse("QEMU emulator version 7.2.9 (Debian 1:7.2+dfsg-7+deb12u5)\nCopyright").unwrap(),
            "7.2.9"
        );
        assert_eq!(
            parse("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)").unwrap(),
            "10.0.2"
        );
        assert_eq!(parse("QEMU emulator version 9.1").unwrap(), "9.1.0");
        assert_eq!(parse("QEMU emulator version 8.2.0-rc1").unwrap(), "8.2.0");
        for text in ["", "bash: no", "QEMU emulator version x.y"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn old_and_new_versions_compare_as_numbers() {
        let version = |major, minor| Version {
            major,
            minor,
            micro: 0,
        };
        assert!(version(7, 1) < OLDEST_QEMU);
        assert!(version(10, 0) > OLDEST_QEMU);
    }

    #[test]
    fn a_program_that_was_replaced_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qemu");
        std::fs::write(&path, b"one").unwrap();
        let binary = Binary::at(&path).unwrap();
        let was = binary.file();
        assert!(was.is_some());
        assert_eq!(was, binary.file());
        std::fs::write(dir.path().join("new"), b"two").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert_ne!(was, binary.file());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(binary.file(), None);
    }

    #[test]
    fn a_missing_qemu_names_where_was_looked() {
        let find = |platform| {
            let chosen = Some("/nonexistent/qemu".into());
            Binary::find_in(platform, chosen, None)
                .unwrap_err()
                .to_string()
        };
        for platform in Platform::ALL {
            let error = find(platform);
            assert!(error.contains(platform.qemu()), "{error}");
            assert!(error.contains("/nonexistent/qemu"), "{error}");
        }
    }
}
