//! D-Bus: an adapter, no more. A method converts, asks the engine and converts
//! back; what changes is told by [`objects`] alone.
//!
//! | module | what it serves |
//! |---|---|
//! | [`manager`], [`instance`], [`kit`], [`image`], [`job`], [`secrets`], [`tether`], [`volumes`] | one interface each |
//! | [`access`] | who may do what, and who is told of what |
//! | [`introspection`] | what the paths above all objects tell of themselves |
//! | [`managed`] | all objects in one answer |
//! | [`objects`] | the objects that come and go, and every signal |

mod access;
pub mod image;
pub mod instance;
mod introspection;
pub mod job;
pub mod kit;
mod managed;
pub mod manager;
pub mod objects;
pub mod secrets;
pub mod tether;
pub mod volumes;

use std::sync::Arc;

use aegis_bus::names::{BUS_NAME, ROOT_PATH};
use tokio::task::JoinHandle;
use zbus::connection::Builder;
use zbus::fdo::{RequestNameFlags, RequestNameReply};
use zbus::{Connection, fdo};

use crate::engine::Engine;

pub use access::Gate;
use access::Guarded;

/// Why aegisd is not on the bus.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot publish the objects of aegisd")]
    Publish(#[source] zbus::Error),
    #[error("cannot ask for the name {BUS_NAME}")]
    Name(#[source] zbus::Error),
    #[error("another aegisd has the name {BUS_NAME} on this bus")]
    NameTaken,
}

/// Gives a connection that is yet to be made the objects that are always there.
///
/// They come first: a server of objects that is added to a connection takes up its
/// work some time later, and a call that is read before that is lost without an
/// answer. Clients that waited for aegisd call the moment that it has its name.
pub fn serve<'a>(connection: Builder<'a>, engine: &Arc<Engine>, gate: &Gate) -> Builder<'a> {
    let (managed, manager) = (managed::Managed::new, manager::ManagerObject::new);
    let (secrets, volumes) = (secrets::SecretsObject::new, volumes::VolumesObject::new);
    let tether = tether::TetherObject::new;
    let (engine, gate) = (|| engine.clone(), || gate.clone());
    connection
        .serve_at(ROOT_PATH, Guarded::new(managed(engine(), gate()), gate()))
        .serve_at(ROOT_PATH, Guarded::new(manager(engine(), gate()), gate()))
        .serve_at(ROOT_PATH, Guarded::new(secrets(engine(), gate()), gate()))
        .serve_at(ROOT_PATH, Guarded::new(volumes(engine(), gate()), gate()))
        .serve_at(ROOT_PATH, Guarded::new(tether(engine(), gate()), gate()))
}

/// Publishes the objects that come and go on a connection made with [`serve`] and
/// keeps them current, for those whom the gate lets know; the task ends with the
/// connection.
///
/// # Errors
/// The connection is broken.
pub async fn publish(
    connection: &Connection,
    engine: &Arc<Engine>,
    gate: &Gate,
) -> Result<JoinHandle<zbus::Result<()>>, ServeError> {
    let narrowed = introspection::narrow(connection, engine, gate).await;
    narrowed.map_err(ServeError::Publish)?;
    let mut publisher = objects::Publisher::new(connection.clone(), engine.clone(), gate.clone());
    publisher.tell().await.map_err(ServeError::Publish)?;
    let (connection, gate) = (connection.clone(), gate.clone());
    Ok(tokio::spawn(async move {
        tokio::try_join!(publisher.run(), gate.watch(&connection)).map(|_| ())
    }))
}

/// Whether somebody has the name already: to be asked before anything is touched.
///
/// # Errors
/// [`ServeError::NameTaken`], or the bus does not answer.
pub async fn check_name_is_free(connection: &Connection) -> Result<(), ServeError> {
    let asked = async {
        let bus = fdo::DBusProxy::new(connection).await?;
        Ok(bus
            .name_has_owner(zbus::names::BusName::try_from(BUS_NAME)?)
            .await?)
    };
    match asked.await.map_err(ServeError::Name)? {
        true => Err(ServeError::NameTaken),
        false => Ok(()),
    }
}

/// Takes the name, which makes clients find aegisd.
///
/// # Errors
/// [`ServeError::NameTaken`], or the bus refuses.
pub async fn take_name(connection: &Connection) -> Result<(), ServeError> {
    let flags = RequestNameFlags::DO_NOT_QUEUE;
    match connection.request_name_with_flags(BUS_NAME, flags).await {
        Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(()),
        Ok(_) | Err(zbus::Error::NameTaken) => Err(ServeError::NameTaken),
        Err(error) => Err(ServeError::Name(error)),
    }
}
