//! What aegisd finds around it: directories, programs, the user of its units.
//! Read once at the start, before there is any state.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use aegis_core::layout::{Layout, LayoutError, Mode, Surroundings};
use aegis_core::tools::{SECURITY, SYSTEMD_CREDS, Tool};

/// The user that VM and daemon units run as in system mode (sysusers.d).
pub(crate) const UNIT_USER: &str = "aegis";

/// Why the surroundings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("cannot tell where things lie")]
    Layout(#[from] LayoutError),
    #[error("there is no runtime directory of this user")]
    Runtime(#[source] Box<aegis_bus::connect::ConnectError>),
    #[error("cannot tell where aegisd itself lies")]
    OwnPath(#[source] io::Error),
    #[error("cannot look up the user '{UNIT_USER}'")]
    User(#[source] nix::Error),
    #[error("there is no user '{UNIT_USER}', which runs the VMs in system mode")]
    NoUser,
}

/// The owner of what units must read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Host {
    pub layout: Layout,
    /// aegis-vmm and aegis-shim lie here.
    pub libexec: PathBuf,
    /// Kernel, initramfs and base image lie here.
    pub guest_dir: PathBuf,
    /// The user's home directory; `None` in system mode, where units have none.
    pub home: Option<PathBuf>,
    /// Folders with kit manifests, the winning one first.
    pub kit_dirs: Vec<PathBuf>,
    /// Folders where the programs of kits are looked for, in this order.
    pub program_dirs: Vec<PathBuf>,
    /// The units' user where it is not aegisd's own.
    pub unit_owner: Option<Owner>,
    /// systemd-creds(1), which seals the key of secrets, where it is installed.
    pub creds: Option<PathBuf>,
    /// security(1), which reaches the keychain that keeps it, on macOS.
    pub keychain: Option<PathBuf>,
}

impl Host {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn from_environment(mode: Mode) -> Result<Self, HostError> {
        let runtime = match mode {
            Mode::System => None,
            Mode::User => Some(
                aegis_bus::connect::runtime_dir()
                    .map_err(|error| HostError::Runtime(Box::new(error)))?,
            ),
        };
        let path = |name| env::var_os(name).map(PathBuf::from);
        let surroundings = Surroundings {
            aegis_home: path("AEGIS_HOME"),
            home: path("HOME"),
            runtime,
        };
        let layout = Layout::new(mode, &surroundings)?;
        let own = env::current_exe().map_err(HostError::OwnPath)?;
        let beside = own.parent().unwrap_or(Path::new("/")).to_owned();
        let libexec = path("AEGIS_LIBEXEC").unwrap_or(beside);
        // PREFIX/libexec/aegisvm
        let prefix = libexec.ancestors().nth(2).unwrap_or(Path::new("/usr"));
        let guest_dir = path("AEGIS_GUEST_DIR").unwrap_or(prefix.join("lib/aegisvm/guest"));
        let unit_owner = match mode {
            Mode::User => None,
            Mode::System => Some(unit_owner()?),
        };
        let home = surroundings.home.filter(|_| mode == Mode::User);
        let homebrew = homebrew(path("HOMEBREW_PREFIX"));
        let search: Vec<PathBuf> = env::var_os("PATH")
            .map(|search| env::split_paths(&search).collect())
            .unwrap_or_default();
        Ok(Self {
            kit_dirs: kit_dirs(&layout, prefix, &homebrew),
            program_dirs: program_dirs(
                &layout,
                home.as_deref(),
                [&libexec, &prefix.join("lib/aegisvm")],
                &homebrew,
                &search,
            ),
            home,
            guest_dir,
            libexec,
            layout,
            unit_owner,
            creds: installed(SYSTEMD_CREDS),
            keychain: installed(SECURITY).filter(|_| cfg!(target_os = "macos")),
        })
    }

    /// A program of ours.
    pub fn program(&self, name: &str) -> PathBuf {
        self.libexec.join(name)
    }
}

/// A program of others, where it is installed.
fn installed(tool: Tool) -> Option<PathBuf> {
    let mut places = tool.places.iter().map(PathBuf::from);
    places.find(|path| path.is_file())
}

/// Where Homebrew may be: where it says, and where it is by default.
fn homebrew(told: Option<PathBuf>) -> Vec<PathBuf> {
    let told = told.filter(|prefix| prefix.is_absolute());
    let usual = ["/opt/homebrew", "/home/linuxbrew/.linuxbrew"].map(PathBuf::from);
    unique(told.into_iter().chain(usual))
}

/// The user's own first, then the administrator's, then what packages brought.
fn kit_dirs(layout: &Layout, prefix: &Path, homebrew: &[PathBuf]) -> Vec<PathBuf> {
    let shared = |prefix: &Path| prefix.join("share/aegisvm/kits");
    let packaged = [Path::new("/usr/local"), Path::new("/usr")];
    unique(
        [layout.kits(), "/etc/aegis/kits".into()]
            .into_iter()
            .chain(packaged.map(shared))
            .chain(homebrew.iter().map(|prefix| shared(prefix)))
            .chain([shared(prefix)]),
    )
}

/// The user's own first, then ours, then the administrator's and the search path.
fn program_dirs(
    layout: &Layout,
    home: Option<&Path>,
    ours: [&Path; 2],
    homebrew: &[PathBuf],
    search: &[PathBuf],
) -> Vec<PathBuf> {
    let own = home
        .into_iter()
        .flat_map(|home| [home.join(".local/bin"), home.join("bin")]);
    let first = std::iter::once(layout.config.join("bin"));
    unique(
        first
            .chain(own)
            .chain(ours.map(Path::to_owned))
            .chain(["/usr/lib/aegisvm".into(), "/usr/local/bin".into()])
            .chain(homebrew.iter().map(|prefix| prefix.join("bin")))
            .chain(search.iter().filter(|path| path.is_absolute()).cloned())
            .chain(["/usr/bin".into()]),
    )
}

fn unique(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !kept.contains(&path) {
            kept.push(path);
        }
    }
    kept
}

fn unit_owner() -> Result<Owner, HostError> {
    let user = nix::unistd::User::from_name(UNIT_USER).map_err(HostError::User)?;
    let user = user.ok_or(HostError::NoUser)?;
    Ok(Owner {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Layout {
        let surroundings = Surroundings {
            aegis_home: None,
            home: Some("/home/alice".into()),
            runtime: Some("/run/user/1000".into()),
        };
        Layout::new(Mode::User, &surroundings).unwrap()
    }

    fn texts(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().filter_map(|path| path.to_str()).collect()
    }

    #[test]
    fn manifests_are_the_users_own_first() {
        let brew = homebrew(Some("/brew".into()));
        assert_eq!(
            texts(&kit_dirs(&alice(), Path::new("/usr/local"), &brew)),
            [
                "/home/alice/.aegis/kits",
                "/etc/aegis/kits",
                "/usr/local/share/aegisvm/kits",
                "/usr/share/aegisvm/kits",
                "/brew/share/aegisvm/kits",
                "/opt/homebrew/share/aegisvm/kits",
                "/home/linuxbrew/.linuxbrew/share/aegisvm/kits",
            ]
        );
        let system = Layout::new(Mode::System, &Surroundings::default()).unwrap();
        let dirs = kit_dirs(&system, Path::new("/usr"), &[]);
        assert_eq!(dirs.first(), Some(&PathBuf::from("/etc/aegis/kits")));
    }

    #[test]
    fn programs_are_searched_in_the_documented_order() {
        let ours = ["/usr/libexec/aegisvm", "/usr/lib/aegisvm"].map(Path::new);
        let search = ["/usr/local/bin", "relative", "/usr/bin"].map(PathBuf::from);
        let home = Path::new("/home/alice");
        let dirs = program_dirs(&alice(), Some(home), ours, &homebrew(None), &search);
        assert_eq!(
            texts(&dirs),
            [
                "/home/alice/.aegis/bin",
                "/home/alice/.local/bin",
                "/home/alice/bin",
                "/usr/libexec/aegisvm",
                "/usr/lib/aegisvm",
                "/usr/local/bin",
                "/opt/homebrew/bin",
                "/home/linuxbrew/.linuxbrew/bin",
                "/usr/bin",
            ]
        );
    }
}
