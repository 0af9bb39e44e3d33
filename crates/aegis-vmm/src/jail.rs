//! The jail: how QEMU, the file server and the network's programs are started, and what
//! they can reach.
//!
//! A guest that breaks out of QEMU finds itself in new user, mount, PID, network,
//! IPC and UTS namespaces: no network but an unconfigured loopback, no process
//! but itself, no capability, and a file system of a read-only tmpfs with the
//! program, its libraries and firmware and what [`View`] names. Everything else it
//! works with came as a descriptor. It cannot get new privileges, leaves no core
//! file, and is killed with the thread that started it, whatever happens to us.
//!
//! passt, which is there for the network, keeps ours and may confine itself further
//! ([`Confinement::Outbound`]).
//!
//! Without a jail ([`Confinement::Open`]: the user's explicit choice, and all there is
//! on macOS) only the namespaces and the view are left out.
//!
//! | | `linux` | `darwin` |
//! |---|---|---|
//! | a process is made by | clone(2) | `posix_spawn(2)` |
//! | a jail | namespaces | [none](IS_THERE) |
//! | dies with us by | the kernel: with the thread that started it | launchd: with the job whose group it is in |

#[cfg(not(target_os = "linux"))]
mod darwin;
#[cfg(target_os = "linux")]
mod linux;
mod step;
mod view;

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;

#[cfg(not(target_os = "linux"))]
use darwin as system;
#[cfg(target_os = "linux")]
use linux as system;
pub use step::Step;
pub use view::{Access, Bind, View};

/// Whether this system has a jail at all.
pub const IS_THERE: bool = system::IS_THERE;

/// The number of a program's first passed descriptor; 0 to 2 are the usual ones.
pub const FIRST_DESCRIPTOR: RawFd = 3;

/// A program to start. Its environment is empty.
#[derive(Debug)]
pub struct Program {
    /// Absolute, without links.
    pub path: PathBuf,
    /// Without the program's own name.
    pub args: Vec<String>,
    /// Standard input; `None` means /dev/null.
    pub input: Option<OwnedFd>,
    /// Become [`FIRST_DESCRIPTOR`] and following; every other one is closed.
    pub descriptors: Vec<OwnedFd>,
    /// Standard output and error.
    pub output: OwnedFd,
    /// Capabilities to hold inside the program's own user namespace, as bits by
    /// number (capabilities(7)). They mean nothing outside of it.
    pub capabilities: u64,
}

/// What a program can reach.
#[derive(Debug)]
pub enum Confinement {
    Jailed(View),
    /// The same, but in our network namespace, and the program may make one user
    /// namespace to confine itself further.
    Outbound(View),
    Open,
}

/// Why a process could not be started in its jail.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    #[error("cannot make new namespaces")]
    Namespaces(#[source] Errno),
    #[error("cannot {step} for the jail")]
    Step {
        step: Step,
        #[source]
        source: Errno,
    },
    #[error("there is no jail on this system, and {0} is not started without one")]
    NotHere(PathBuf),
    #[error("cannot prepare the jail")]
    Prepare(#[source] io::Error),
    #[error("the path {0:?} holds a NUL")]
    Path(PathBuf),
}

impl JailError {
    /// Whether the host forbids the namespaces a jail is made of: none may be made
    /// (EPERM, ENOSPC and EUSERS of clone(2)), or what is made has no privileges
    /// in itself (AppArmor's restriction of unprivileged user namespaces).
    pub fn is_forbidden(&self) -> bool {
        match self {
            Self::Namespaces(errno) => {
                matches!(
                    errno,
                    Errno::EPERM | Errno::ENOSPC | Errno::EUSERS | Errno::EINVAL
                )
            }
            Self::Step { step, source } => {
                matches!(step, Step::MapUser | Step::DetachMounts | Step::MountRoot)
                    && matches!(source, Errno::EPERM | Errno::EACCES)
            }
            Self::NotHere(_) | Self::Prepare(_) | Self::Path(_) => false,
        }
    }
}

/// Starts a program and returns its PID once it executes. Blocks for some 10 ms.
///
/// The program is killed when the calling thread ends, so the caller keeps the
/// thread and waits for the child on it.
///
/// # Errors
/// The step that failed; no process is left.
pub fn spawn(program: &Program, confinement: &Confinement) -> Result<Pid, JailError> {
    system::spawn(program, confinement)
}

/// The program's own name and its arguments, as system calls take them.
fn arguments(program: &Program) -> Result<Vec<CString>, JailError> {
    std::iter::once(c_path(&program.path))
        .chain(program.args.iter().map(|arg| c_path(Path::new(arg))))
        .collect()
}

fn c_path(path: &Path) -> Result<CString, JailError> {
    CString::new(OsString::from(path).into_vec()).map_err(|_| JailError::Path(path.to_owned()))
}
