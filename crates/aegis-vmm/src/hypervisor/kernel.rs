//! Which kernel a guest boots.
//!
//! | platform | own | on | fallback | on |
//! |---|---|---|---|---|
//! | `linux/amd64` | `vmlinux`, an ELF file with a PVH entry | microvm | `fallback/vmlinuz` | q35 |
//! | `linux/arm64` | `Image` | virt | – | – |
//!
//! The project's own kernel has everything built in. Where it is not installed yet, a
//! distribution's kernel with its modules in the initramfs serves, on a machine with
//! PCI since distributions have virtio-mmio without command-line devices; it boots
//! several times slower. On virt it would do so too, and a guest that is translated,
//! as most of arm64 are on other hosts, would take minutes: there is none.

use std::fmt;
use std::path::{Path, PathBuf};

use aegis_core::platform::Platform;

use super::{LaunchError, MachineType};

/// A kernel and the initramfs that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestKernel {
    platform: Platform,
    kind: KernelKind,
    image: PathBuf,
    initramfs: PathBuf,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelKind {
    /// The project's own.
    Own,
    /// A distribution's.
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
    /// The best kernel in a folder with the guest's files for a platform.
    ///
    /// # Errors
    /// When there is no kernel, or one without its initramfs.
    pub fn find(guest_dir: &Path, platform: Platform) -> Result<Self, LaunchError> {
        let own = Some((KernelKind::Own, platform.kernel()));
        let fallback = fallback(platform).map(|name| (KernelKind::Fallback, name));
        let mut known = [own, fallback].into_iter().flatten();
        let found = known.find_map(|(kind, name)| {
            let image = guest_dir.join(name);
            image.is_file().then_some((kind, image))
        });
        let Some((kind, image)) = found else {
            return Err(LaunchError::KernelMissing {
                platform,
                dir: guest_dir.to_owned(),
            });
        };
        let initramfs = image.with_file_name("initramfs");
        if !initramfs.is_file() {
            return Err(LaunchError::InitramfsMissing { kernel: image });
        }
        Ok(Self {
            platform,
            kind,
            image,
            initramfs,
        })
    }

    pub fn kind(&self) -> KernelKind {
        self.kind
    }

    /// What programs it runs.
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// The machine this kernel can drive.
    pub fn machine(&self) -> MachineType {
        match (self.platform, self.kind) {
            (Platform::Amd64, KernelKind::Own) => MachineType::Microvm,
            (Platform::Amd64, KernelKind::Fallback) => MachineType::Q35,
            (Platform::Arm64, _) => MachineType::Virt,
        }
    }

    /// The kernel's file.
    pub fn image(&self) -> &Path {
        &self.image
    }

    pub fn initramfs(&self) -> &Path {
        &self.initramfs
    }
}

/// The file of a distribution's kernel.
fn fallback(platform: Platform) -> Option<&'static str> {
    match platform {
        Platform::Amd64 => Some("fallback/vmlinuz"),
        Platform::Arm64 => None,
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
        let find = || GuestKernel::find(dir.path(), Platform::Amd64);
        fs::create_dir(dir.path().join("fallback")).unwrap();

        let missing = find().unwrap_err();
        assert!(
            matches!(missing, LaunchError::KernelMissing { .. }),
            "{missing}"
        );

        touch("fallback/vmlinuz");
        let half = find().unwrap_err();
        assert!(
            matches!(half, LaunchError::InitramfsMissing { .. }),
            "{half}"
        );

        touch("fallback/initramfs");
        let fallback = find().unwrap();
        assert_eq!(
            (fallback.kind(), fallback.machine()),
            (KernelKind::Fallback, MachineType::Q35)
        );

        touch("vmlinux");
        touch("initramfs");
        let own = find().unwrap();
        assert_eq!(
            (own.kind(), own.machine()),
            (KernelKind::Own, MachineType::Microvm)
        );
        assert_eq!(own.initramfs(), dir.path().join("initramfs"));
    }

    #[test]
    fn no_platform_boots_the_kernel_of_another() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["vmlinux", "initramfs"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        let missing = GuestKernel::find(dir.path(), Platform::Arm64).unwrap_err();
        assert!(missing.to_string().contains("linux/arm64"), "{missing}");
        fs::write(dir.path().join("Image"), b"").unwrap();
        let kernel = GuestKernel::find(dir.path(), Platform::Arm64).unwrap();
        assert_eq!(kernel.machine(), MachineType::Virt);
        assert_eq!(kernel.image(), dir.path().join("Image"));
    }
}
