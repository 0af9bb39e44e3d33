//! Where everything lies: one pure map from mode and environment to paths.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::handle::Handle;

/// Whose service manager supervises: the user's own or the system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    User,
    System,
}

impl Mode {
    /// The mode of a process that was not told: system for root, else user.
    pub fn default_for(uid: u32) -> Self {
        if uid == 0 { Mode::System } else { Mode::User }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::User => "user",
            Mode::System => "system",
        })
    }
}

/// The environment that decides where things lie in user mode.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `$AEGIS_HOME`.
    pub aegis_home: Option<PathBuf>,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// `/run/user/UID`, or `$XDG_RUNTIME_DIR` where it belongs to this user.
    pub runtime: Option<PathBuf>,
}

/// What the environment lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("there is no home directory: neither AEGIS_HOME nor HOME is set")]
    NoHome,
    #[error(
        "there is no runtime directory: XDG_RUNTIME_DIR is not set and /run/user/UID is missing"
    )]
    NoRuntime,
    #[error("{name} is '{path}', which is not an absolute path")]
    Relative { name: &'static str, path: PathBuf },
}

/// The directories of one mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub mode: Mode,
    /// Registry, instances, workspaces, volumes: `~/.aegis` or `/var/lib/aegis`.
    pub home: PathBuf,
    /// Kits and their config: `~/.aegis` or `/etc/aegis`.
    pub config: PathBuf,
    /// Sockets: `$XDG_RUNTIME_DIR/aegis` or `/run/aegis`.
    pub runtime: PathBuf,
}

impl Layout {
    /// The directories of a mode.
    ///
    /// # Errors
    /// In user mode, when the environment names no home or no runtime directory.
    pub fn new(mode: Mode, surroundings: &Surroundings) -> Result<Self, LayoutError> {
        if mode == Mode::System {
            return Ok(Self {
                mode,
                home: "/var/lib/aegis".into(),
                config: "/etc/aegis".into(),
                runtime: "/run/aegis".into(),
            });
        }
        let home = match (&surroundings.aegis_home, &surroundings.home) {
            (Some(home), _) => home.clone(),
            (None, Some(home)) => home.join(".aegis"),
            (None, None) => return Err(LayoutError::NoHome),
        };
        let runtime = surroundings
            .runtime
            .as_ref()
            .ok_or(LayoutError::NoRuntime)?;
        for (name, path) in [("AEGIS_HOME", &home), ("XDG_RUNTIME_DIR", runtime)] {
            if !path.is_absolute() {
                return Err(LayoutError::Relative {
                    name,
                    path: path.clone(),
                });
            }
        }
        Ok(Self {
            mode,
            config: home.clone(),
            home,
            runtime: runtime.join("aegis"),
        })
    }

    /// The registry's database.
    pub fn registry(&self) -> PathBuf {
        self.home.join("registry.db")
    }

    /// The folder of manifests and of the instances' daemon config.
    pub fn kits(&self) -> PathBuf {
        self.config.join("kits")
    }

    /// The folder of kits that were installed, each in a folder of its own.
    pub fn installed_kits(&self) -> PathBuf {
        self.home.join("installed")
    }

    /// The daemon config folder of an instance, `~/.aegis/kits/HANDLE`.
    pub fn daemon_config(&self, handle: &Handle) -> PathBuf {
        self.kits().join(handle.as_str())
    }

    /// The folder of all instances.
    pub fn instances(&self) -> PathBuf {
        self.home.join("instances")
    }

    /// The files of one instance.
    pub fn instance(&self, handle: &Handle) -> InstanceFiles {
        InstanceFiles {
            dir: self.instances().join(handle.as_str()),
        }
    }

    /// The images that are here, with their layers.
    pub fn images(&self) -> PathBuf {
        self.home.join("images")
    }

    /// What users of the system mode keep, a folder for each by number.
    pub fn users(&self) -> PathBuf {
        self.home.join("users")
    }

    /// What `keeper` keeps under names: a user of the system mode, else root or the
    /// user whose mode it is.
    pub fn kept_by(&self, keeper: Option<u32>) -> PathBuf {
        match keeper {
            None | Some(0) => self.home.clone(),
            Some(uid) => self.users().join(uid.to_string()),
        }
    }

    /// The folder of all named workspaces of a keeper.
    pub fn workspaces(&self, keeper: Option<u32>) -> PathBuf {
        self.kept_by(keeper).join("workspaces")
    }

    /// The folder of a named workspace.
    pub fn workspace(&self, keeper: Option<u32>, name: &str) -> PathBuf {
        self.workspaces(keeper).join(name)
    }

    /// The folder of all named volumes of a keeper.
    pub fn volumes(&self, keeper: Option<u32>) -> PathBuf {
        self.kept_by(keeper).join("volumes")
    }

    /// The folder of a named volume.
    pub fn volume(&self, keeper: Option<u32>, name: &str) -> PathBuf {
        self.volumes(keeper).join(name)
    }

    /// The answer of the accelerator probe, kept between starts.
    pub fn accel_cache(&self) -> PathBuf {
        self.home.join("accel.json")
    }

    /// Guests that have just begun, kept for others of their shape.
    pub fn templates(&self) -> PathBuf {
        self.home.join("templates")
    }

    /// The folder of an instance's sockets.
    pub fn vm_runtime(&self, handle: &Handle) -> PathBuf {
        self.runtime.join("vm").join(handle.as_str())
    }

