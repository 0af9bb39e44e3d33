//! Keeping the memory of this process, which secrets pass through, to itself.

use std::io;

/// No core file of this process, and no other program of this user looks into it.
///
/// # Errors
/// The kernel refused.
#[cfg(target_os = "linux")]
pub fn forbid() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// No core file of this process. Other programs of this user cannot look into it in any
/// case: task_for_pid(3) takes root or an entitlement.
///
/// # Errors
/// The kernel refused.
#[cfg(not(target_os = "linux"))]
pub fn forbid() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, none)?)
}
