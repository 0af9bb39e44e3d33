//! aegisd as a process: from the command line to the end.
//!
//! ```text
//!  folders, lock ─► name is free ─► service manager ─► registry ─► engine ─► sockets
//!      ─► bus with objects ─► name ─► READY
//! ```
//!
//! The name comes last: who finds aegisd on the bus finds all of it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aegis_bus::connect::{self, ConnectError};
use aegis_core::fault::Symbol;
use aegis_core::layout::Mode;
use rustix::fs::{FlockOperation, flock};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::api;
use crate::bus::{self, Gate, ServeError, Service};
use crate::credentials;
use crate::effects;
use crate::engine::{Engine, EngineError};
use crate::host::{Host, HostError, UNIT_USER};
use crate::registry::{Registry, RegistryError};
use crate::sockets::{SocketError, Sockets};
use crate::supervisor::launchd::Launchd;
use crate::supervisor::launchd::jobs::UnitUser;
use crate::supervisor::launchd::launchctl::Launchctl;
use crate::supervisor::systemd::Systemd;
use crate::supervisor::{Supervisor, SupervisorError};

/// Between two looks at a registry that cannot be used, growing from the first to
/// the last.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LAST_LOOK: Duration = Duration::from_secs(30);

/// Why aegisd ends other than asked to.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("this host cannot run aegisd")]
    Host(#[from] HostError),
    #[error("cannot make the folder {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another aegisd runs already: it holds {0}")]
    Running(PathBuf),
    #[error("cannot lock {path}")]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no message bus")]
    Bus(#[source] Box<ConnectError>),
    #[error("there is no service manager")]
    Supervisor(#[from] SupervisorError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("aegisd has not all of its sockets")]
    Sockets(#[from] SocketError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("the connection to the message bus broke")]
    Lost(#[source] Option<zbus::Error>),
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

impl DaemonError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Bus(error) => Some(error.hint()),
            Self::Host(HostError::Runtime(error)) => Some(error.hint()),
            Self::Host(HostError::NoUser) => {
                Some("make it: systemd-sysusers, or install the package again".to_owned())
            }
            Self::Supervisor(_) | Self::Engine(EngineError::Supervisor(_)) => {
                Some("AegisVM needs systemd 252 or newer, see 'aegisctl doctor'".to_owned())
            }
            Self::Running(_) | Self::Serve(ServeError::NameTaken) => {
                Some("'systemctl status aegisd' shows it (--user in user mode)".to_owned())
            }
            _ => None,
        }
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from running.
pub async fn run(mode: Mode) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    let host = Host::from_environment(mode)?;
    aegis_fault_points::arm(&host.layout.home);
    let _lock = lock(&host.layout.runtime)?;
    let no_bus = |error| DaemonError::Bus(Box::new(error));
    let asking = connect::connect(mode).await.map_err(no_bus)?;
    bus::check_name_is_free(&asking).await?;
    drop(asking);
    let uid = rustix::process::geteuid().as_raw();
    let supervisor = supervisor(&host, uid).await?;
    let path = host.layout.registry();
    let registry = open(&path).await;
    let engine = Engine::start(host, supervisor, registry).await?;
    let sockets = Sockets::take(&engine.shared().host.layout)?;
    // Units that are being started wait for these.
    tokio::spawn(credentials::serve(sockets.credentials, engine.clone()));
    tokio::spawn(api::doors::serve(sockets.doors, engine.clone()));
    tokio::spawn(bus::peer::serve(sockets.peers, engine.clone()));
    let service = Service::new(engine.clone(), Gate::of(mode));
    let connection = connect::connect_as(mode, |builder| service.serve(builder));
    let connection = connection.await.map_err(no_bus)?;
    let mut publisher = service.publish(&connection).await?;
    bus::take_name(&connection).await?;
    tell(&[
        NotifyState::Ready,
        NotifyState::Status("Taking care of instances"),
    ]);
    tracing::info!(%mode, version = env!("CARGO_PKG_VERSION"), "ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = prove_life() => {}
        () = registry_heals(&engine, &path) => {
            tracing::info!("the registry can be used again; starting anew with it");
        }
        lost = &mut publisher => return Err(DaemonError::Lost(reason(lost))),
        () = connection.closed() => return Err(DaemonError::Lost(None)),
    }
    tell(&[NotifyState::Stopping]);
    tracing::info!("ending; instances go on without aegisd");
    publisher.abort();
    Ok(())
}

/// The operating system's service manager.
async fn supervisor(host: &Host, uid: u32) -> Result<Arc<dyn Supervisor>, SupervisorError> {
    if !cfg!(target_os = "macos") {
        return Ok(Arc::new(Systemd::connect(&host.layout, uid).await?));
    }
    let launchctl = Launchctl::find().map_err(|error| SupervisorError::Unreachable {
        address: "launchctl".to_owned(),
        source: error.into(),
    })?;
    let user = host.unit_owner.map(|owner| UnitUser {
        name: UNIT_USER.to_owned(),
        uid: owner.uid,
    });
    let shim = host.program("aegis-shim");
    let launchd = Launchd::connect(launchctl, &host.layout, shim, uid, user).await?;
    Ok(Arc::new(launchd))
}

/// Holds off a second aegisd with the same folders, before anything is touched.
fn lock(runtime: &Path) -> Result<File, DaemonError> {
    let path = runtime.join("aegisd.lock");
    effects::make_folders(runtime).map_err(|source| DaemonError::Folder {
        path: runtime.to_owned(),
        source,
    })?;
    let failed = |source| DaemonError::Lock {
        path: path.clone(),
        source,
    };
    let file = effects::keep_file(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DaemonError::Running(path)),
        Err(error) => Err(failed(error.into())),
    }
}

/// Answers the service manager's watchdog, if it watches, for as long as this
/// runtime turns.
async fn prove_life() {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    // Half of it, as sd_watchdog_enabled(3) recommends.
    let mut beat = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
    loop {
        beat.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

async fn open(path: &Path) -> Result<Registry, RegistryError> {
    let path = path.to_owned();
    crate::instance::blocking(move || Registry::open(&path)).await
}

/// Resolves when a registry that could not be used at the start can be: a disk was
/// full, say. The next aegisd, which the service manager starts, works with it.
async fn registry_heals(engine: &Engine, path: &Path) {
    let cause = engine.unusable().map(|fault| fault.symbol);
    if cause.is_none_or(|symbol| symbol == Symbol::RegistryTooNew) {
        return std::future::pending().await;
    }
    let mut delay = FIRST_LOOK;
    loop {
        // Nothing tells of space on a disk.
        tokio::time::sleep(delay).await;
        delay = LAST_LOOK.min(delay * 2);
        if let Ok(registry) = open(path).await
            && registry.load().await.is_ok()
        {
            return;
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot tell the service manager: {error}, ignoring");
    }
}

fn reason(lost: Result<zbus::Result<()>, tokio::task::JoinError>) -> Option<zbus::Error> {
    lost.ok().and_then(Result::err)
}
