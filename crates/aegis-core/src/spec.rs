//! The instance spec: what a user asked for, kept in the registry.
//!
//! It is made once, at creation, from the kit's defaults with the user's own
//! values on top, and stays as it was made: a kit that changes later does not
//! change instances that exist.

mod program;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::daemon::InstanceDaemon;
use crate::idle::IdlePolicy;
use crate::image::PinnedImage;
use crate::label::{self, LabelError, Labels};
use crate::limits::{LimitError, ResourceLimits};
use crate::network::{self, AllowedHost, Network, NetworkError};
use crate::platform::Platform;
use crate::port::PortMapping;
use crate::restart::RestartPolicy;
use crate::secret::{Delivery, SecretSource};
use crate::volume::{self, Volume, VolumeError};

pub(crate) use program::MAX_PATH;
pub use program::{MAX_PROGRAM, MAX_WORD, validate_env, validate_env_name, validate_program};

/// Least memory of a guest in MiB: below it the kernel and the harness do not fit.
pub const MIN_MEMORY_MIB: u32 = 64;
/// Most memory of a guest in MiB (1 TiB): a guard against slips of a unit.
pub const MAX_MEMORY_MIB: u32 = 1024 * 1024;
/// Memory of a guest in MiB where nobody said otherwise.
pub const DEFAULT_MEMORY_MIB: u32 = 256;
/// Size of an instance's writable layer in MiB where nobody said otherwise. The file
/// is sparse: this is what the guest may write at most, not what is taken at once.
pub const DEFAULT_DISK_MIB: u32 = 8 * 1024;
/// Least size of it: an ext4 file system with its journal and something to write.
pub const MIN_DISK_MIB: u32 = 16;
/// Most of it (16 TiB, what ext4 with blocks of 4 KiB holds).
pub const MAX_DISK_MIB: u32 = 16 * 1024 * 1024;
/// Most exposed ports. Each has a connection to the owner of its VM while it is used.
pub const MAX_PORTS: usize = 128;
/// Most virtual CPUs: CONFIG_NR_CPUS of the guest kernel.
pub const MAX_CPUS: u32 = 64;

/// Everything a user decided about an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent wishes, not a state"
)]
pub struct InstanceSpec {
    /// The kit it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kit: Option<KitRef>,
    /// The image reference; empty means the built-in base image.
    #[serde(default)]
    pub image: String,
    /// The image that the reference meant when the instance was made; `None` for the
    /// built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<PinnedImage>,
    /// In place of the image's entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The command the guest runs after boot; empty means none.
    #[serde(default)]
    pub command: Vec<String>,
    /// It runs on a terminal that clients attach to.
    #[serde(default)]
    pub terminal: bool,
    /// What follows its end.
    #[serde(default)]
    pub restart: RestartPolicy,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets. They win over `env`; the values are not here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretSource>,
    /// How it gets those values.
    #[serde(default)]
    pub delivery: Delivery,
    /// Where the command starts; `None` means the image's choice, else `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// `NAME|UID[:GROUP|GID]`; `None` means the image's choice, else root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    #[serde(default)]
    pub accel: Accel,
    /// What its programs are built for.
    #[serde(default)]
    pub platform: Platform,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// What of the host it sees beside the workspace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Most that the guest may write to its disk, in MiB; `None` means
    /// [`DEFAULT_DISK_MIB`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u32>,
    /// The root is read-only.
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// When it falls asleep while nobody needs it.
    #[serde(default)]
    pub idle: IdlePolicy,
    #[serde(default)]
    pub network: Network,
    /// What it reaches beside public addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<AllowedHost>,
    /// What the user noted on it.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Limits on the host's resources that the user set.
    #[serde(default)]
    pub limits: ResourceLimits,
    /// The capability token's fields, as the kit or the user gave them.
    #[serde(default)]
    pub capabilities: serde_json::Value,
    /// The instance daemons, expanded from the kit.
    #[serde(default)]
    pub daemons: Vec<InstanceDaemon>,
    /// Programs of the host that are added to the image, as the kit declared them.
    #[serde(default)]
    pub inject: Vec<PathBuf>,
    /// Files that the kit puts into the workspace.
    #[serde(default)]
    pub files: Vec<WorkspaceFile>,
    /// Lives for one command and leaves nothing behind.
    #[serde(default)]
    pub ephemeral: bool,
    /// Run without the sandbox where the host forbids it.
    #[serde(default)]
    pub insecure: bool,
}

