//! Why a launch or an operation on a machine failed, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use aegis_core::fault::{Fault, Symbol};
use aegis_core::spec::Accel;

use super::MachineEnd;
use super::binary::{OLDEST_QEMU, Version};
use super::probe::ProbeError;
use super::qmp::QmpError;
use crate::jail::JailError;
use crate::share::ShareError;

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("QEMU is not installed: no {program} in {searched}")]
    QemuMissing {
        program: &'static str,
        searched: String,
    },
    #[error("{path} is QEMU {found}, older than {OLDEST_QEMU}, the oldest supported version")]
    QemuTooOld { path: PathBuf, found: Version },
    #[error("there is no guest kernel in {dir}: neither vmlinux nor fallback/vmlinuz")]
    KernelMissing { dir: PathBuf },
    #[error("the kernel {kernel} has no initramfs beside it")]
    InitramfsMissing { kernel: PathBuf },
    #[error("the accelerator {0} does not exist on this platform")]
    AccelUnknownHere(Accel),
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
}

impl LaunchError {
    /// The error as it crosses our process boundary.
    pub fn fault(&self) -> Fault {
        let fault = |symbol| Fault::from_error(symbol, self);
        match self {
            Self::QemuMissing { .. } => fault(Symbol::QemuMissing).with_hint(
                "install the package qemu-system-x86 (Debian, Ubuntu) or qemu-system-x86-core (Fedora)",
            ),
            Self::QemuTooOld { .. } => fault(Symbol::QemuTooOld).with_hint(format!(
                "install QEMU {OLDEST_QEMU} or newer: the package qemu-system-x86 of Debian 12 or later"
            )),
            Self::KernelMissing { .. } => fault(Symbol::KernelMissing)
                .with_hint("install the guest files, or build the kernel with: make kernel"),
            Self::InitramfsMissing { .. } => fault(Symbol::GuestFilesMissing)
                .with_hint("install the guest files again: the initramfs belongs to the kernel"),
            Self::AccelUnknownHere(_) => fault(Symbol::AccelUnusable).with_hint("use --accel auto"),
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
                .with_hint("allow unprivileged user namespaces, or share one folder alone"),
            Self::Share(error) => fault(error.symbol()),
            Self::Disk { .. }
            | Self::Start { .. }
            | Self::Ended(_)
            | Self::Qmp(_)
            | Self::Silent { .. } => fault(Symbol::QemuFailed),
            Self::TooManyDisks(_) | Self::Descriptor(_) => fault(Symbol::Internal),
        }
    }

    /// Whether trying again without a change of the host is pointless.
    pub fn is_permanent(&self) -> bool {
        !matches!(
            self,
            Self::Ended(_) | Self::Qmp(_) | Self::Silent { .. } | Self::Descriptor(_)
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
}

impl From<MachineError> for Fault {
    fn from(error: MachineError) -> Self {
        let symbol = match error {
            MachineError::Ended(_) => Symbol::VmEnded,
            MachineError::Qmp { .. } => Symbol::QemuFailed,
        };
        Fault::from_error(symbol, &error)
    }
}
