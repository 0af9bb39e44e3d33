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
//! | [`peer`] | clients that come without a bus |

mod access;
pub mod image;
pub mod instance;
mod introspection;
pub mod job;
pub mod kit;
mod managed;
pub mod manager;
pub mod objects;
pub mod peer;
pub mod secrets;
pub mod tether;
pub mod volumes;

use std::sync::Arc;

use aegis_bus::instance::InstanceView;
use aegis_bus::names::{BUS_NAME, ROOT_PATH};
use aegis_core::handle::Handle;
use tokio::task::JoinHandle;
use zbus::connection::Builder;
use zbus::fdo::{RequestNameFlags, RequestNameReply};
use zbus::{Connection, fdo};

use crate::board::{JobId, JobShown, Told};
use crate::engine::Engine;

pub use access::Gate;
use access::Guarded;
use instance::InstanceObject;
use job::JobObject;

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

/// What one connection serves: aegisd, to whom, and how far they were told of it.
#[derive(Clone, Debug)]
pub struct Service {
    engine: Arc<Engine>,
    gate: Gate,
    told: Told,
}

impl Service {
    /// For a connection that is yet to be made.
    pub fn new(engine: Arc<Engine>, gate: Gate) -> Self {
        let told = Told::nothing(engine.board());
        Self { engine, gate, told }
    }

    /// Gives the connection the objects that are always there.
    ///
    /// They come first: a server of objects that is added to a connection takes up its
    /// work some time later, and a call that is read before that is lost without an
    /// answer. Clients that waited for aegisd call the moment that it has its name.
    pub fn serve<'a>(&self, connection: Builder<'a>) -> Builder<'a> {
        let object = || self.clone();
        connection
            .serve_at(ROOT_PATH, self.guarded(managed::Managed::new(object())))
            .serve_at(
                ROOT_PATH,
                self.guarded(manager::ManagerObject::new(object())),
            )
            .serve_at(
                ROOT_PATH,
                self.guarded(secrets::SecretsObject::new(object())),
            )
            .serve_at(
                ROOT_PATH,
                self.guarded(volumes::VolumesObject::new(object())),
            )
            .serve_at(ROOT_PATH, self.guarded(tether::TetherObject::new(object())))
    }

    /// Publishes the objects that come and go on a connection made with
    /// [`Service::serve`] and keeps them current, for those whom the gate lets know; the
    /// task ends with the connection.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn publish(
        &self,
        connection: &Connection,
    ) -> Result<JoinHandle<zbus::Result<()>>, ServeError> {
        let narrowed = introspection::narrow(connection, self).await;
        narrowed.map_err(ServeError::Publish)?;
        let mut publisher = objects::Publisher::new(self.clone());
        let told = publisher.tell(connection).await;
        told.map_err(ServeError::Publish)?;
        let (connection, gate) = (connection.clone(), self.gate.clone());
        Ok(tokio::spawn(async move {
            tokio::try_join!(publisher.run(&connection), gate.watch(&connection)).map(|_| ())
        }))
    }

    fn guarded<I>(&self, object: I) -> Guarded<I> {
        Guarded::new(object, self.gate.clone())
    }

    fn instance(&self, handle: &Handle, view: Arc<InstanceView>) -> InstanceObject {
        InstanceObject::new(self.clone(), handle.clone(), view)
    }

    fn job(&self, id: JobId, view: Arc<JobShown>) -> JobObject {
        JobObject::new(self.clone(), id, view)
    }
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
