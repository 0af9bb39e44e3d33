//! What the paths above all objects tell of themselves.
//!
//! An introspection by zbus lists every object below a path with all its interfaces:
//! with a thousand instances that is a megabyte, and in system mode it tells each user
//! of the instances of the others. Of a child its name is enough (D-Bus specification,
//! "Introspection Data Format"): who wants more introspects it.

use aegis_bus::error::BusFault;
use aegis_bus::names::ROOT_PATH;
use zbus::message::Header;
use zbus::names::InterfaceName;
use zbus::object_server::Interface;
use zbus::{Connection, ObjectServer};

use super::Service;
use super::access::Guarded;
use super::managed::Managed;
use super::manager::ManagerObject;
use super::secrets::SecretsObject;
use super::tether::TetherObject;
use super::volumes::VolumesObject;
use crate::caller::Sees;

const INTROSPECTABLE: InterfaceName<'static> =
    InterfaceName::from_static_str_unchecked("org.freedesktop.DBus.Introspectable");

/// What every object of zbus has.
const STANDARD: &str = r#"  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId">
      <arg name="machine_uuid" type="s" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect">
      <arg name="xml_data" type="s" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/>
    </method>
    <method name="Set">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="in"/>
    </method>
    <method name="GetAll">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="values" type="a{sv}" direction="out"/>
    </method>
    <signal name="PropertiesChanged">
      <arg name="interface_name" type="s"/>
      <arg name="changed_properties" type="a{sv}"/>
      <arg name="invalidated_properties" type="as"/>
    </signal>
  </interface>
"#;

/// Takes the place of zbus's own at the root path.
struct Root {
    /// Its own interfaces.
    own: String,
    service: Service,
}

#[zbus::interface(
    name = "org.freedesktop.DBus.Introspectable",
    introspection_docs = false
)]
impl Root {
    #[zbus(out_args("xml_data"))]
    async fn introspect(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, BusFault> {
        let caller = self.service.gate.caller(connection, &header).await?;
        let shown = self.service.engine.board().follow();
        let shown = shown.borrow();
        // The bus lets nobody else introspect these: they have the objects of all.
        let all = caller.sees == Sees::All;
        let kinds = [
            ("image", !shown.images.is_empty()),
            ("instance", all && !shown.instances.is_empty()),
            ("job", all && !shown.jobs.is_empty()),
            ("kit", !shown.kits.is_empty()),
        ];
        let there = kinds.into_iter().filter(|(_, is_there)| *is_there);
        Ok(node(&self.own, there.map(|(kind, _)| kind)))
    }
}

/// Takes the place of zbus's own at a path above it.
struct Above(String);

#[zbus::interface(
    name = "org.freedesktop.DBus.Introspectable",
    introspection_docs = false
)]
impl Above {
    #[zbus(out_args("xml_data"))]
    fn introspect(&self) -> &str {
        &self.0
    }
}

/// Lets the root path and those above it tell of their children by name alone. Before
/// any object is below them.
///
/// # Errors
/// The connection was made without the objects that are always there.
pub(super) async fn narrow(connection: &Connection, service: &Service) -> zbus::Result<()> {
    let server = connection.object_server();
    let mut own = String::new();
    describe::<Managed>(server, &mut own).await?;
    describe::<ManagerObject>(server, &mut own).await?;
    describe::<SecretsObject>(server, &mut own).await?;
    describe::<TetherObject>(server, &mut own).await?;
    describe::<VolumesObject>(server, &mut own).await?;
    let root = Root {
        own,
        service: service.clone(),
    };
    server.remove_named(ROOT_PATH, INTROSPECTABLE).await?;
    server.at(ROOT_PATH, root).await?;
    let mut path = ROOT_PATH;
    while let Some((above, child)) = path.rsplit_once('/').filter(|(_, child)| !child.is_empty()) {
        path = if above.is_empty() { "/" } else { above };
        server.remove_named(path, INTROSPECTABLE).await?;
        server.at(path, Above(node("", [child]))).await?;
    }
    Ok(())
}

async fn describe<I: Interface>(server: &ObjectServer, own: &mut String) -> zbus::Result<()>
where
    Guarded<I>: Interface,
{
    let object = server.interface::<_, Guarded<I>>(ROOT_PATH).await?;
    object.get().await.introspect_to_writer(own, 2);
    Ok(())
}

/// The description of a path with these interfaces and children.
fn node<'a>(own: &str, children: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = format!(
        "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
         \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<node>\n{own}{STANDARD}"
    );
    for child in children {
        text.push_str("  <node name=\"");
        text.push_str(child);
        text.push_str("\"/>\n");
    }
    text.push_str("</node>\n");
    text
}
