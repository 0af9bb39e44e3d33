//! Why a launch or an operation on a machine failed, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use aegis_core::fault::{Fault, Symbol};
use aegis_core::platform::Platform;
use aegis_core::spec::Accel;

use super::MachineEnd;
use super::binary::{OLDEST_QEMU, Version};
use super::probe::ProbeError;
use super::qmp::QmpError;
use super::system::System;
use crate::egress::EgressError;
use crate::jail::JailError;
use crate::share::ShareError;
use crate::snapshot::stamp::Difference;

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(
        "QEMU for guests of {platform} is not installed: no {program} in {searched}",
        program = .platform.qemu()
    )]
    QemuMissing {
        platform: Platform,
        searched: String,
    },
    #[error("{path} is QEMU {found}, older than {OLDEST_QEMU}, the oldest supported version")]
    QemuTooOld { path: PathBuf, found: Version },
    #[error("there is no kernel for guests of {platform} in {dir}")]
    KernelMissing { platform: Platform, dir: PathBuf },
    #[error("the kernel {kernel} has no initramfs beside it")]
    InitramfsMissing { kernel: PathBuf },
    #[error("the accelerator {0} does not exist on this platform")]
    AccelUnknownHere(Accel),
    #[error(
        "the accelerator {accel} runs no guests of {platform} on a host of {}",
        Platform::HOST
    )]
    AccelForeign { accel: Accel, platform: Platform },
    #[error("the accelerator {accel} does not work on this host")]
    AccelUnusable {
        accel: Accel,
        #[source]
        source: ProbeError,
    },
    #[error("cannot open the disk {path}")]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a plan holds {0} disks, more than there are slots for")]
    TooManyDisks(usize),
    #[error("cannot make a descriptor for QEMU")]
    Descriptor(#[source] io::Error),
    #[error("cannot share files of the host with the guest")]
    Share(#[source] ShareError),
    #[error("cannot make the network of the guest")]
    Network(#[source] EgressError),
    #[error("cannot start {program}")]
    Start {
        program: PathBuf,
        #[source]
        source: JailError,
    },
    #[error("QEMU ended at its start: {0}")]
    Ended(MachineEnd),
    #[error("QEMU does not answer as it should")]
    Qmp(#[source] QmpError),
    #[error("QEMU did not answer within {} s of its start", after.as_secs())]
    Silent { after: Duration },
    #[error("cannot load the state of the machine")]
    Load(#[source] LoadError),
}

/// Why a state that was saved is of no use.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    Differs(Difference),
    #[error("QEMU does not take it")]
    Qmp(#[source] QmpError),
    #[error("QEMU failed at it")]
    Failed,
    #[error("QEMU ended at it: {0}")]
    Ended(MachineEnd),
}

impl LaunchError {
    /// The error as it crosses our process boundary.
    pub fn fault(&self) -> Fault {
        let fault = |symbol| Fault::from_error(symbol, self);
        match self {
            Self::QemuMissing { platform, .. } => {
                let [debian, fedora] = platform.qemu_packages();
                fault(Symbol::QemuMissing).with_hint(format!(
                    "install the package {debian} (Debian, Ubuntu), {fedora} (Fedora) or qemu (Homebrew)"
                ))
            }
            Self::QemuTooOld { .. } => fault(Symbol::QemuTooOld).with_hint(format!(
                "install QEMU {OLDEST_QEMU} or newer: the package qemu-system-x86 of Debian 12 or later"
            )),
            Self::KernelMissing { platform, dir } if !platform.is_host() => {
                let machine = platform.machine();
                let above = dir.parent().unwrap_or(dir).display();
                fault(Symbol::KernelMissing).with_hint(format!(
                    "unpack aegisvm-guest-{machine}-{version}.tar.gz of the release into {above}, or build these files: make kernel guest install",
                    version = env!("CARGO_PKG_VERSION")
                ))
            }
            Self::KernelMissing { .. } => fault(Symbol::KernelMissing)
                .with_hint("install the guest files, or build the kernel with: make kernel"),
            Self::InitramfsMissing { .. } => fault(Symbol::GuestFilesMissing)
                .with_hint("install the guest files again: the initramfs belongs to the kernel"),
            Self::AccelUnknownHere(_) | Self::AccelForeign { .. } => fault(Symbol::AccelUnusable).with_hint("use --accel auto"),
            Self::AccelUnusable { accel, .. } => {
                let fault = fault(Symbol::AccelUnusable);
                if *accel == Accel::Kvm {
                    fault.with_hint(
                        "use --accel auto or tcg; for KVM the user must be able to open /dev/kvm (group kvm) on a machine with working virtualization",
                    )
                } else {
                    fault.with_hint("use --accel auto or tcg")
                }
            }
            Self::Disk { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                fault(Symbol::NoSpace).with_hint("free some space on the disk of the instance")
            }
            Self::Disk { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                fault(Symbol::GuestFilesMissing)
                    .with_hint("install the guest files again, or make the instance anew")
            }
            Self::Share(ShareError::Jail { source, .. }) | Self::Start { source, .. }
                if source.is_forbidden() =>
            {
                fault(Symbol::SandboxUnavailable).with_hint(
                    "allow unprivileged user namespaces (sysctl user.max_user_namespaces above 0; on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0), or start with --insecure",
                )
            }
            Self::Share(error @ (ShareError::Missing { .. } | ShareError::Kind { .. })) => {
                fault(error.symbol()).with_hint("make the folder or file, or name another one")
            }
            Self::Share(error @ ShareError::NoJail) => fault(error.symbol())
                .with_hint(match System::HERE {
                    System::Linux => "allow unprivileged user namespaces, or share one folder alone",
                    System::Darwin => "on macOS a guest has one workspace or one volume: leave the others out",
                }),
            Self::Share(error) => fault(error.symbol()),
            Self::Disk { .. }
            | Self::Start { .. }
            | Self::Ended(_)
            | Self::Qmp(_)
            | Self::Silent { .. }
            | Self::Load(_) => fault(Symbol::QemuFailed),
            Self::TooManyDisks(_) | Self::Descriptor(_) | Self::Network(_) => {
                fault(Symbol::Internal)
            }
        }
    }

    /// Whether trying again without a change of the host is pointless.
    pub fn is_permanent(&self) -> bool {
        !matches!(
            self,
            Self::Ended(_)
                | Self::Qmp(_)
                | Self::Silent { .. }
                | Self::Load(_)
                | Self::Descriptor(_)
                | Self::Network(_)
        )
    }
}

impl From<LaunchError> for Fault {
    fn from(error: LaunchError) -> Self {
        error.fault()
    }
}

/// Why an operation on a machine failed.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("the machine has ended: {0}")]
    Ended(MachineEnd),
    #[error("cannot {operation} the machine")]
    Qmp {
        operation: &'static str,
        #[source]
        source: QmpError,
    },
    #[error("QEMU could not write the state of the machine: {0}")]
    Unsaved(String),
}

impl From<MachineError> for Fault {
    fn from(error: MachineError) -> Self {
        let symbol = match error {
            MachineError::Ended(_) => Symbol::VmEnded,
            MachineError::Qmp { .. } | MachineError::Unsaved(_) => Symbol::QemuFailed,
        };
        Fault::from_error(symbol, &error)
    }
}

/// Why a machine's state is not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveRefusal {
    #[error("files of the host are shared by 9p, whose state cannot be saved")]
    NineP,
    #[error("the state of the accelerator {0} cannot be saved")]
    Accel(Accel),
    #[error("{} is not the QEMU any more that runs, which is {running}", path.display())]
    Replaced { path: PathBuf, running: String },
    #[error("QEMU cannot save the state of the machine: {0}")]
    Blocked(String),
    #[error("QEMU does not say whether it can save the state of the machine")]
    Unknown(#[source] MachineError),
}

impl From<SaveRefusal> for Fault {
    fn from(refusal: SaveRefusal) -> Self {
        let fault = Fault::from_error(Symbol::Unsupported, &refusal);
        match refusal {
            SaveRefusal::NineP => fault.with_hint(
                "make the instance without a workspace and volumes, or use KVM with virtiofsd",
            ),
            SaveRefusal::Replaced { .. } => {
                fault.with_hint("restart the instance, then it runs with the new QEMU")
            }
            SaveRefusal::Accel(_) | SaveRefusal::Blocked(_) | SaveRefusal::Unknown(_) => fault,
        }
    }
}
