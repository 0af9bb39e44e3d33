//! What the process gives up before it does anything else.
//!
//! It keeps the guest's memory and, later, secrets in its children and itself, so
//! nothing may be written to a core file or read through ptrace(2). It needs no
//! capability: the jail of QEMU begins with a user namespace of its own, inside
//! which the kernel grants a full set (user_namespaces(7)). Only where it runs as
//! user 0 it keeps CAP_SETFCAP, without which the kernel lets nobody map that user
//! into a namespace.

#[cfg(not(target_os = "linux"))]
mod darwin;
#[cfg(target_os = "linux")]
mod linux;

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[cfg(not(target_os = "linux"))]
use darwin as system;
#[cfg(target_os = "linux")]
use linux as system;
pub use system::PrivilegeError;

/// Why the process is not as harmless as it should be.
#[derive(Debug, thiserror::Error)]
pub enum HardeningError {
    #[error("cannot {operation}")]
    System {
        operation: &'static str,
        #[source]
        source: Errno,
    },
    #[error("cannot forbid memory dumps")]
    Dumps(#[source] io::Error),
    #[error("cannot give up privileges")]
    Privileges(#[source] PrivilegeError),
}

/// Gives up capabilities, core files and new privileges. To be called while the
/// process has one thread: capabilities belong to threads.
///
/// # Errors
/// What could not be given up; the process must not go on then.
pub fn apply() -> Result<(), HardeningError> {
    let system = |operation| move |source| HardeningError::System { operation, source };
    aegis_os::dumps::forbid().map_err(HardeningError::Dumps)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(system("forbid core files"))?;
    system::give_up().map_err(HardeningError::Privileges)?;
    allow_all_files().map_err(system("raise the limit of open files"))
}

/// Every connection and exec session takes descriptors; the usual soft limit of
/// 1024 exists for programs that use select(2).
fn allow_all_files() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(MOST_FILES), hard)
}

/// Room for [`crate::ports::MAX_CONNECTIONS`], [`crate::exec::MAX_SESSIONS`] and
/// [`crate::control::MAX_CONNECTIONS`], and as much again.
const MOST_FILES: u64 = 4096;
