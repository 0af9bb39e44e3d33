//! Which kernel a guest boots.
//!
//! The project's own kernel is a PVH vmlinux with everything built in and starts
//! on a microvm. Where it is not installed yet, a distribution's kernel with its
//! modules in the initramfs serves, on a machine with PCI since distributions
//! have virtio-mmio without command-line devices; it boots several times slower.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{LaunchError, MachineType};

/// A kernel and the initramfs that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestKernel {
    /// The project's own.
    Own {
        vmlinux: PathBuf,
        initramfs: PathBuf,
    },
    /// A distribution's.
    Fallback {
        vmlinuz: PathBuf,
        initramfs: PathBuf,
    },
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelKind {
    Own,
    Fallback,
}

impl fmt::Display for KernelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Fallback => "fallback",
        })
    }
}

impl GuestKernel {
    /// The best kernel of a guest directory: `vmlinux` and `initramfs`, else
    /// `fallback/vmlinuz` and `fallback/initramfs`.
    ///
    /// # Errors
    /// When there is no kernel, or one without its initramfs.
    pub fn find(guest_dir: &Path) -> Result<Self, LaunchError> {
        let initramfs_of = |kernel: &Path| {
            let initramfs = kernel.with_file_name("initramfs");
            if initramfs.is_file() {
                Ok(initramfs)
            } else {
                Err(LaunchError::InitramfsMissing {
                    kernel: kernel.to_owned(),
                })
            }
        };
        let vmlinux = guest_dir.join("vmlinux");
        if vmlinux.is_file() {
            let initramfs = initramfs_of(&vmlinux)?;
            return Ok(Self::Own { vmlinux, initramfs });
        }
        let vmlinuz = guest_dir.join("fallback/vmlinuz");
        if vmlinuz.is_file() {
            let initramfs = initramfs_of(&vmlinuz)?;
            return Ok(Self::Fallback { vmlinuz, initramfs });
        }
        Err(LaunchError::KernelMissing {
            dir: guest_dir.to_owned(),
        })
    }

    pub fn kind(&self) -> KernelKind {
        match self {
            Self::Own { .. } => KernelKind::Own,
            Self::Fallback { .. } => KernelKind::Fallback,
        }
    }

    /// The machine this kernel can drive.
    pub fn machine(&self) -> MachineType {
        match self {
            Self::Own { .. } => MachineType::Microvm,
            Self::Fallback { .. } => MachineType::Q35,
        }
    }

    /// The kernel's file.
    pub fn image(&self) -> &Path {
        match self {
            Self::Own { vmlinux, .. } => vmlinux,
            Self::Fallback { vmlinuz, .. } => vmlinuz,
        }
    }

    pub fn initramfs(&self) -> &Path {
        match self {
            Self::Own { initramfs, .. } | Self::Fallback { initramfs, .. } => initramfs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_own_kernel_wins_and_each_needs_its_initramfs() {
        let dir = tempfile::tempdir().unwrap();
        let touch = |name: &str| fs::write(dir.path().join(name), b"").unwrap();
        fs::create_dir(dir.path().join("fallback")).unwrap();

        let missing = GuestKernel::find(dir.path()).unwrap_err();
        assert!(
            matches!(missing, LaunchError::KernelMissing { .. }),
            "{missing}"
        );

        touch("fallback/vmlinuz");
        let half = GuestKernel::find(dir.path()).unwrap_err();
        assert!(
            matches!(half, LaunchError::InitramfsMissing { .. }),
            "{half}"
        );

        touch("fallback/initramfs");
        let fallback = GuestKernel::find(dir.path()).unwrap();
        assert_eq!(
            (fallback.kind(), fallback.machine()),
            (KernelKind::Fallback, MachineType::Q35)
        );

        touch("vmlinux");
        touch("initramfs");
        let own = GuestKernel::find(dir.path()).unwrap();
        assert_eq!(
            (own.kind(), own.machine()),
            (KernelKind::Own, MachineType::Microvm)
        );
        assert_eq!(own.initramfs(), dir.path().join("initramfs"));
    }
}
