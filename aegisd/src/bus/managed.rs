//! The ObjectManager: all objects with their properties in one answer
//! ([D-Bus specification](https://dbus.freedesktop.org/doc/dbus-specification.html#standard-interfaces-objectmanager)).
//!
//! zbus has one, which makes the properties of all objects before it writes the first.
//! With a thousand instances that is several times the answer, and the heap keeps the
//! room for good. This one makes those of an object when they are written.

use std::collections::HashMap;
use std::sync::Arc;

use aegis_bus::names::{image_path, instance_path, job_path, kit_path};
use futures_util::FutureExt as _;
use serde::ser::{Error as _, SerializeMap};
use serde::{Serialize, Serializer};
use zbus::fdo::ManagedObjects;
use zbus::names::InterfaceName;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, ObjectPath, OwnedObjectPath, Signature, Type, Variant};

use super::image::ImageObject;
use super::instance::InstanceObject;
use super::job::JobObject;
use super::kit::KitObject;
use super::objects::values;
use crate::board::{Shown, Told};
use crate::engine::Engine;

/// Answers for the objects below its path. zbus knows it by its name and tells of
/// objects that come and go.
#[derive(Debug)]
pub(super) struct Managed {
    engine: Arc<Engine>,
    told: Told,
}

impl Managed {
    pub(super) fn new(engine: Arc<Engine>, told: Told) -> Self {
        Self { engine, told }
    }
}

#[zbus::interface(
    name = "org.freedesktop.DBus.ObjectManager",
    introspection_docs = false
)]
impl Managed {
    #[zbus(out_args("objects"))]
    async fn get_managed_objects(&self, #[zbus(connection)] connection: &Connection) -> Objects {
        // Nobody is to learn from it what was not told.
        self.told.settled().await;
        Objects {
            shown: self.engine.board().follow().borrow().clone(),
            engine: self.engine.clone(),
            told: self.told.clone(),
            connection: connection.clone(),
        }
    }

    #[zbus(signal)]
    async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object: ObjectPath<'_>,
        interfaces: HashMap<InterfaceName<'_>, HashMap<&str, Variant<'_>>>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object: ObjectPath<'_>,
        interfaces: Vec<InterfaceName<'_>>,
    ) -> zbus::Result<()>;
}

/// The answer: `a{oa{sa{sv}}}`.
struct Objects {
    shown: Shown,
    engine: Arc<Engine>,
    told: Told,
    connection: Connection,
}

impl Type for Objects {
    const SIGNATURE: &'static Signature = ManagedObjects::SIGNATURE;
}

impl Serialize for Objects {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = &self.shown;
        let mut objects = serializer.serialize_map(None)?;
        for (handle, view) in &shown.instances {
            let (engine, told) = (self.engine.clone(), self.told.clone());
            let object = InstanceObject::new(engine, told, handle.clone(), view.clone());
            self.entry(&mut objects, &instance_path(handle), &object)?;
        }
        for (name, view) in &shown.kits {
            self.entry(&mut objects, &kit_path(name), &KitObject::new(view.clone()))?;
        }
        for (digits, view) in &shown.images {
            let object = ImageObject::new(view.clone());
            self.entry(&mut objects, &image_path(digits), &object)?;
        }
        for (&id, view) in &shown.jobs {
            let object = JobObject::new(self.engine.clone(), id, view.clone());
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
