//! The credential socket: the service manager asks here for the credential of a
//! unit that it starts, and is answered with the secrets of the unit's instance.
//!
//! ```text
//!  executor of a unit ──connect from "\0RANDOM/unit/UNIT/NAME"──► who asks? ──► vault
//!                     ◄── the credential, end of file ──────────────────────────┘
//! ```
//!
//! The executor's address names unit and credential (systemd.exec(5),
//! `LoadCredential=`). Anybody who may connect could use such an address, so the
//! peer's user counts: root in system mode, where the executor runs as root; this
//! user in user mode, which every program of the user is. There the kernel has to tell
//! too that the peer is in the unit's control group, where the manager puts what it
//! starts. What that is worth is in SECURITY.md. The units themselves never reach the
//! socket: their sandbox hides it.
//!
//! launchd asks for nothing: there the process that becomes the VM's owner or the daemon
//! asks for itself ([`aegis_os::credential`]), and is known by the job whose process it is.
//! Jobs are not confined, so this keeps instances' secrets apart by mistake only, not
//! against a program of the user that means harm.
//!
//! A secret that cannot be had is told to the unit, which shows it. A request that
//! is no executor's is refused by closing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::audit::Purpose;
use aegis_core::credential::{self, Credential};
use aegis_core::fault::Fault;
use aegis_core::units::UnitKind;
use aegis_os::sockets::abstract_name;
use rustix::net::{SocketAddrUnix, getpeername};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use zeroize::Zeroizing;

use crate::engine::Engine;
use crate::peer;
use crate::secrets::audit::User;
use crate::sockets;
use crate::supervisor::UnitId;

/// Requests at a time; more wait in the socket's queue. Units of a boot come at once.
const AT_ONCE: usize = 64;
/// How long a peer may take to read its credential.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("cannot tell who asks")]
    Peer(#[source] io::Error),
    #[error("the user {0} asks, not the service manager")]
    User(u32),
    #[error("the address of who asks is not that of a unit's start")]
    Address,
    #[error("a process of {place} asks for {unit}")]
    Place { unit: String, place: String },
    #[error("the credential '{name}' of {unit} is asked for, which there is not")]
    Unknown { unit: String, name: String },
    #[error("a process asks that is no job with a credential: '{0}'")]
    NoUnit(String),
    #[error("cannot answer {unit}")]
    Answer {
        unit: String,
        #[source]
        source: io::Error,
    },
}

/// Answers until aegisd ends.
pub async fn serve(listener: UnixListener, engine: Arc<Engine>) {
    let answer = |stream| answer(stream, engine.clone());
    sockets::serve(listener, "who asks for a credential", AT_ONCE, answer).await;
}

async fn answer(mut stream: UnixStream, engine: Arc<Engine>) -> Result<(), Refusal> {
    let unit = asking_unit(&stream, &engine).await?;
    let credential = match env_for(&engine, &unit).await {
        Ok(credential) => credential,
        Err(fault) => {
            let handle = &unit.handle;
            tracing::error!(instance = %handle, "{} gets no secrets: {fault}", unit.name());
            Credential {
                fault: Some(fault),
                ..Credential::default()
            }
        }
    };
    // A map of strings always is JSON.
    let text = Zeroizing::new(serde_json::to_vec(&credential).unwrap_or_default());
    let written = async {
        stream.write_all(&text).await?;
        stream.shutdown().await
    };
    let written = tokio::time::timeout(PATIENCE, written).await;
    written
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| Refusal::Answer {
            unit: unit.name(),
            source,
        })
}

async fn env_for(engine: &Engine, unit: &UnitId) -> Result<Credential, Fault> {
    let instance = engine
        .get(unit.handle.as_str())
        .map_err(|error| error.fault())?;
    let record = instance.record();
    let vault = &engine.shared().vault;
    let given = vault.give(&record).await;
    let (env, versions) = given.map_err(|error| error.fault())?;
    let snapshot_key = match unit.kind {
        UnitKind::Vm => vault.snapshot_key(&unit.handle).await,
        _ => Ok(None),
    };
    let snapshot_key = snapshot_key.map_err(|error| error.fault())?;
    User {
        purpose: Purpose::Start,
        instance: &unit.handle,
        unit: &unit.name(),
        caller: None,
    }
    .is_given(&record.spec.secrets);
    instance.note_given(unit, versions).await;
    Ok(Credential {
        env,
        snapshot_key,
        fault: None,
    })
}

/// The unit a connection is about, if it is one of ours and the service manager asks, or
/// with launchd the unit itself.
async fn asking_unit(stream: &UnixStream, engine: &Engine) -> Result<UnitId, Refusal> {
    let peer = stream.peer_cred().map_err(Refusal::Peer)?;
    if peer.uid() != rustix::process::geteuid().as_raw() {
        return Err(Refusal::User(peer.uid()));
    }
    let shared = engine.shared();
    let supervisor = &*shared.supervisor;
    if !shared.facts.capabilities.credentials {
        let place = peer::unit(stream, supervisor)
            .await
            .map_err(Refusal::Peer)?;
        let unit = UnitId::parse(&place).filter(has_credential);
        return unit.ok_or(Refusal::NoUnit(place));
    }
    let address = getpeername(stream).map_err(|error| Refusal::Peer(error.into()))?;
    let address = address.and_then(|address| SocketAddrUnix::try_from(address).ok());
    let name = address.as_ref().and_then(abstract_name);
    let text = name.and_then(|name| std::str::from_utf8(name).ok());
    let (unit, name) = text.and_then(parse).ok_or(Refusal::Address)?;
    let known = UnitId::parse(unit).filter(has_credential);
    let known = known.filter(|_| name == credential::NAME);
    let known = known.ok_or_else(|| Refusal::Unknown {
        unit: unit.to_owned(),
        name: name.to_owned(),
    })?;
    // Root needs no such proof, and gives none: its executor may be anywhere.
    if peer.uid() != 0 {
        let place = peer::unit(stream, supervisor)
            .await
            .map_err(Refusal::Peer)?;
        check_place(place, &known)?;
    }
    Ok(known)
}

fn has_credential(unit: &UnitId) -> bool {
    matches!(unit.kind, UnitKind::Vm | UnitKind::Daemon(_))
}

/// Checks that who asks is in the control group of the unit.
fn check_place(place: String, unit: &UnitId) -> Result<(), Refusal> {
    let unit = unit.name();
    match place == unit {
        true => Ok(()),
        false => Err(Refusal::Place { unit, place }),
    }
}

/// Unit and credential of `RANDOM/unit/UNIT/NAME`.
fn parse(address: &str) -> Option<(&str, &str)> {
    let (_, rest) = address.split_once("/unit/")?;
    let (unit, name) = rest.split_once('/')?;
    (!unit.is_empty() && !name.is_empty()).then_some((unit, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_names_unit_and_credential() {
        assert_eq!(
            parse("b6a3f1c2/unit/aegis-kit-a:gateway.service/aegis"),
            Some(("aegis-kit-a:gateway.service", "aegis"))
        );
        for address in ["", "x/unit/", "x/unit/a", "x/unit//aegis", "a/aegis"] {
            assert_eq!(parse(address), None, "{address}");
        }
    }
}
