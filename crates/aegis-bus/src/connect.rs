//! The way to the bus of a mode.
//!
//! The user's bus is looked for where the service manager of this very user puts
//! it, `/run/user/UID/bus`. What the environment says counts only if it belongs
//! to this user: after `su` or `sudo -i` it still names the bus of another one.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aegis_core::layout::Mode;
use zbus::Connection;
use zbus::connection::Builder;

/// Overrides the bus of either mode with a D-Bus address. For tests and for
/// unusual set-ups.
pub const ADDRESS_ENV: &str = "AEGIS_BUS_ADDRESS";

/// Where the system bus listens (D-Bus specification, "Well-known Message Bus Instances").
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// Why there is no connection to the bus.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no service manager runs here: {0}")]
    NoServiceManager(Environment),
    #[error("the user {uid} has no session with the service manager: {path} is missing")]
    NoUserSession { uid: u32, path: PathBuf },
    #[error("the runtime directory {path} belongs to the user {owner}, not to {uid}")]
    ForeignRuntime { path: PathBuf, owner: u32, uid: u32 },
    #[error("no message bus listens on {path}")]
    NoBus { mode: Mode, path: PathBuf },
    #[error("cannot connect to the message bus {address}")]
    Refused {
        address: String,
        #[source]
        source: zbus::Error,
    },
    #[error("cannot look at {path}")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The kind of place a process runs in, as far as it explains a missing service
/// manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    Container,
    Wsl,
    Plain,
}

impl std::fmt::Display for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Container => "this is a container without systemd",
            Self::Wsl => "this WSL distribution was started without systemd",
            Self::Plain => "systemd is not the init of this system",
        })
    }
}

impl ConnectError {
    /// The error's symbol, as `--json` and the exit reason show it.
    pub fn symbol(&self) -> &'static str {
        match self {
            Self::NoServiceManager(_) => "SupervisorUnavailable",
            Self::NoUserSession { .. } | Self::ForeignRuntime { .. } => "NoUserSession",
            Self::NoBus { .. } | Self::Refused { .. } | Self::Unreadable { .. } => "NoBus",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoServiceManager(Environment::Container) => {
                "run a container whose init is systemd; ./demo in the source tree boots one"
                    .to_owned()
            }
            Self::NoServiceManager(Environment::Wsl) => {
                "set systemd=true under [boot] in /etc/wsl.conf, then run: wsl --shutdown"
                    .to_owned()
            }
            Self::NoServiceManager(Environment::Plain) => {
                "AegisVM needs systemd 252 or newer; ./demo in the source tree boots one".to_owned()
            }
            Self::NoUserSession { uid, .. } | Self::ForeignRuntime { uid, .. } => format!(
                "log in as that user (su and sudo do not make a session), or let its service \
                 manager run without one: sudo loginctl enable-linger {uid}"
            ),
            Self::NoBus {
                mode: Mode::User, ..
            } => "install the package dbus-user-session and log in again".to_owned(),
            Self::NoBus {
                mode: Mode::System, ..
            } => "start it: systemctl start dbus.socket".to_owned(),
            Self::Refused { .. } | Self::Unreadable { .. } => {
                "check who owns the socket, and the bus: systemctl status dbus (--user)".to_owned()
            }
        }
    }
}

/// Connects to the bus of a mode.
///
/// # Errors
/// Says which of service manager, session and bus is missing.
pub async fn connect(mode: Mode) -> Result<Connection, ConnectError> {
    connect_as(mode, |builder| builder).await
}

