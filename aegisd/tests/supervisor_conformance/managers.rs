//! The service managers that the suite is run against.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use aegis_core::layout::{Layout, Mode, Surroundings};
use aegisd::supervisor::launchd::launchctl::Launchctl;
use aegisd::supervisor::launchd::{Launchd, jobs};
use aegisd::supervisor::state::Facts;
use aegisd::supervisor::systemd::Systemd;
use aegisd::supervisor::{Supervisor, UnitId};

/// Names `tests/stand_ins/launchctl.py`.
const STAND_IN: &str = "AEGIS_LAUNCHCTL";

/// The folder of a launchd that is another process's.
const SHARED: &str = "AEGIS_LAUNCHD_FOLDER";

/// The manager, and what belongs to it.
#[derive(Debug)]
pub(crate) enum Manager {
    /// The one this process belongs to.
    Systemd { mode: Mode },
    /// A launchd of the test's own, in this folder: it ends when the folder goes.
    Launchd { folder: PathBuf },
}

impl Manager {
    /// The one that the environment asks for.
    pub(crate) fn of_this_process(test: &str) -> Self {
        let Some(stand_in) = std::env::var_os(STAND_IN) else {
            let mode = Mode::default_for(uid());
            return Self::Systemd { mode };
        };
        let name = format!("{test}.{}", std::process::id());
        let own = || std::env::temp_dir().join("aegis-launchd").join(name);
        let folder = std::env::var_os(SHARED).map_or_else(own, PathBuf::from);
        std::fs::create_dir_all(&folder).expect("make the folder of launchd");
        let script = format!(
            "#!/bin/sh\nLAUNCHD_STAND_IN={} exec /usr/bin/python3 -E -s {} \"$@\"\n",
            folder.join("launchd").display(),
            Path::new(&stand_in).display(),
        );
        let program = folder.join("launchctl");
        let fresh = folder.join(format!("launchctl.{}", std::process::id()));
        // By another process: a child that a test beside this one forks meanwhile would hold
        // a file open that is written here, and it could not be run (ETXTBSY of execve(2)).
        let written = Command::new("/bin/sh")
            .args(["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""])
            .args([fresh.as_os_str(), OsStr::new(&script)])
            .status()
            .expect("write launchctl");
        assert!(written.success(), "write launchctl: {written}");
        std::fs::rename(fresh, program).expect("name launchctl");
        Self::Launchd { folder }
    }

    /// Has a copy of this program use the same manager.
    pub(crate) fn share(&self, copy: &mut Command) {
        if let Self::Launchd { folder } = self {
            copy.env(SHARED, folder);
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        match self {
            Self::Systemd { mode } => {
                let home = std::env::var_os("HOME");
                let surroundings = Surroundings {
                    aegis_home: None,
                    home: home.map(|home| Path::new(&home).join("conformance")),
                    runtime: Some(format!("/run/user/{}", uid()).into()),
                };
                Layout::new(*mode, &surroundings).expect("HOME is set in the machine")
            }
            Self::Launchd { folder } => Layout {
                mode: Mode::User,
                home: folder.join("home"),
                config: folder.join("home"),
                runtime: folder.join("run"),
            },
        }
    }

    /// Another connection to it.
    pub(crate) async fn connect(&self, layout: &Layout) -> Box<dyn Supervisor> {
        match self {
            Self::Systemd { .. } => {
                let systemd = Systemd::connect(layout, uid()).await;
                Box::new(systemd.expect("connect to the manager"))
            }
            Self::Launchd { folder } => {
                let launchctl = Launchctl::at(folder.join("launchctl"));
                let launchd = Launchd::connect(launchctl, layout, shim(), uid(), None).await;
                Box::new(launchd.expect("connect to the stand-in"))
            }
        }
    }

    /// Whether it calls itself what it is.
    pub(crate) fn is_named(&self, facts: &Facts) -> bool {
        match self {
            Self::Systemd { .. } => facts.version >= 252 && facts.name.starts_with("systemd "),
            // No login window: the stand-in has gui/UID only if it is told.
            Self::Launchd { .. } => facts.name == format!("launchd (user/{})", uid()),
        }
    }

    /// Stops a unit as its user would.
    pub(crate) fn stop_by_hand(&self, unit: &UnitId) {
        let mut command = match self {
            Self::Systemd { mode } => {
                let mut command = Command::new("systemctl");
                command.args([&format!("--{mode}"), "stop", &unit.name()]);
                command
            }
            Self::Launchd { folder } => {
                let label = jobs::label(unit).expect("no group");
                let mut command = Command::new(folder.join("launchctl"));
                command.args(["bootout", &format!("user/{}/{label}", uid())]);
                command
            }
        };
        assert!(command.status().expect("run the manager's tool").success());
    }

    /// Has it read all units again from their files; launchd never does.
    pub(crate) fn reload(&self) {
        let Self::Systemd { mode } = self else { return };
        let reload = Command::new("systemctl")
            .args([&format!("--{mode}"), "daemon-reload"])
            .status();
        assert!(reload.expect("run systemctl").success());
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Self::Launchd { folder } = self {
            // What cannot be removed is looked at by people.
            drop(std::fs::remove_dir_all(folder));
        }
    }
}

fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// aegis-shim as it is installed, or as `AEGIS_SHIM` says.
pub(crate) fn shim() -> PathBuf {
    std::env::var_os("AEGIS_SHIM")
        .map_or_else(|| "/usr/libexec/aegisvm/aegis-shim".into(), PathBuf::from)
}
