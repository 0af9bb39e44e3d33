//! The way to the manager: the bus it serves.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aegis_core::layout::Mode;

use crate::supervisor::SupervisorError;

/// How long the manager may take for one answer. It begins jobs and does not wait
/// for them, so it answers in milliseconds, or in seconds while it reads a thousand
/// units again. An answer that is lost would else hold its instance for ever.
const ANSWER: Duration = Duration::from_secs(60);

/// The socket of the bus that the manager of a mode serves.
///
/// It is worked out, not taken from `DBUS_SESSION_BUS_ADDRESS`: after `su` that
/// variable names another user's bus. A user manager owns `/run/user/UID`
/// (pam_systemd(8)).
fn bus_socket(mode: Mode, uid: u32) -> PathBuf {
    match mode {
        Mode::User => format!("/run/user/{uid}/bus").into(),
        Mode::System => "/run/dbus/system_bus_socket".into(),
    }
}

/// Connects to the bus of a mode.
///
/// # Errors
/// [`SupervisorError::Unreachable`] where no bus is served,
/// [`SupervisorError::ForeignBus`] where another user serves it.
pub(super) async fn connect(mode: Mode, uid: u32) -> Result<zbus::Connection, SupervisorError> {
    let path = bus_socket(mode, uid);
    let unreachable = |source| SupervisorError::Unreachable {
        address: path.display().to_string(),
        source,
    };
    let found = std::fs::metadata(&path).map_err(|source| unreachable(source.into()))?;
    if mode == Mode::User && found.uid() != uid {
        return Err(SupervisorError::ForeignBus {
            path,
            owner: found.uid(),
            expected: uid,
        });
    }
    zbus::connection::Builder::address(address(&path).as_str())
        .method_timeout(ANSWER)
        .build()
        .await
        .map_err(|source| unreachable(source.into()))
}

fn address(path: &Path) -> String {
    format!("unix:path={}", path.display())
}

/// Whether the user's manager outlives their logout: what `loginctl enable-linger`
/// leaves (logind.conf(5) has no other record). `None` if the user has no name.
pub(super) fn lingers(uid: u32) -> Option<bool> {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten()?;
    Some(
        std::path::Path::new("/var/lib/systemd/linger")
            .join(user.name)
            .exists(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bus_is_the_users_own_or_the_systems() {
        assert_eq!(
            bus_socket(Mode::User, 1000),
            Path::new("/run/user/1000/bus")
        );
        assert_eq!(
            bus_socket(Mode::System, 0),
            Path::new("/run/dbus/system_bus_socket")
        );
        assert_eq!(
            address(Path::new("/run/user/1000/bus")),
            "unix:path=/run/user/1000/bus"
        );
    }
}
