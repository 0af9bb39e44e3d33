//! What the process gives up before it does anything else.
//!
//! It keeps the guest's memory and, later, secrets in its children and itself, so
//! nothing may be written to a core file or read through ptrace(2). It needs no
//! capability: the jail of QEMU begins with a user namespace of its own, inside
//! which the kernel grants a full set (user_namespaces(7)). Only where it runs as
//! user 0 it keeps CAP_SETFCAP, without which the kernel lets nobody map that user
//! into a namespace.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

/// Why the process is not as harmless as it should be.
#[derive(Debug, thiserror::Error)]
pub enum HardeningError {
    #[error("cannot {operation}")]
    System {
        operation: &'static str,
        #[source]
        source: Errno,
    },
    #[error("cannot {operation} the {set:?} capabilities")]
    Capabilities {
        operation: &'static str,
        set: CapSet,
        #[source]
        source: CapsError,
    },
    #[error("capabilities are left in the {0:?} set after all were dropped")]
    Left(CapSet),
}

/// Gives up capabilities, core files and new privileges. To be called while the
/// process has one thread: capabilities belong to threads.
///
/// # Errors
/// What could not be given up; the process must not go on then.
pub fn apply() -> Result<(), HardeningError> {
    let system = |operation| move |source| HardeningError::System { operation, source };
    prctl::set_no_new_privs().map_err(system("forbid new privileges"))?;
    prctl::set_dumpable(false).map_err(system("forbid memory dumps"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(system("forbid core files"))?;
    drop_capabilities()?;
    allow_all_files().map_err(system("raise the limit of open files"))
}

fn drop_capabilities() -> Result<(), HardeningError> {
    let failed = |operation, set| {
        move |source| HardeningError::Capabilities {
            operation,
            set,
            source,
        }
    };
    // The bounding set can only be emptied with CAP_SETPCAP. Without it nothing in
    // that set can be gained either: there are no new privileges any more.
    let may_bound = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)
        .map_err(failed("read", CapSet::Effective))?;
    if may_bound {
        caps::clear(None, CapSet::Bounding).map_err(failed("drop", CapSet::Bounding))?;
    }
    let permitted =
        caps::read(None, CapSet::Permitted).map_err(failed("read", CapSet::Permitted))?;
    let needed = if geteuid().is_root() {
        CapsHashSet::from([Capability::CAP_SETFCAP])
    } else {
        CapsHashSet::new()
    };
    let kept = &permitted & &needed;
    for (set, rest) in [
        (CapSet::Ambient, &CapsHashSet::new()),
        (CapSet::Inheritable, &CapsHashSet::new()),
        (CapSet::Effective, &kept),
        (CapSet::Permitted, &kept),
    ] {
        caps::set(None, set, rest).map_err(failed("drop", set))?;
        if caps::read(None, set).map_err(failed("read", set))? != *rest {
            return Err(HardeningError::Left(set));
        }
    }
    Ok(())
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
