//! The few calls of launchctl(1) that `up`, `down`, `status` and `doctor` need where
//! launchd is the service manager: they are about aegisd's own job, so aegisd cannot do
//! them.
//!
//! Never run on a Mac; the tests run them against `tests/stand_ins/launchctl.py`'s rules.

use std::process::{Command, Stdio};

use aegis_core::layout::Mode;

use crate::failure::Failure;

/// The label of aegisd's own job, `launchd/org.aegisvm.aegisd.plist`.
const LABEL: &str = "org.aegisvm.aegisd";
/// `Could not find service`: nobody documents it; macOS 13 to 15 end with it.
const NOT_FOUND: i32 = 113;

/// launchd, and aegisd's job in it.
#[derive(Debug)]
pub(crate) struct Launchd {
    program: String,
    target: String,
}

impl Launchd {
    /// The one of a mode; `None` where launchd is not the service manager.
    pub(crate) fn of(mode: Mode) -> Option<Self> {
        cfg!(target_os = "macos").then(|| Self {
            program: "/bin/launchctl".to_owned(),
            target: target(mode, nix::unistd::geteuid().as_raw()),
        })
    }

    /// What names aegisd's job to launchctl.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Whether launchd has aegisd's job: then it keeps aegisd running.
    pub(crate) fn has_aegisd(&self) -> Result<bool, Failure> {
        match self.call("print")? {
            (0, _) => Ok(true),
            (NOT_FOUND, _) => Ok(false),
            (code, words) => Err(failed("print", code, words)),
        }
    }

    /// Has launchd start aegisd, unless it runs.
    pub(crate) fn start_aegisd(&self) -> Result<(), Failure> {
        match self.call("kickstart")? {
            (0, _) => Ok(()),
            (NOT_FOUND, _) => Err(Failure::NotLoaded {
                target: self.target.clone(),
            }),
            (code, words) => Err(failed("kickstart", code, words)),
        }
    }

    /// Has launchd end aegisd and forget its job until the next login. Says whether it
    /// had it.
    pub(crate) fn stop_aegisd(&self) -> Result<bool, Failure> {
        match self.call("bootout")? {
            // 36: it is on its way out already.
            (0 | 36, _) => Ok(true),
            (3 | NOT_FOUND, _) => Ok(false),
            (code, words) => Err(failed("bootout", code, words)),
        }
    }

    fn call(&self, command: &'static str) -> Result<(i32, String), Failure> {
        let output = Command::new(&self.program)
            .args([command, &self.target])
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Failure::Io {
                what: "run launchctl",
                source,
            })?;
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok((output.status.code().unwrap_or(-1), words))
    }
}

/// launchd's domain is the user's login window, in system mode the machine.
fn target(mode: Mode, uid: u32) -> String {
    match mode {
        Mode::User => format!("gui/{uid}/{LABEL}"),
        Mode::System => format!("system/{LABEL}"),
    }
}

fn failed(command: &'static str, code: i32, words: String) -> Failure {
    Failure::Launchctl {
        command,
        code,
        words,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A launchctl that ends with this code and says what it was asked.
    fn ending(folder: &tempfile::TempDir, code: i32) -> Launchd {
        let path = folder.path().join(format!("launchctl-{code}"));
        fs::write(&path, format!("#!/bin/sh\necho \"$*\" >&2\nexit {code}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Launchd {
            program: path.display().to_string(),
            target: target(Mode::User, 501),
        }
    }

    #[test]
    fn exit_codes_are_understood() {
        let folder = tempfile::tempdir().unwrap();
        let ended = |code| ending(&folder, code);
        assert!(ended(0).has_aegisd().unwrap());
        assert!(!ended(113).has_aegisd().unwrap());
        assert!(ended(0).stop_aegisd().unwrap());
        assert!(!ended(3).stop_aegisd().unwrap());
        ended(0).start_aegisd().unwrap();
        let failure = ended(113).start_aegisd().unwrap_err();
        assert!(failure.message().contains("gui/501/org.aegisvm.aegisd"));
        assert!(failure.hint().unwrap().contains("launchctl bootstrap"));
        let failure = ended(5).start_aegisd().unwrap_err();
        let message = failure.message();
        assert!(
            message.contains("kickstart gui/501/org.aegisvm.aegisd"),
            "{message}"
        );
        assert_eq!(target(Mode::System, 0), "system/org.aegisvm.aegisd");
    }
}
