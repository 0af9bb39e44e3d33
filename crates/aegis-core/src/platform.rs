//! What the programs of a guest are built for.
//!
//! | platform | names of its processor | QEMU | Debian's and Fedora's packages of it |
//! |---|---|---|---|
//! | `linux/amd64` | x86_64, x86-64 | `qemu-system-x86_64` | `qemu-system-x86`, `qemu-system-x86-core` |
//! | `linux/arm64` | aarch64, ARMv8-A | `qemu-system-aarch64` | `qemu-system-arm`, `qemu-system-aarch64-core` |
//!
//! The words are those of OCI's image specification, as podman and docker take them.
//! A guest of the host's own platform may run on its processors, one of another is
//! translated.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Platform {
    #[serde(rename = "linux/amd64")]
    Amd64,
    #[serde(rename = "linux/arm64")]
    Arm64,
}

/// A text that is no platform of guests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a platform of guests; known are linux/amd64 and linux/arm64")]
pub struct PlatformError(String);

impl Platform {
    /// All that there are.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// The one this program was built for.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") {
        Self::Arm64
    } else {
        Self::Amd64
    };

    /// Whether its guests may run on the host's processors.
    pub fn is_host(self) -> bool {
        self == Self::HOST
    }

    /// The architecture in OCI's words, which are Go's and Debian's too.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The architecture as uname(1) and Rust call it.
    pub fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// The name of the QEMU for its guests.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// The packages that QEMU is in: Debian's and Ubuntu's, and Fedora's.
    pub fn qemu_packages(self) -> [&'static str; 2] {
        match self {
            Self::Amd64 => ["qemu-system-x86", "qemu-system-x86-core"],
            Self::Arm64 => ["qemu-system-arm", "qemu-system-aarch64-core"],
        }
    }

    /// The file of the project's own kernel in the folder with the guest's files.
    pub fn kernel(self) -> &'static str {
        match self {
            Self::Amd64 => "vmlinux",
            Self::Arm64 => "Image",
        }
    }

    /// Where the guest's files are: those for the host's own platform in the folder
    /// that was installed, those for another one in a folder of it.
    pub fn guest_dir(self, installed: &Path) -> PathBuf {
        match self.is_host() {
            true => installed.to_owned(),
            false => installed.join(self.machine()),
        }
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self::HOST
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.architecture())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Each may be written with the only variant it has (image-spec, `image-index.md`,
    /// "Platform Variants"); higher ones of amd64 are no platforms of guests.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        match text {
            "linux/amd64" | "linux/amd64/v1" => Ok(Self::Amd64),
            "linux/arm64" | "linux/arm64/v8" => Ok(Self::Arm64),
            other => Err(PlatformError(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_as_they_are_written() {
        for platform in Platform::ALL {
            assert_eq!(platform.to_string().parse(), Ok(platform));
            let json = serde_json::to_string(&platform).unwrap();
            assert_eq!(json, format!("\"{platform}\""));
        }
        assert_eq!("linux/arm64/v8".parse(), Ok(Platform::Arm64));
        for text in [
            "",
            "arm64",
            "linux/",
            "linux/arm64/v9",
            "linux/386",
            "darwin/arm64",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_files_of_another_platform_have_a_folder_of_their_own() {
        let installed = Path::new("/usr/lib/aegisvm/guest");
        for platform in Platform::ALL {
            let folder = platform.guest_dir(installed);
            match platform.is_host() {
                true => assert_eq!(folder, installed),
                false => assert_eq!(folder, installed.join(platform.machine())),
            }
        }
    }
}
