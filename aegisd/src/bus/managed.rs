//! The ObjectManager: all objects with their properties in one answer
//! ([D-Bus specification](https://dbus.freedesktop.org/doc/dbus-specification.html#standard-interfaces-objectmanager)).
//!
//! zbus has one, which makes the properties of all objects before it writes the first.
//! With a thousand instances that is several times the answer, and the heap keeps the
//! room for good. This one makes those of an object when they are written.

use std::collections::HashMap;

use aegis_bus::error::BusFault;
use aegis_bus::names::{image_path, instance_path, job_path, kit_path};
use futures_util::FutureExt as _;
use serde::ser::{Error as _, SerializeMap};
use serde::{Serialize, Serializer};
use zbus::fdo::ManagedObjects;
use zbus::message::Header;
use zbus::names::InterfaceName;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, ObjectPath, OwnedObjectPath, Signature, Type, Variant};

use super::Service;
use super::access::Owned;
use super::image::ImageObject;
use super::kit::KitObject;
use super::objects::values;
use crate::board::Shown;
use crate::caller::Sees;

/// Answers for the objects below its path.
#[derive(Debug)]
pub(super) struct Managed {
    service: Service,
}

impl Owned for Managed {}

impl Managed {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }
}

#[zbus::interface(
    name = "org.freedesktop.DBus.ObjectManager",
    introspection_docs = false
)]
impl Managed {
    #[zbus(out_args("objects"))]
    async fn get_managed_objects(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Objects, BusFault> {
        let sees = self.service.gate.caller(connection, &header).await?.sees;
        // Nobody is to learn from it what was not told.
        self.service.told.settled().await;
        Ok(Objects {
            shown: self.service.engine.board().follow().borrow().clone(),
            sees,
            service: self.service.clone(),
            connection: connection.clone(),
        })
    }

    #[zbus(signal)]
    pub(super) async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object: ObjectPath<'_>,
        interfaces: HashMap<InterfaceName<'_>, HashMap<&str, Variant<'_>>>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(super) async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object: ObjectPath<'_>,
        interfaces: Vec<InterfaceName<'_>>,
    ) -> zbus::Result<()>;
}

/// The answer: `a{oa{sa{sv}}}`.
struct Objects {
    shown: Shown,
    sees: Sees,
    service: Service,
    connection: Connection,
}

impl Type for Objects {
    const SIGNATURE: &'static Signature = ManagedObjects::SIGNATURE;
}

impl Serialize for Objects {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = &self.shown;
        let mut objects = serializer.serialize_map(None)?;
        let instances = shown.instances.iter();
        for (handle, view) in instances.filter(|(_, view)| self.sees.is_there(view.owner)) {
            let object = self.service.instance(handle, view.clone());
            self.entry(&mut objects, &instance_path(handle), &object)?;
        }
        for (name, view) in &shown.kits {
            self.entry(&mut objects, &kit_path(name), &KitObject::new(view.clone()))?;
        }
        for (digits, view) in &shown.images {
            let object = ImageObject::new(view.clone());
            self.entry(&mut objects, &image_path(digits), &object)?;
        }
        let jobs = shown.jobs.iter();
        for (&id, view) in jobs.filter(|(_, view)| self.sees.is_there(view.owner)) {
            let object = self.service.job(id, view.clone());
            self.entry(&mut objects, &job_path(id), &object)?;
        }
        objects.end()
    }
}

impl Objects {
    fn entry<M: SerializeMap, I: Interface>(
        &self,
        objects: &mut M,
        path: &OwnedObjectPath,
        object: &I,
    ) -> Result<(), M::Error> {
        let emitter = SignalEmitter::new(&self.connection, path).map_err(M::Error::custom)?;
        let values = values(&self.connection, object, &emitter).now_or_never();
        // Properties are read from a view that is here.
        let values = values.ok_or_else(|| M::Error::custom("a property is not known at once"))?;
        let values = values.map_err(M::Error::custom)?;
        objects.serialize_entry(path, &HashMap::from([(I::name(), values)]))
    }
}
