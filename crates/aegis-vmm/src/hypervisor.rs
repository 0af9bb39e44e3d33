//! Hypervisors: what starts a guest and holds its machine.
//!
//! The VM's owner is the only caller. It makes a [`MachinePlan`], launches it and
//! holds the [`Machine`]; the guest's own answers arrive on the link, which the
//! machine only carries. One implementation exists, [`qemu::Qemu`], and
//! [`fake::Fake`] stands in for it where a test needs no guest.
//!
//! ```text
//!             launch                    quit, kill, the guest's own reset,
//!  MachinePlan ─────► Machine: running  death of the process
//!       │                │  ▲  ───────────────────────► MachineEnd
//!       │           pause▼  │resume
//!       └─── launch ─►  paused ──save──► its state
//!     with a state
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`qemu`] | the order of a launch and the running QEMU |
//! | [`argv`] | QEMU's command line: machine, devices, descriptors |
//! | [`layers`], [`gpt`] | the layers of an image as one disk with partitions |
//! | [`cmdline`], [`tsc`] | the guest kernel's command line and the clock it names |
//! | [`kernel`] | which kernel: the project's own or a distribution's |
//! | [`accel`], [`probe`] | which accelerator: the cache and the trial start |
//! | [`binary`] | where QEMU is and which version |
//! | [`system`] | what of that differs between Linux and macOS |
//! | [`process`] | a child in its jail: its end and its last words |
//! | [`qmp`] | the machine protocol client |
//! | [`error`] | why a launch failed |

pub mod accel;
pub mod argv;
pub mod binary;
pub mod cmdline;
pub mod error;
pub mod fake;
pub mod gpt;
pub mod kernel;
pub mod layers;
pub mod probe;
pub mod process;
pub mod qemu;
pub mod qmp;
pub mod system;
pub mod tsc;

use std::fmt;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use aegis_core::fault::Symbol;
use aegis_core::idle::Activity;
use aegis_core::spec::Accel;
use tokio::sync::watch;

use crate::snapshot::stamp::Stamp;
pub use error::{LaunchError, LoadError, MachineError, SaveRefusal};
pub use kernel::GuestKernel;

use crate::egress::{NetworkPlan, NetworkState};

/// Everything a hypervisor needs to start one guest. Consumed by the launch: a
/// second try needs new descriptors, so a new plan.
#[derive(Debug)]
pub struct MachinePlan {
    pub kernel: GuestKernel,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs, at least 1.
    pub cpus: u32,
    pub accel: Accel,
    /// In the order the guest sees them; at most [`MAX_DISKS`].
    pub disks: Vec<DiskPlan>,
    /// All on one device, by their numbers in this order.
    pub shares: Vec<SharePlan>,
    /// Our peer holds the other end of this connected stream socket pair; the
    /// guest sees it as the virtio-serial port `org.aegisvm.link`.
    pub link: OwnedFd,
    /// The network of the guest; `None` means that it has no device for one.
    pub network: Option<NetworkPlan>,
    /// The guest's console is written here: the write end of a pipe that somebody
    /// keeps reading (a full pipe stops the guest's console), or a file.
    pub console: OwnedFd,
    /// An existing directory that is private to this VM. Files of a launch are made
    /// here, and the folder `jail`, on which jails mount their roots; it stays, and
    /// may be removed once the machine has ended.
    pub scratch: PathBuf,
    /// Run without a jail where the host forbids one. The user's explicit choice.
    pub insecure: bool,
    /// The state that the machine begins in, instead of at its kernel.
    pub incoming: Option<Incoming>,
}

/// The state of a machine that was saved.
#[derive(Debug)]
pub struct Incoming {
    /// [`MachineFacts::stamp`] of the machine it was saved of.
    pub stamp: Stamp,
    /// What [`Machine::save`] wrote comes out of this pipe, and then its end.
    pub state: OwnedFd,
}

/// Most disks of a guest: the slot budget of [`argv`].
pub const MAX_DISKS: usize = 3;

/// A disk.
#[derive(Debug)]
pub struct DiskPlan {
    pub image: DiskImage,
    /// How the guest finds it, under `/sys/block/*/serial`.
    pub serial: DiskSerial,
}

/// What is on a disk.
#[derive(Debug)]
pub enum DiskImage {
    /// A file in raw format.
    Raw { path: PathBuf, read_only: bool },
    /// Read-only partitions.
    Layers(layers::LayerDisk),
}

/// The serial number of a virtio disk, a fixed name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskSerial {
    /// The read-only base image, or the layers of another one as partitions.
    Base,
    /// The programs of a kit, read-only, above the base image.
    Kit,
    /// The writable layer.
    Upper,
}

impl fmt::Display for DiskSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Kit => "kit",
            Self::Upper => "upper",
        })
    }
}

