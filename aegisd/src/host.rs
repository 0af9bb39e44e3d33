//! What aegisd finds around it: directories, programs, the user of its units.
//! Read once at the start, before there is any state.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use aegis_core::layout::{Layout, LayoutError, Mode, Surroundings};

/// The user that VM and daemon units run as in system mode (sysusers.d).
const UNIT_USER: &str = "aegis";

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
    /// Folders with kit manifests, the winning one first.
    pub kit_dirs: Vec<PathBuf>,
    /// Folders where the programs of kits are looked for, in this order.
    pub program_dirs: Vec<PathBuf>,
    /// The units' user where it is not aegisd's own.
    pub unit_owner: Option<Owner>,
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
        Ok(Self {
            kit_dirs: kit_dirs(&layout, prefix),
            program_dirs: program_dirs(&layout, surroundings.home.as_deref(), &libexec, prefix),
            guest_dir,
            libexec,
            layout,
            unit_owner,
        })
    }

    /// A program of ours.
    pub fn program(&self, name: &str) -> PathBuf {
        self.libexec.join(name)
    }
}

/// The user's own first, then the administrator's, then what packages brought.
fn kit_dirs(layout: &Layout, prefix: &Path) -> Vec<PathBuf> {
    let shared = |prefix: &Path| prefix.join("share/aegisvm/kits");
    unique([
        layout.kits(),
        "/etc/aegis/kits".into(),
        shared(prefix),
        shared(Path::new("/home/linuxbrew/.linuxbrew")),
        shared(Path::new("/opt/homebrew")),
        shared(Path::new("/usr/local")),
        shared(Path::new("/usr")),
    ])
}

/// The user's own first, then ours, then the administrator's and the search path.
fn program_dirs(
    layout: &Layout,
    home: Option<&Path>,
    libexec: &Path,
    prefix: &Path,
) -> Vec<PathBuf> {
    let own = home.filter(|_| layout.mode == Mode::User);
    let own = own
        .into_iter()
        .flat_map(|home| [home.join(".local/bin"), home.join("bin")]);
    let installed: [PathBuf; 6] = [
        libexec.into(),
        prefix.join("lib/aegisvm"),
        "/usr/lib/aegisvm".into(),
        "/usr/local/bin".into(),
        "/home/linuxbrew/.linuxbrew/bin".into(),
        "/opt/homebrew/bin".into(),
    ];
    let search = env::var_os("PATH").unwrap_or_default();
    let search = env::split_paths(&search).filter(|path| path.is_absolute());
    let first = std::iter::once(layout.config.join("bin"));
    unique(
        first
            .chain(own)
            .chain(installed)
            .chain(search)
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