impl Default for InstanceSpec {
    fn default() -> Self {
        Self {
            kit: None,
            image: String::new(),
            pinned: None,
            entrypoint: None,
            command: Vec::new(),
            terminal: false,
            restart: RestartPolicy::No,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            delivery: Delivery::Guest,
            workdir: None,
            user: None,
            memory_mib: DEFAULT_MEMORY_MIB,
            cpus: 1,
            accel: Accel::Auto,
            platform: Platform::HOST,
            workspace: None,
            volumes: Vec::new(),
            disk_mib: None,
            read_only: false,
            ports: Vec::new(),
            idle: IdlePolicy::default(),
            network: Network::Open,
            allowed_hosts: Vec::new(),
            labels: Labels::new(),
            limits: ResourceLimits::default(),
            capabilities: serde_json::Value::Null,
            daemons: Vec::new(),
            inject: Vec::new(),
            files: Vec::new(),
            ephemeral: false,
            insecure: false,
        }
    }
}

/// The kit an instance was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KitRef {
    pub name: String,
    pub version: String,
}

/// A file that a kit puts into the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceFile {
    /// Relative to the workspace.
    pub path: PathBuf,
    /// Written at creation where there is no file; `None` means not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// The fastest that proves to work on this host.
    #[default]
    Auto,
    /// Linux KVM.
    Kvm,
    /// macOS Hypervisor.framework.
    Hvf,
    /// QEMU's own translator; works everywhere, slowly.
    Tcg,
}

/// A shared folder at `/workspace` in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workspace {
    /// A folder of the user's, absolute.
    Path(PathBuf),
    /// A folder of ours, made at first use.
    Named(String),
}

/// Why a value of a spec is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("the memory of {0} MiB is outside {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB")]
    Memory(u32),
    #[error("the disk of {0} MiB is outside {MIN_DISK_MIB} to {MAX_DISK_MIB} MiB")]
    Disk(u32),
    #[error("the disk of {before} MiB cannot become one of {mib} MiB: a disk only grows")]
    DiskShrinks { before: u32, mib: u32 },
    #[error("an ephemeral instance has no command of its own; it is given one by exec")]
    EphemeralCommand,
    #[error("the number of CPUs is {0}, outside 1 to {MAX_CPUS}")]
    Cpus(u32),
    #[error("'{0}' is not an accelerator; known are auto, kvm, hvf and tcg")]
    Accel(String),
    #[error("the environment variable name '{0}' must not be empty or hold '=' or NUL")]
    EnvName(String),
    #[error("the value of the environment variable '{0}' holds a NUL")]
    EnvValue(String),
    #[error("an argument of the command holds a NUL")]
    Argument,
    #[error("the command's first word is empty")]
    EmptyCommand,
    #[error("a word of the command or its environment has {0} bytes; at most {MAX_WORD} can be")]
    WordTooLong(usize),
    #[error(
        "the command and its environment have {0} bytes together; at most {MAX_PROGRAM} can be"
    )]
    ProgramTooLong(usize),
    #[error("the working directory '{0}' is not an absolute path")]
    Workdir(String),
    #[error("the working directory holds a NUL or has more than {MAX_PATH} bytes")]
    WorkdirText,
    #[error("the user '{0}' is not NAME or UID, alone or with :GROUP or :GID")]
    User(String),
    #[error(
        "the workspace '{0}' is neither an absolute path nor a name of letters, digits, '.', '_' and '-'"
    )]
    Workspace(String),
    #[error("the host address {0} is exposed twice")]
    DuplicatePort(std::net::SocketAddr),
    #[error("{0} ports are more than the {MAX_PORTS} that an instance can expose")]
    Ports(usize),
    #[error(transparent)]
    Label(#[from] LabelError),
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl InstanceSpec {
    /// The command with what the image has to say of it; empty means none. The one of
    /// an ephemeral instance comes with its exec.
    pub fn full_command(&self) -> Vec<String> {
        match self.ephemeral {
            true => Vec::new(),
            false => self.command_of(&self.command),
        }
    }

    /// The command that these words are on top of the image.
    pub fn command_of(&self, words: &[String]) -> Vec<String> {
        match &self.pinned {
            None => [self.entrypoint.as_deref().unwrap_or_default(), words].concat(),
            Some(image) => image.command(self.entrypoint.as_deref(), words),
        }
    }

    /// Checks every value that types do not already hold.
    ///
    /// # Errors
    /// The first value that is not acceptable.
    pub fn validate(&self) -> Result<(), SpecError> {
        validate_memory(self.memory_mib)?;
        validate_cpus(self.cpus)?;
        if let Some(mib) = self.disk_mib
            && !(MIN_DISK_MIB..=MAX_DISK_MIB).contains(&mib)
        {
            return Err(SpecError::Disk(mib));
        }
        let (workdir, user) = (self.workdir.as_deref(), self.user.as_deref());
        validate_program(&self.command, &self.env, workdir, user)?;
        if let Some(entrypoint) = &self.entrypoint {
            validate_program(entrypoint, &BTreeMap::new(), None, None)?;
        }
        label::validate(&self.labels)?;
        self.limits.validate()?;
        volume::validate(&self.volumes, self.workspace.is_some())?;
        network::validate(&self.allowed_hosts)?;
        self.secrets
            .keys()
            .try_for_each(|name| validate_env_name(name))?;
        if self.ports.len() > MAX_PORTS {
            return Err(SpecError::Ports(self.ports.len()));
        }
        for (index, port) in self.ports.iter().enumerate() {
            if self.ports[..index]
                .iter()
                .any(|other| other.host == port.host)
            {
                return Err(SpecError::DuplicatePort(port.host));
            }
        }
        Ok(())
    }
}

/// Checks the memory of a guest, in MiB.
///
/// # Errors
/// It is too little or too much.
pub fn validate_memory(mib: u32) -> Result<(), SpecError> {
    if (MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&mib) {
        return Ok(());
    }
    Err(SpecError::Memory(mib))
}

/// Checks a number of virtual CPUs.
///
/// # Errors
/// There are none, or too many.
pub fn validate_cpus(cpus: u32) -> Result<(), SpecError> {
    if (1..=MAX_CPUS).contains(&cpus) {
        return Ok(());
    }
    Err(SpecError::Cpus(cpus))
}

impl FromStr for Accel {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "hvf" => Ok(Self::Hvf),
            "tcg" => Ok(Self::Tcg),
            other => Err(SpecError::Accel(other.to_owned())),
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Hvf => "hvf",
            Self::Tcg => "tcg",
        })
    }
}

