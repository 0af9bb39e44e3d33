//! What the paths above all objects tell of themselves.
//!
//! An introspection by zbus lists every object below a path with all its interfaces:
//! with a thousand instances that is a megabyte, and in system mode it tells each user
//! of the instances of the others. Of a child its name is enough (D-Bus specification,
//! "Introspection Data Format"): who wants more introspects it.

use std::fmt::Write;

use aegis_bus::names::ROOT_PATH;
use zbus::names::InterfaceName;
use zbus::object_server::Interface;
use zbus::{Connection, ObjectServer};

use super::access::Guarded;
use super::managed::Managed;
use super::manager::ManagerObject;
use super::secrets::SecretsObject;
use super::tether::TetherObject;
use super::volumes::VolumesObject;

const INTROSPECTABLE: InterfaceName<'static> =
    InterfaceName::from_static_str_unchecked("org.freedesktop.DBus.Introspectable");

/// What is below the root path.
const KINDS: [&str; 4] = ["image", "instance", "job", "kit"];

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

/// Takes the place of zbus's own at a path.
struct Introspectable(String);

#[zbus::interface(
    name = "org.freedesktop.DBus.Introspectable",
    introspection_docs = false
)]
impl Introspectable {
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
pub(super) async fn narrow(connection: &Connection) -> zbus::Result<()> {
    let server = connection.object_server();
    let mut own = String::new();
    describe::<Managed>(server, &mut own).await?;
    describe::<ManagerObject>(server, &mut own).await?;
    describe::<SecretsObject>(server, &mut own).await?;
    describe::<TetherObject>(server, &mut own).await?;
    describe::<VolumesObject>(server, &mut own).await?;
    replace(server, ROOT_PATH, &own, &KINDS).await?;
    let mut path = ROOT_PATH;
    while let Some((above, child)) = path.rsplit_once('/').filter(|(_, child)| !child.is_empty()) {
        path = if above.is_empty() { "/" } else { above };
        replace(server, path, "", &[child]).await?;
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

async fn replace(
    server: &ObjectServer,
    path: &str,
    own: &str,
    children: &[&str],
) -> zbus::Result<()> {
    let mut text = format!(
        "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
         \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<node>\n{own}{STANDARD}"
    );
    for child in children {
        writeln!(text, "  <node name=\"{child}\"/>").map_err(|_| zbus::Error::InvalidReply)?;
    }
    text.push_str("</node>\n");
    server.remove_named(path, INTROSPECTABLE).await?;
    server.at(path, Introspectable(text)).await?;
    Ok(())
}
