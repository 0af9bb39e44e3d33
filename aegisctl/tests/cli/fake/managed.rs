//! The ObjectManager of the fake.

use std::collections::HashMap;

use aegis_bus::names;
use zbus::fdo::ManagedObjects;
use zbus::names::InterfaceName;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, ObjectPath, OwnedObjectPath, OwnedVariant, Variant, interface};

use super::Handles;
use super::image::{DIGITS, Image};
use super::instance::Instance;

pub(super) struct Managed {
    pub(super) handles: Handles,
}

#[interface(name = "org.freedesktop.DBus.ObjectManager")]
impl Managed {
    async fn get_managed_objects(
        &self,
        #[zbus(connection)] connection: &Connection,
    ) -> ManagedObjects {
        let mut objects = ManagedObjects::new();
        let handles: Vec<String> = self
            .handles
            .with(|state| state.instances.keys().cloned().collect());
        for handle in handles {
            let instance = Instance {
                handle: handle.parse().unwrap(),
                handles: self.handles.clone(),
            };
            let path = names::instance_path(&instance.handle);
            let values = values(connection, &path, &instance).await;
            objects.insert(path, HashMap::from([(Instance::name().into(), values)]));
        }
        let path = names::image_path(DIGITS);
        let values = values(connection, &path, &Image).await;
        objects.insert(path, HashMap::from([(Image::name().into(), values)]));
        objects
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

/// Tells that an instance is there.
pub(super) async fn added(connection: &Connection, path: &OwnedObjectPath, instance: &Instance) {
    let values = values(connection, path, instance).await;
    let values = values
        .iter()
        .map(|(name, value)| (name.as_str(), Variant::try_from(value).unwrap()));
    let interfaces = HashMap::from([(Instance::name(), values.collect())]);
    let emitter = SignalEmitter::new(connection, names::ROOT_PATH).unwrap();
    Managed::interfaces_added(&emitter, path.as_ref(), interfaces)
        .await
        .unwrap();
}

/// Tells that it is gone.
pub(super) async fn removed(connection: &Connection, path: &OwnedObjectPath) {
    let emitter = SignalEmitter::new(connection, names::ROOT_PATH).unwrap();
    Managed::interfaces_removed(&emitter, path.as_ref(), vec![Instance::name()])
        .await
        .unwrap();
}

async fn values(
    connection: &Connection,
    path: &OwnedObjectPath,
    object: &impl Interface,
) -> HashMap<String, OwnedVariant> {
    let emitter = SignalEmitter::new(connection, path).unwrap();
    let server = connection.object_server();
    object
        .get_all(server, connection, None, &emitter)
        .await
        .unwrap()
}
