//! Ports that are chosen, added and removed.

use std::time::Duration;

use aegis_bus::instance::UpdateRequest;
use aegis_bus::job::{JobOutcome, JobState};
use aegis_bus::manager::SpecRequest;
use aegis_core::fault::Symbol;
use aegis_core::port::{PortMapping, PortRequest};

use crate::world::{Client, World, plain, within};

fn exposing(ports: &[&str]) -> SpecRequest {
    SpecRequest {
        ports: requests(ports),
        ..plain()
    }
}

fn requests(ports: &[&str]) -> Vec<PortRequest> {
    ports.iter().map(|text| text.parse().unwrap()).collect()
}

async fn change(client: &Client, handle: &str, add: &[&str], remove: &[&str]) -> JobOutcome {
    let request = UpdateRequest {
        ports: requests(add),
        remove_ports: remove.iter().map(|text| text.parse().unwrap()).collect(),
        ..UpdateRequest::default()
    };
    let instance = client.instance(handle).await;
    let job = instance.update(&request.to_dict()).await.unwrap();
    client.end_of(job).await
}

async fn ports(client: &Client, handle: &str) -> Vec<PortMapping> {
    let shown = client.view(handle).await.ports;
    shown.iter().map(|text| text.parse().unwrap()).collect()
}

/// The ports whose sockets there are.
fn listening(world: &World) -> Vec<String> {
    let names = world.supervisor.names();
    let port = |name: &String| {
        let port = name.strip_prefix("aegis-port-")?.strip_suffix(".socket")?;
        Some(port.to_owned())
    };
    names.iter().filter_map(port).collect()
}

#[tokio::test]
async fn a_number_is_chosen_once_and_is_nobody_elses() {
    let world = World::new();
    let client = world.start().await;
    client.create("a", exposing(&["80"]), false).await;
    client.create("b", exposing(&["80", "81"]), false).await;
    let (a, b) = (ports(&client, "a").await, ports(&client, "b").await);
    let mut numbers: Vec<u16> = a.iter().chain(&b).map(|port| port.host.port()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 3, "{a:?} {b:?}");
    assert!(a.iter().chain(&b).all(|port| port.host.ip().is_loopback()));

    let again = change(&client, "a", &["80"], &[]).await;
    assert_eq!(again.state, JobState::Unchanged);
    let instance = client.instance("a").await;
    let differences = instance
        .compare(&exposing(&["80"]).to_dict())
        .await
        .unwrap();
    assert!(differences.is_empty(), "{differences:?}");
    drop(instance);
    drop(client);
    let client = world.start().await;
    assert_eq!(ports(&client, "a").await, a, "the next aegisd knows it");
}

#[tokio::test]
async fn ports_come_and_go_under_a_vm_that_runs() {
    let world = World::new();
    let client = world.start().await;
    client.create("web", exposing(&["8080:80"]), true).await;
    let vm = aegisd::supervisor::UnitId::vm(&"web".parse().unwrap());
    let before = world.supervisor.pid(&vm);
    let outcome = change(&client, "web", &["8081:81", "[::1]:8080:80"], &["8080:80"]).await;
    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(
        listening(&world),
        ["web:127.0.0.1:8081:81", "web:::1:8080:80"]
    );
    assert!(client.view("web").await.pending.is_empty());
    assert!(client.view("web").await.stopped_by_hand.is_empty());

    world.supervisor.take_address("127.0.0.1:8082");
    let fault = change(&client, "web", &["8082:82"], &["8081"]).await.fault;
    let fault = fault.unwrap();
    assert_eq!(fault.symbol, Symbol::PortInUse);
    assert!(fault.message.contains("127.0.0.1:8082"), "{fault}");
    assert_eq!(ports(&client, "web").await.len(), 2, "all of it or nothing");
    assert_eq!(
        listening(&world),
        ["web:127.0.0.1:8081:81", "web:::1:8080:80"]
    );

    client.create("other", exposing(&["8083:80"]), false).await;
    world.supervisor.take_address("127.0.0.1:8083");
    let fault = change(&client, "web", &["8083:83"], &[]).await.fault;
    let fault = fault.unwrap();
    assert!(fault.message.contains("the instance 'other'"), "{fault}");

    let unknown = change(&client, "web", &[], &["9999"]).await.fault.unwrap();
    assert_eq!(unknown.symbol, Symbol::InvalidArgument);
    let none = change(&client, "web", &[], &["8081", "80"]).await;
    assert_eq!(none.state, JobState::Done);
    assert_eq!(listening(&world), ["other:127.0.0.1:8083:80"]);
    assert_eq!(world.supervisor.pid(&vm), before, "the VM is the same");
}

#[tokio::test]
async fn a_port_that_is_stopped_by_hand_opens_when_it_is_asked_for_again() {
    let world = World::new();
    let client = world.start().await;
    client
        .create("web", exposing(&["8080:80", "8081:80"]), false)
        .await;
    let port = "8080:80".parse().unwrap();
    let socket = aegisd::supervisor::UnitId::port_socket(&"web".parse().unwrap(), port);
    world.supervisor.lose(&socket, true);
    client
        .wait_for("web", |view| {
            view.stopped_by_hand.contains_key(&socket.name())
        })
        .await;
    assert_eq!(listening(&world), ["web:127.0.0.1:8081:80"]);
    let outcome = change(&client, "web", &["8080:80"], &[]).await;
    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(listening(&world).len(), 2);
    // One that vanished is made again. Nothing that clients see changes with it.
    world.supervisor.lose(&socket, false);
    within(async {
        while listening(&world).len() != 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