    /// The folder of an instance's plain names: links to what has a name that
    /// units cannot carry.
    pub fn names(&self, handle: &Handle) -> PathBuf {
        self.runtime.join("names").join(handle.as_str())
    }

    /// What secrets are encrypted with.
    pub fn secrets_key(&self) -> PathBuf {
        self.home.join("secrets.key")
    }

    /// Where the service manager asks aegisd for the credentials of units.
    pub fn credentials_socket(&self) -> PathBuf {
        self.runtime.join("credentials.sock")
    }

    /// The folder of aegisd's own socket. Doors see this folder and nothing beside
    /// it: a file that is bound by itself would be lost when the socket is made anew.
    pub fn doors(&self) -> PathBuf {
        self.runtime.join("doors")
    }

    /// aegisd's own socket, to which doors bring the sockets they stand for.
    pub fn door_socket(&self) -> PathBuf {
        self.doors().join("aegisd.sock")
    }

    /// Where clients without a bus reach aegisd, by D-Bus peer to peer. It belongs to
    /// the user of aegisd alone, and no unit sees it.
    pub fn peer_socket(&self) -> PathBuf {
        self.runtime.join("bus.sock")
    }

    /// The folder of an instance's API socket, which its daemons see.
    pub fn api_runtime(&self, handle: &Handle) -> PathBuf {
        self.runtime.join("api").join(handle.as_str())
    }

    /// The API socket of an instance's daemons (`AEGIS_SOCKET`).
    pub fn api_socket(&self, handle: &Handle) -> PathBuf {
        self.api_runtime(handle).join("api.sock")
    }

    /// The control socket of an instance's VM.
    pub fn control_socket(&self, handle: &Handle) -> PathBuf {
        self.vm_runtime(handle).join("control.sock")
    }
}

/// The files of one instance, all below one private folder (0700).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceFiles {
    dir: PathBuf,
}

impl InstanceFiles {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What aegis-vmm reads ([`crate::vm_spec::VmSpec`]).
    pub fn vm_spec(&self) -> PathBuf {
        self.dir.join("vm.json")
    }

    /// Which content of their config files the daemons have.
    pub fn applied_config(&self) -> PathBuf {
        self.dir.join("applied.json")
    }

    /// What aegis-shim reads for one daemon ([`crate::daemon_spec::DaemonSpec`]).
    pub fn daemon_spec(&self, daemon: &str) -> PathBuf {
        self.dir.join(format!("daemon-{daemon}.json"))
    }

    /// The writable layer: a sparse ext4 file system.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The output of the instance's command; `.1` is the file before it.
    pub fn command_log(&self) -> PathBuf {
        self.log_dir().join("command.log")
    }

    /// The guest's console; `.1` is the file before it.
    pub fn console_log(&self) -> PathBuf {
        self.log_dir().join("console.log")
    }

    /// The machine of a VM that was hibernated; there is one only while it is.
    pub fn snapshot(&self) -> PathBuf {
        self.dir.join("snapshot")
    }

    /// How the instance's command last ended ([`crate::control::CommandExit`]).
    pub fn exit(&self) -> PathBuf {
        self.dir.join("exit.json")
    }

    /// When somebody last started it ([`crate::control::StartMark`]).
    pub fn start_mark(&self) -> PathBuf {
        self.dir.join("start.json")
    }
}

/// The longest path of a unix socket, in bytes: `sun_path` of unix(7) less its NUL.
pub const MAX_SOCKET_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Surroundings {
        Surroundings {
            aegis_home: None,
            home: Some("/home/alice".into()),
            runtime: Some("/run/user/1000".into()),
        }
    }

    #[test]
    fn user_mode_lies_under_the_home_and_the_runtime_directory() {
        let layout = Layout::new(Mode::User, &user()).unwrap();
        let handle: Handle = "web".parse().unwrap();
        assert_eq!(layout.kits(), Path::new("/home/alice/.aegis/kits"));
        assert_eq!(
            layout.instance(&handle).vm_spec(),
            Path::new("/home/alice/.aegis/instances/web/vm.json")
        );
        assert_eq!(
            layout.control_socket(&handle),
            Path::new("/run/user/1000/aegis/vm/web/control.sock")
        );
    }

    #[test]
    fn aegis_home_wins_and_must_be_absolute() {
        let mut surroundings = user();
        surroundings.aegis_home = Some("/data/aegis".into());
        assert_eq!(
            Layout::new(Mode::User, &surroundings).unwrap().home,
            Path::new("/data/aegis")
        );
        surroundings.aegis_home = Some("aegis".into());
        assert!(matches!(
            Layout::new(Mode::User, &surroundings),
            Err(LayoutError::Relative { .. })
        ));
    }

    #[test]
    fn system_mode_asks_the_environment_nothing() {
        let layout = Layout::new(Mode::System, &Surroundings::default()).unwrap();
        assert_eq!(layout.kits(), Path::new("/etc/aegis/kits"));
    }

    #[test]
    fn the_longest_handle_fits_into_a_socket_path() {
        let mut surroundings = user();
        surroundings.runtime = Some("/run/user/4294967295".into());
        let layout = Layout::new(Mode::User, &surroundings).unwrap();
        let handle: Handle = "x".repeat(63).parse().unwrap();
        assert!(layout.control_socket(&handle).as_os_str().len() <= MAX_SOCKET_PATH);
    }
}
