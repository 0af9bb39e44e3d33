//! The committed interface files say what aegisd serves, and from when on.
//!
//! After a wanted change: `AEGIS_WRITE_INTERFACES=1 cargo nextest run -p aegisd interfaces`.

use std::os::unix::net::UnixStream;
use std::path::Path;

use aegis_bus::manager::ManagerProxy;
use aegis_bus::names;
use aegis_core::layout::Mode;
use aegisd::bus::{Gate, Service};
use zbus::Guid;
use zbus::connection::Builder;
use zbus::fdo::IntrospectableProxy;

use crate::world::{World, plain, within};

const HEAD: &str = r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
"#;

#[tokio::test]
async fn a_call_that_waits_for_aegisd_is_answered() {
    let world = World::new();
    let engine = world.engine().await;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = Builder::unix_stream(theirs).server(Guid::generate()).p2p();
    let server = Service::new(engine.clone(), Gate::of(Mode::User)).serve(server);
    // It is sent as soon as there is somebody to send it to.
    let asked = async {
        let client = Builder::unix_stream(ours).p2p().build().await.unwrap();
        let manager = ManagerProxy::new(&client).await.unwrap();
        within(manager.version()).await.unwrap()
    };
    let (server, version) = tokio::join!(server.build(), asked);
    drop(server.unwrap());
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn the_interfaces_are_as_committed() {
    let world = World::new();
    world.install_kit("k");
    let image = world.add_image('a');
    let client = world.start().await;
    let options = aegis_bus::manager::CreateOptions {
        start: false,
        ..Default::default()
    };
    let manager = client.manager().await;
    let spec = plain().to_dict();
    let created = manager
        .create_instance("web", &spec, &options.to_dict())
        .await;
    let (instance, job) = created.unwrap();
    let root = zbus::OwnedObjectPath::try_from(names::ROOT_PATH).unwrap();
    for (path, interface) in [
        (root.clone(), names::MANAGER),
        (root.clone(), names::SECRETS),
        (root.clone(), names::VOLUMES),
        (root, names::TETHER),
        (instance, names::INSTANCE),
        (names::kit_path("k"), names::KIT),
        (names::image_path(image.digits()), names::IMAGE),
        (job, names::JOB),
    ] {
        let object = IntrospectableProxy::builder(&client.connection)
            .destination(names::BUS_NAME)
            .path(path);
        let xml = object.build().await.unwrap().introspect().await.unwrap();
        let live = format!("{HEAD}{}</node>\n", part(&xml, interface));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/aegis-bus/interfaces");
        let path = folder.join(format!("{interface}.xml"));
        if std::env::var_os("AEGIS_WRITE_INTERFACES").is_some() {
            std::fs::write(&path, &live).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(live, committed, "{} is out of date", path.display());
    }
}

/// The lines of one interface.
fn part(xml: &str, interface: &str) -> String {
    let begin = format!("<interface name=\"{interface}\">");
    let lines = xml.lines().skip_while(|line| line.trim() != begin);
    let mut kept = Vec::new();
    for line in lines {
        kept.push(format!("{line}\n"));
        if line.trim() == "</interface>" {
            break;
        }
    }
    kept.concat()
}
