//! What a process gives up on Linux: capabilities(7), new privileges.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::geteuid;

/// What could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    #[error("cannot forbid new privileges")]
    NewPrivileges(#[source] Errno),
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

/// Gives them up.
pub(super) fn give_up() -> Result<(), PrivilegeError> {
    prctl::set_no_new_privs().map_err(PrivilegeError::NewPrivileges)?;
    drop_capabilities()
}

fn drop_capabilities() -> Result<(), PrivilegeError> {
    let failed = |operation, set| {
        move |source| PrivilegeError::Capabilities {
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
            return Err(PrivilegeError::Left(set));
        }
    }
    Ok(())
}
