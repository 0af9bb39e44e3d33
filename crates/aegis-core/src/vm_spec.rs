//! The VM spec: everything aegis-vmm needs to boot, in one private file.
//!
//! aegisd writes it before the units exist, so a VM can be started by a
//! connection while aegisd is not running.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::credential::Credential;
use crate::handle::Handle;
use crate::idle::{IdlePolicy, Lease};
use crate::network::{AllowedHost, Network};
use crate::platform::Platform;
use crate::port::PortMapping;
use crate::restart::RestartPolicy;
use crate::spec::Accel;
use crate::tether::API_PORT;
use crate::volume::WORKSPACE;

/// What `aegis-vmm --spec FILE` reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts about the VM, not a state"
)]
pub struct VmSpec {
    pub handle: Handle,
    pub memory_mib: u32,
    pub cpus: u32,
    pub accel: Accel,
    /// What its programs are built for, and so its machine.
    #[serde(default)]
    pub platform: Platform,
    /// Where kernel, initramfs and base image of that platform lie.
    pub guest_dir: PathBuf,
    /// The image: a SquashFS file for each of its layers, the lowest first. Without
    /// any the root is the built-in base image.
    #[serde(default)]
    pub layers: Vec<PathBuf>,
    /// No program can write to the root. /run, /tmp, /var/tmp and /dev/shm are memory
    /// then, and `disk` is not used.
    #[serde(default)]
    pub read_only_root: bool,
    /// The writable layer; `None` means memory (ephemeral instances).
    pub disk: Option<Disk>,
    /// Programs of the host that are added to the image's `/usr/bin`.
    #[serde(default)]
    pub inject: Vec<PathBuf>,
    /// The host folder shown at `/workspace`.
    pub workspace: Option<PathBuf>,
    /// What of the host is shown elsewhere.
    #[serde(default)]
    pub volumes: Vec<VmVolume>,
    pub command: Vec<String>,
    /// The Linux signal, 1 to 64, that asks the command to end when the guest is
    /// stopped (STOPSIGNAL of an image). `None` means SIGTERM, which every other
    /// process gets.
    #[serde(default)]
    pub stop_signal: Option<i32>,
    /// The command runs on a terminal that clients attach to.
    #[serde(default)]
    pub terminal: bool,
    /// What follows the end of the command.
    #[serde(default)]
    pub restart: RestartPolicy,
    pub env: BTreeMap<String, String>,
    /// The instance has secrets, so the VM starts only with the unit's credential.
    /// One that has none starts whatever is the matter with them.
    #[serde(default)]
    pub needs_secrets: bool,
    /// The secrets. They come with the unit's credential and are never in the file.
    #[serde(skip)]
    pub credential: Credential,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub ports: Vec<PortMapping>,
    /// When it falls asleep while nobody needs it.
    #[serde(default)]
    pub idle: IdlePolicy,
    /// What it is kept awake for.
    #[serde(default)]
    pub leases: Vec<Lease>,
    #[serde(default)]
    pub network: Network,
    /// What the guest reaches beside public addresses.
    #[serde(default)]
    pub allowed_hosts: Vec<AllowedHost>,
    /// Ends with its only exec session instead of with a command.
    pub ephemeral: bool,
    /// aegisd's socket, to which connections of the guest to the API of its instance are
    /// carried. `None` means that the guest has none.
    #[serde(default)]
    pub aegisd: Option<PathBuf>,
    /// The user allowed running without a jail.
    pub insecure: bool,
    /// The instance's folder: logs and `exit.json` are written there.
    pub dir: PathBuf,
    /// The folder where guests that have just begun are kept for others of their shape.
    /// `None` means that each boots.
    #[serde(default)]
    pub templates: Option<PathBuf>,
    /// The accelerator probe's answer is kept here. `None` means it is not kept.
    pub accel_cache: Option<PathBuf>,
    /// The number of the last change of the instance's settings that is in here.
    #[serde(default)]
    pub revision: u64,
    /// Seconds between SIGTERM and SIGKILL at an orderly stop.
    pub grace_secs: u64,
}

impl VmSpec {
    /// The disk that takes what is written to the root, if there is one.
    pub fn root_disk(&self) -> Option<&Disk> {
        self.disk.as_ref().filter(|_| !self.read_only_root)
    }

    /// Whether nothing of an earlier start is in the guest: what it sees at its start is
    /// what any instance of its shape sees.
    pub fn starts_afresh(&self) -> bool {
        self.root_disk().is_none() && self.workspace.is_none() && self.volumes.is_empty()
    }

    /// Whether programs in the guest find the API of their instance. A port that the
    /// instance exposes is its own.
    pub fn serves_api(&self) -> bool {
        let is_exposed = self.ports.iter().any(|port| port.guest == API_PORT);
        self.aegisd.is_some() && !is_exposed
    }

    /// All that is shown of the host, so that what lies below another target comes
    /// after it.
    pub fn shares(&self) -> Vec<VmVolume> {
        let workspace = self.workspace.as_ref().map(|path| VmVolume {
            source: path.clone(),
            target: WORKSPACE.to_owned(),
            read_only: false,
            filled: false,
        });
        let mut shares: Vec<_> = workspace.into_iter().chain(self.volumes.clone()).collect();
        shares.sort_by(|a, b| a.target.cmp(&b.target));
        shares
    }

    /// Whether the guest can change something on the host that outlives it.
    pub fn writes_to_host(&self) -> bool {
        self.shares().iter().any(|share| !share.read_only)
    }

    /// The environment of whatever runs in the guest, secrets included.
    pub fn full_env(&self) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        let revealed = |(name, value): (&String, &crate::secret::SecretText)| {
            (name.clone(), value.reveal().to_owned())
        };
        env.extend(self.credential.env.iter().map(revealed));
        env
    }
}

/// A file or folder of the host that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmVolume {
    pub source: PathBuf,
    /// Absolute path in the guest.
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
    /// While nothing is in it, it gets what the image has at the target.
    #[serde(default)]
    pub filled: bool,
}

/// A writable layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// A sparse file with an ext4 file system.
    pub path: PathBuf,
    /// Size in bytes. aegis-vmm makes and formats the file if it is missing.
    pub size: u64,
}
