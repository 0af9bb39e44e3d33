//! What an instance daemon must not have: capabilities, a way to gain privileges,
//! and other processes within reach of its signals.
//!
//! The unit's sandbox sees to most of it. This holds where the unit has none
//! (`--insecure`), and adds what systemd cannot: the kernel's Landlock keeps a
//! process from signalling others and from abstract sockets (Linux 6.12).

/// Why the shim would not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivilegeError {
    #[cfg(target_os = "linux")]
    #[error("cannot drop the {set} capabilities")]
    Drop {
        set: &'static str,
        #[source]
        source: caps::errors::CapsError,
    },
    #[cfg(target_os = "linux")]
    #[error("the {set} capabilities are still there after they were dropped: {left}")]
    Left { set: &'static str, left: String },
    #[cfg(target_os = "linux")]
    #[error("cannot give up gaining privileges")]
    NoNewPrivileges(#[source] nix::errno::Errno),
    #[cfg(target_os = "linux")]
    #[error("cannot confine signals with Landlock")]
    Scope(#[source] landlock::RulesetError),
}

/// Gives up everything for this process and what it becomes.
///
/// # Errors
/// The first thing that could not be given up: the daemon must not run then.
#[cfg(target_os = "linux")]
pub(crate) fn give_up() -> Result<(), PrivilegeError> {
    drop_capabilities()?;
    nix::sys::prctl::set_no_new_privs().map_err(PrivilegeError::NoNewPrivileges)?;
    scope().map_err(PrivilegeError::Scope)
}

#[cfg(target_os = "linux")]
fn drop_capabilities() -> Result<(), PrivilegeError> {
    use caps::{CapSet, Capability};

    // Giving up the bounding set takes a capability itself. Whoever lacks it cannot
    // use the set either, once new privileges are ruled out.
    let bounds =
        caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(|source| {
            PrivilegeError::Drop {
                set: "bounding",
                source,
            }
        })?;
    let sets = [
        ("bounding", CapSet::Bounding),
        ("ambient", CapSet::Ambient),
        ("effective", CapSet::Effective),
        ("permitted", CapSet::Permitted),
        ("inheritable", CapSet::Inheritable),
    ];
    for (name, set) in sets.into_iter().skip(usize::from(!bounds)) {
        let failed = |source| PrivilegeError::Drop { set: name, source };
        caps::clear(None, set).map_err(failed)?;
        let left = caps::read(None, set).map_err(failed)?;
        if !left.is_empty() {
            let left = left
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ");
            return Err(PrivilegeError::Left { set: name, left });
        }
    }
    Ok(())
}

/// Kernels without this leave the daemon as the unit's sandbox has it.
#[cfg(target_os = "linux")]
fn scope() -> Result<(), landlock::RulesetError> {
    use landlock::{Ruleset, RulesetAttr, Scope};

    Ruleset::default()
        .scope(Scope::Signal | Scope::AbstractUnixSocket)?
        .create()?
        .restrict_self()
        .map(drop)
}

/// macOS has no capabilities; launchd starts jobs as the user they belong to.
#[cfg(not(target_os = "linux"))]
pub(crate) fn give_up() -> Result<(), PrivilegeError> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use caps::CapSet;

    #[test]
    fn nothing_is_left() {
        // Capabilities belong to a thread, so this one is spoiled and thrown away.
        std::thread::spawn(|| {
            super::give_up().unwrap();
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
                assert!(caps::read(None, set).unwrap().is_empty(), "{set:?}");
            }
        })
        .join()
        .unwrap();
    }
}