/// The same, with a say in the connection before it reads its first message.
///
/// # Errors
/// Those of [`connect`].
pub async fn connect_as(
    mode: Mode,
    set_up: impl FnOnce(Builder<'static>) -> Builder<'static>,
) -> Result<Connection, ConnectError> {
    let address = match std::env::var(ADDRESS_ENV) {
        Ok(address) => address,
        Err(_) => address(mode)?,
    };
    let connection = set_up(Builder::address(address.as_str())).build().await;
    connection.map_err(|source| ConnectError::Refused { address, source })
}

/// The runtime directory of this user: `$XDG_RUNTIME_DIR` if it belongs to this
/// user, else `/run/user/UID`.
///
/// # Errors
/// Says that neither is there, or whose the first one is if the second is missing.
pub fn runtime_dir() -> Result<PathBuf, ConnectError> {
    let inherited = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    choose_runtime_dir(
        inherited.as_deref(),
        Path::new("/run/user"),
        nix::unistd::geteuid().as_raw(),
    )
}

fn choose_runtime_dir(
    inherited: Option<&Path>,
    base: &Path,
    uid: u32,
) -> Result<PathBuf, ConnectError> {
    let path = base.join(uid.to_string());
    let mut foreign = None;
    for candidate in inherited
        .filter(|inherited| inherited.is_absolute())
        .into_iter()
        .chain([path.as_path()])
    {
        match candidate.metadata() {
            Ok(metadata) if metadata.uid() == uid => return Ok(candidate.to_owned()),
            Ok(metadata) => foreign = foreign.or(Some((candidate.to_owned(), metadata.uid()))),
            // Another user's directory is not even readable.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) => {}
            Err(source) => {
                return Err(ConnectError::Unreadable {
                    path: candidate.to_owned(),
                    source,
                });
            }
        }
    }
    Err(match foreign {
        Some((path, owner)) => ConnectError::ForeignRuntime { path, owner, uid },
        None => ConnectError::NoUserSession { uid, path },
    })
}

fn address(mode: Mode) -> Result<String, ConnectError> {
    // sd_booted(3)
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(ConnectError::NoServiceManager(environment()));
    }
    let path = match mode {
        Mode::System => PathBuf::from(SYSTEM_BUS),
        Mode::User => runtime_dir()?.join("bus"),
    };
    match path.try_exists() {
        Ok(true) => Ok(unix_address(&path)),
        Ok(false) => Err(ConnectError::NoBus { mode, path }),
        Err(source) => Err(ConnectError::Unreadable { path, source }),
    }
}

/// A D-Bus address, escaped as the D-Bus specification, "Server Addresses", wants it.
fn unix_address(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut address = String::from("unix:path=");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_/.\\*".contains(&byte) {
            address.push(char::from(byte));
        } else {
            address.push_str(&format!("%{byte:02x}"));
        }
    }
    address
}

fn environment() -> Environment {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if release.to_ascii_lowercase().contains("microsoft") {
        return Environment::Wsl;
    }
    let marked = ["/run/.containerenv", "/.dockerenv"]
        .iter()
        .any(|path| Path::new(path).exists());
    if marked || std::env::var_os("container").is_some() {
        return Environment::Container;
    }
    Environment::Plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_directory_of_this_user_wins() {
        let base = tempfile::tempdir().unwrap();
        let own = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        assert_eq!(
            choose_runtime_dir(Some(own.path()), base.path(), uid).unwrap(),
            own.path()
        );
        std::fs::create_dir(base.path().join(uid.to_string())).unwrap();
        assert_eq!(
            choose_runtime_dir(Some(Path::new("/nonexistent")), base.path(), uid).unwrap(),
            base.path().join(uid.to_string())
        );
    }

    #[test]
    fn a_directory_of_another_user_is_never_used() {
        let base = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw() + 1;
        let error = choose_runtime_dir(Some(base.path()), base.path(), uid).unwrap_err();
        assert!(
            matches!(error, ConnectError::ForeignRuntime { owner, .. } if owner == uid - 1),
            "{error}"
        );
        let error = choose_runtime_dir(None, base.path(), uid).unwrap_err();
        assert!(
            matches!(error, ConnectError::NoUserSession { .. }),
            "{error}"
        );
    }

    #[test]
    fn addresses_are_escaped() {
        assert_eq!(
            unix_address(Path::new("/run/user/1000/bus")),
            "unix:path=/run/user/1000/bus"
        );
        assert_eq!(unix_address(Path::new("/a b,c")), "unix:path=/a%20b%2cc");
    }
}