/// A file or folder of the host on the device that the guest mounts by [`SHARE_TAG`].
#[derive(Clone, Debug)]
pub struct SharePlan {
    /// Links in a folder are followed by the guest alone.
    pub path: PathBuf,
    pub read_only: bool,
    /// What a fault about it is called.
    pub symbol: Symbol,
}

/// The mount tag of the share, for virtiofs and 9p alike.
pub const SHARE_TAG: &str = "share";

/// How a share is carried into the guest. The guest must be told which to mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareKind {
    Virtiofs,
    /// `trans=virtio,version=9p2000.L`.
    NineP,
}

/// Which machine the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineType {
    /// virtio-mmio, no ACPI, no PCI.
    Microvm,
    /// A PC with PCI Express, for kernels without virtio-mmio.
    Q35,
    /// Arm's: virtio-mmio by the device tree, no ACPI, PSCI as the way out.
    Virt,
}

impl fmt::Display for MachineType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Microvm => "microvm",
            Self::Q35 => "q35",
            Self::Virt => "virt",
        })
    }
}

/// What a machine turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineFacts {
    /// Never [`Accel::Auto`].
    pub accel: Accel,
    pub machine: MachineType,
    pub kernel: kernel::KernelKind,
    /// Of the running process, e.g. `10.0.2 (Debian 1:10.0.2+ds-2)`.
    pub version: String,
    pub share: Option<ShareKind>,
    /// Whether the hypervisor runs in its jail. Without one the device of the share is
    /// the one folder that is shared.
    pub jailed: bool,
    /// What a state of this machine depends on.
    pub stamp: Stamp,
}

/// Starts guests.
pub trait Hypervisor {
    type Machine: Machine;

    /// Starts the guest and returns once the machine runs; the guest may not have
    /// executed anything yet. With a state it returns once all of that is loaded, and
    /// the machine is paused. A future that is dropped leaves nothing behind.
    ///
    /// # Errors
    /// Why there is no machine; nothing of it is left.
    fn launch(
        &self,
        plan: MachinePlan,
    ) -> impl Future<Output = Result<Self::Machine, LaunchError>> + Send;
}

/// A running guest's machine. Dropping it kills the guest.
pub trait Machine: Send + Sync {
    fn facts(&self) -> &MachineFacts;

    /// The process that executes the guest, in our PID namespace.
    fn pid(&self) -> u32;

    /// What it has used since it was started.
    fn activity(&self) -> impl Future<Output = Result<Activity, MachineError>> + Send;

    /// Follows whether the guest has its network; `None` where it is to have none.
    fn network_state(&self) -> Option<watch::Receiver<NetworkState>>;

    /// Stops the virtual CPUs. A paused machine stays so without an error.
    fn pause(&self) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Lets the virtual CPUs run on. A running machine stays so without an error.
    fn resume(&self) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Why the machine's state cannot be saved, as things are, or could not be loaded
    /// again.
    fn can_save(&self) -> impl Future<Output = Result<(), SaveRefusal>> + Send;

    /// Writes the state of a paused machine, its memory included, into a pipe, and its
    /// end. The machine can run on afterwards, and after a failure; resuming it ends a
    /// save whose future was dropped.
    fn save(&self, to: OwnedFd) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Waits for the end. May be called at any time, by several at once and after
    /// the end; cancelling it loses nothing.
    fn wait(&self) -> impl Future<Output = MachineEnd> + Send;

    /// Ends the machine without the guest's consent and waits for the end: asks
    /// the hypervisor, then kills it.
    fn quit(&self) -> impl Future<Output = MachineEnd> + Send;
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineEnd {
    pub cause: EndCause,
    /// The last words of the hypervisor, at most
    /// [`process::LAST_WORDS`] bytes; for error messages, often empty.
    pub last_words: String,
}

/// Why a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// The guest powered off or reset itself: its orderly end, or a panic.
    Guest,
    /// We asked for it.
    Quit,
    /// The process exited by itself with this code.
    Exited(i32),
    /// A signal (signal(7) number) killed the process.
    Signaled(i32),
    /// The file server of the share ended, and with it what the guest sees of the host.
    ShareLost,
}

impl fmt::Display for MachineEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            EndCause::Guest => f.write_str("the guest powered off")?,
            EndCause::Quit => f.write_str("the machine was ended")?,
            EndCause::Exited(code) => write!(f, "the hypervisor exited with code {code}")?,
            EndCause::Signaled(signal) => write!(f, "signal {signal} killed the hypervisor")?,
            EndCause::ShareLost => f.write_str("the file server of the shared folders ended")?,
        }
        match self.last_words.lines().last() {
            Some(line) => write!(f, ": {line}"),
            None => Ok(()),
        }
    }
}