impl FromStr for Workspace {
    type Err = SpecError;

    /// An absolute path is a folder of the user's, anything else a name.
    fn from_str(text: &str) -> Result<Self, SpecError> {
        if text.starts_with('/') {
            return Ok(Self::Path(text.into()));
        }
        match volume::check_name(text) {
            Ok(()) => Ok(Self::Named(text.to_owned())),
            Err(_) => Err(SpecError::Workspace(text.to_owned())),
        }
    }
}

impl fmt::Display for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_acceptable() {
        InstanceSpec::default().validate().unwrap();
    }

    #[test]
    fn every_bad_value_is_named() {
        let spec = InstanceSpec {
            memory_mib: 1,
            ..Default::default()
        };
        assert_eq!(spec.validate(), Err(SpecError::Memory(1)));
        let spec = InstanceSpec {
            cpus: 0,
            ..Default::default()
        };
        assert_eq!(spec.validate(), Err(SpecError::Cpus(0)));
        let spec = InstanceSpec {
            command: vec!["a\0".into()],
            ..Default::default()
        };
        assert_eq!(spec.validate(), Err(SpecError::Argument));
        let spec = InstanceSpec {
            env: [("A=B".into(), "x".into())].into(),
            ..Default::default()
        };
        assert_eq!(spec.validate(), Err(SpecError::EnvName("A=B".into())));
        let spec = InstanceSpec {
            workdir: Some("tmp".into()),
            ..Default::default()
        };
        assert_eq!(spec.validate(), Err(SpecError::Workdir("tmp".into())));
        let port = |text: &str| text.parse::<PortMapping>().unwrap();
        let spec = InstanceSpec {
            ports: vec![port("80:1"), port("80:2")],
            ..Default::default()
        };
        assert!(matches!(spec.validate(), Err(SpecError::DuplicatePort(_))));
        let many = (1..=200).map(|number| port(&format!("{number}:1")));
        let spec = InstanceSpec {
            ports: many.collect(),
            ..Default::default()
        };
        assert_eq!(spec.validate(), Err(SpecError::Ports(200)));
    }

    #[test]
    fn workspaces_are_paths_or_names() {
        assert_eq!("/data".parse(), Ok(Workspace::Path("/data".into())));
        assert_eq!("data".parse(), Ok(Workspace::Named("data".into())));
        for text in ["", "a/b", "../a", ".hidden", "a b"] {
            assert!(text.parse::<Workspace>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_record_of_an_older_version_is_read() {
        let spec: InstanceSpec = serde_json::from_str(r#"{"memory_mib":128,"cpus":2}"#).unwrap();
        assert_eq!(
            spec,
            InstanceSpec {
                memory_mib: 128,
                cpus: 2,
                ..Default::default()
            }
        );
    }
}
