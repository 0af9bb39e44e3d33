//! The way to aegisd: over the bus of a mode, or to aegisd's own socket where there is
//! no bus.
//!
//! ```text
//!  told a peer? ─yes─► its socket (peer)       a bus is there? ─yes─► bus ──► aegisd
//!        └─no──────────────────────────────────────┘  └─no─► aegisd's socket is there? ─► peer
//! ```
//!
//! The user's bus is looked for where the service manager of this very user puts
//! it, `/run/user/UID/bus`. What the environment says counts only if it belongs
//! to this user: after `su` or `sudo -i` it still names the bus of another one.

mod peer;
mod runtime;

use std::io;
use std::path::{Path, PathBuf};

use aegis_core::layout::{Layout, Mode, Surroundings};
use zbus::Connection;
use zbus::connection::Builder;

/// Overrides the bus of either mode with a D-Bus address. For tests and for
/// unusual set-ups.
pub const ADDRESS_ENV: &str = "AEGIS_BUS_ADDRESS";

/// Overrides the way to aegisd with the D-Bus address of a socket where it speaks D-Bus
/// peer to peer.
pub const PEER_ENV: &str = "AEGIS_PEER_ADDRESS";

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
    #[error("it does not run, and there is no bus that starts it")]
    NoAegisd(Mode),
    #[error("there is no home directory: HOME is not set to an absolute path")]
    NoHome,
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
    /// It has no bus; aegisd has a socket there.
    MacOs,
    Plain,
}

impl std::fmt::Display for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Container => "this is a container without systemd",
            Self::Wsl => "this WSL distribution was started without systemd",
            Self::MacOs => "macOS has launchd, and no message bus",
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
            Self::NoAegisd(_) => "AegisdMissing",
            Self::NoHome => "NoUserSession",
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
            Self::NoServiceManager(Environment::MacOs) => start_hint(Mode::User),
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
            Self::NoAegisd(mode) => start_hint(*mode),
            Self::NoHome => "set HOME to your home directory".to_owned(),
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

/// Connects to aegisd, by the way that the module shows. `peer` is the address of a
/// socket of aegisd's, where the user named one.
///
/// A connection to such a socket ([`Connection::is_bus`] tells) answers for the bus what
/// clients of aegisd ask of one: whether aegisd runs, and that it came or went.
///
/// # Errors
/// Says which of service manager, session, bus and socket is missing.
pub async fn to_aegisd(
    mode: Mode,
    peer: Option<&str>,
    set_up: impl FnOnce(Builder<'static>) -> Builder<'static>,
) -> Result<Connection, ConnectError> {
    let told = std::env::var(ADDRESS_ENV);
    let address = match (peer, told) {
        (Some(peer), _) => return peer::connect(peer, set_up).await,
        (None, Ok(address)) => address,
        (None, Err(_)) => match (address(mode), peer_socket(mode)) {
            (Ok(address), _) => address,
            (Err(_), Some(socket)) => return peer::connect(&unix_address(&socket), set_up).await,
            (Err(missing), None) => return Err(missing),
        },
    };
    let connection = set_up(Builder::address(address.as_str())).build().await;
    connection.map_err(|source| ConnectError::Refused { address, source })
}

/// aegisd's own socket, where it is the way to it: on macOS always, elsewhere if it is there.
fn peer_socket(mode: Mode) -> Option<PathBuf> {
    let surroundings = Surroundings {
        aegis_home: None,
        // Only what lies in the runtime directory is asked for.
        home: Some("/".into()),
        runtime: runtime::directory().ok(),
    };
    let socket = Layout::new(mode, &surroundings).ok()?.peer_socket();
    let is_way = cfg!(target_os = "macos") || socket.exists();
    is_way.then_some(socket)
}

pub use runtime::directory as runtime_dir;

/// How to start an aegisd that no bus starts.
fn start_hint(mode: Mode) -> String {
    let uid = nix::unistd::geteuid();
    match (cfg!(target_os = "macos"), mode) {
        (true, Mode::User) => {
            format!("launchctl kickstart gui/{uid}/org.aegisvm.aegisd starts the one of this user")
        }
        (true, Mode::System) => "sudo launchctl kickstart system/org.aegisvm.aegisd".to_owned(),
        (false, Mode::User) => "systemctl --user start aegisd.service".to_owned(),
        (false, Mode::System) => "systemctl start aegisd.service".to_owned(),
    }
}

fn address(mode: Mode) -> Result<String, ConnectError> {
    if cfg!(target_os = "macos") {
        return Err(ConnectError::NoServiceManager(Environment::MacOs));
    }
    // sd_booted(3)
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(ConnectError::NoServiceManager(environment()));
    }
    let path = match mode {
        Mode::System => PathBuf::from(SYSTEM_BUS),
        Mode::User => runtime::directory()?.join("bus"),
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
    fn addresses_are_escaped() {
        assert_eq!(
            unix_address(Path::new("/run/user/1000/bus")),
            "unix:path=/run/user/1000/bus"
        );
        assert_eq!(unix_address(Path::new("/a b,c")), "unix:path=/a%20b%2cc");
    }
}
