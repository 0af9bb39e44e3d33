//! Clients that come to aegisd's own socket, with no bus between.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use aegis_bus::connect;
use aegis_bus::job::JobState;
use aegis_bus::manager::{CreateOptions, SpecRequest};
use aegis_core::layout::Mode;
use aegisd::bus::peer;
use aegisd::engine::Engine;
use futures_util::StreamExt;
use tokio::net::UnixListener;
use zbus::fdo::ObjectManagerProxy;

use crate::world::{Client, World, plain, within};

/// Clients that come at the same time: more than aegisd takes.
const STORM: usize = 300;
/// Instances whose coming fills the socket of a client that does not read.
const FILL: usize = 150;

/// An aegisd that listens on a socket of its own.
struct Listening {
    engine: Arc<Engine>,
    address: String,
    path: std::path::PathBuf,
}

impl Listening {
    async fn start(world: &World) -> Self {
        let engine = world.engine().await;
        let path = world.root.path().join("bus.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(peer::serve(listener, engine.clone()));
        Self {
            address: format!("unix:path={}", path.display()),
            engine,
            path,
        }
    }

    async fn client(&self) -> Client {
        let connection = connect::to_aegisd(Mode::User, Some(&self.address), |set_up| set_up);
        Client::over(connection.await.unwrap(), self.engine.clone())
    }

    /// A client that greets and then neither asks nor reads.
    fn deaf(&self) -> UnixStream {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        let uid = nix::unistd::geteuid().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        write!(stream, "\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").unwrap();
        stream
    }
}

async fn objects(client: &Client) -> ObjectManagerProxy<'_> {
    let builder = ObjectManagerProxy::builder(&client.connection)
        .destination(aegis_bus::names::BUS_NAME)
        .path(aegis_bus::names::ROOT_PATH);
    builder.build().await.unwrap()
}

#[tokio::test]
async fn what_one_client_does_every_client_sees() {
    let world = World::new();
    let aegisd = Listening::start(&world).await;
    let (one, other) = (aegisd.client().await, aegisd.client().await);
    let watching = objects(&other).await;
    let mut added = watching.receive_interfaces_added().await.unwrap();
    let mut removed = watching.receive_interfaces_removed().await.unwrap();
    // Only who has spoken to aegisd is connected to it.
    assert!(watching.get_managed_objects().await.unwrap().is_empty());
    let path = aegis_bus::names::instance_path(&"web".parse().unwrap());

    let made = one.create("web", plain(), true).await;
    assert_eq!(made.state, JobState::Done);
    within(async { while added.next().await.unwrap().args().unwrap().object_path != *path {} })
        .await;
    other.wait_for("web", |view| view.state == "running").await;
    assert_eq!(other.view("web").await.state, "running");

    // Who comes later finds it, and is not told that it came.
    let late = aegisd.client().await;
    let watching_late = objects(&late).await;
    let mut late_added = watching_late.receive_interfaces_added().await.unwrap();
    let found = watching_late.get_managed_objects().await.unwrap();
    assert!(found.contains_key(&path), "{found:?}");
    let web = other.instance("web").await;
    let job = web.delete(&aegis_bus::dict::Dict::new()).await.unwrap();
    assert_eq!(late.end_of(job).await.state, JobState::Done);
    within(async { while removed.next().await.unwrap().args().unwrap().object_path != *path {} })
        .await;
    let told = within(late_added.next()).await.unwrap();
    let told = told.args().unwrap().object_path.to_string();
    assert!(told.contains("/job/"), "{told}");
}

#[tokio::test]
async fn more_clients_than_it_takes_wait_and_are_served() {
    let world = World::new();
    let aegisd = Listening::start(&world).await;
    let asked = (0..STORM).map(|_| async {
        let client = aegisd.client().await;
        client.manager().await.version().await.unwrap()
    });
    let versions = within(futures_util::future::join_all(asked)).await;
    assert_eq!(versions.len(), STORM);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let world = World::new();
    let aegisd = Listening::start(&world).await;
    let deaf = aegisd.deaf();
    let client = aegisd.client().await;
    for number in 0..FILL {
        let made = within(client.create(&format!("i{number}"), plain(), false)).await;
        assert_eq!(made.state, JobState::Done);
    }
    let found = objects(&client).await.get_managed_objects().await.unwrap();
    assert!(found.len() >= FILL);
    drop(deaf);
}

#[tokio::test]
async fn what_was_made_for_a_client_goes_with_it() {
    let world = World::new();
    let aegisd = Listening::start(&world).await;
    let spec = SpecRequest {
        ephemeral: true,
        ..plain()
    };
    let options = CreateOptions {
        foreground_owner: true,
        ..CreateOptions::default()
    };
    let (client, other) = (aegisd.client().await, aegisd.client().await);
    let manager = client.manager().await;
    let (spec, options) = (spec.to_dict(), options.to_dict());
    let created = manager.create_instance("mine", &spec, &options).await;
    created.unwrap();
    other.wait_for("mine", |view| view.state == "running").await;
    drop(manager);
    drop(client);
    other.wait_gone("mine").await;
}
