//! An instance's sockets and the service behind them.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use aegis_core::layout::Mode;
use aegis_core::port::PortMapping;
use aegisd::supervisor::plan::Listen;
use aegisd::supervisor::state::Active;
use aegisd::supervisor::{Change, Outcome, SupervisorError, UnitId, UnitState};
use futures_util::StreamExt;

use crate::world::{PATIENCE, World};

/// A port that was free a moment ago, at a loopback address of this process alone: tests
/// that run beside it take ports as well.
fn free_port() -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 1, high, low);
    let listener = TcpListener::bind((own, 0)).expect("find a free port");
    listener.local_addr().expect("the port has an address")
}

/// Connects and reads who serves.
async fn served_by(listen: Listen) -> u32 {
    let ask = move || {
        let mut text = String::new();
        match listen {
            Listen::Unix(path) => UnixStream::connect(path)?.read_to_string(&mut text)?,
            Listen::Tcp(address) => {
                let mut stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.read_to_string(&mut text)?
            }
        };
        Ok::<String, std::io::Error>(text)
    };
    let text = tokio::task::spawn_blocking(ask)
        .await
        .expect("ask")
        .expect("be served");
    text.trim().parse().expect("a process id")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn facts_name_the_manager() {
    let world = World::new("c-facts").await;
    let facts = world.supervisor.facts().await.unwrap();
    assert!(world.manager.is_named(&facts), "{facts:?}");
    assert_eq!(facts.mode, world.layout.mode);
    assert!(facts.started_at > 1_700_000_000_000_000, "{facts:?}");
    let again = world.manager.connect(&world.layout).await.facts().await;
    assert_eq!(again.unwrap().started_at, facts.started_at);
    let can_linger = facts.capabilities.outlives_logout && facts.mode == Mode::User;
    assert_eq!(facts.lingering, can_linger.then_some(true), "{facts:?}");
    let obstacle = world.supervisor.confinement_obstacle().await.unwrap();
    assert_eq!(obstacle.is_none(), facts.capabilities.confinement);
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_connection_starts_the_service_and_a_stop_leaves_the_sockets() {
    let world = World::new("c-Sock.et_s-1").await;
    let port = Listen::Tcp(free_port());
    let plan = world.instance(std::slice::from_ref(&port));
    let control = plan.listen[0].clone();
    let vm = UnitId::vm(&world.handle);
    assert_eq!(
        world.supervisor.open(&plan).await.unwrap(),
        Outcome::Changed
    );
    assert_eq!(
        world.supervisor.open(&plan).await.unwrap(),
        Outcome::Unchanged
    );
    assert_eq!(world.unit(&vm).await.unwrap().active, Active::Inactive);

    let first = served_by(port.clone()).await;
    let state = world
        .wait_for(&vm, "running", |state| state.active == Active::Active)
        .await;
    assert_eq!(state.main_pid, Some(first));
    assert_eq!(state.status, "serving");
    let capabilities = world.supervisor.facts().await.unwrap().capabilities;
    let group = "/aegis-vm-c-Sock.et_s-1.service";
    assert_eq!(
        state.control_group.ends_with(group),
        capabilities.confinement,
        "{state:?}"
    );
    assert_eq!(
        served_by(control.clone()).await,
        first,
        "one service behind all sockets"
    );
    assert_eq!(
        world.supervisor.start(&vm).await.unwrap(),
        Outcome::Unchanged
    );

    world.supervisor.signal(&vm, 9).await.unwrap();
    let second = served_by(port.clone()).await;
    assert_ne!(
        second, first,
        "a killed service is restarted and serves who waits"
    );
    let state = world
        .wait_for(&vm, "restarted", |state| state.main_pid == Some(second))
        .await;
    assert_eq!(state.restarts, 1);

    assert_eq!(world.supervisor.stop(&vm).await.unwrap(), Outcome::Changed);
    assert_eq!(
        world.supervisor.stop(&vm).await.unwrap(),
        Outcome::Unchanged
    );
    assert_ne!(
        served_by(control).await,
        second,
        "a stopped service is woken"
    );
    world.supervisor.restart(&vm).await.unwrap();
    served_by(port.clone()).await;

    let group = UnitId::group(&world.handle);
    assert_eq!(
        world.supervisor.stop(&group).await.unwrap(),
        Outcome::Changed
    );
    assert_eq!(
        world.supervisor.stop(&group).await.unwrap(),
        Outcome::Unchanged
    );
    let Listen::Tcp(address) = port else {
        unreachable!("made as a port above")
    };
    assert!(
        TcpStream::connect(address).is_err(),
        "a closed port refuses"
    );
    assert!(!world.layout.control_socket(&world.handle).exists());
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn start_waits_until_the_service_is_ready() {
    let world = World::new("c-start").await;
    let vm = UnitId::vm(&world.handle);
    let unknown = world.supervisor.start(&vm).await;
    assert!(
        matches!(unknown, Err(SupervisorError::NotFound { .. })),
        "{unknown:?}"
    );
    world.supervisor.open(&world.instance(&[])).await.unwrap();
    assert_eq!(world.supervisor.start(&vm).await.unwrap(), Outcome::Changed);
    assert_eq!(world.unit(&vm).await.unwrap().status, "serving");
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_taken_address_is_named_and_nothing_is_left() {
    let world = World::new("c-taken").await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let plan = world.instance(&[Listen::Tcp(address)]);
    let error = world.supervisor.open(&plan).await.unwrap_err();
    let SupervisorError::Bind {
        address: named,
        source,
        ..
    } = error
    else {
        panic!("not a bind error: {error:?}");
    };
    assert_eq!(named, address.to_string());
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
    world.wait_for_rest().await;

    drop(taken);
    assert_eq!(
        world.supervisor.open(&plan).await.unwrap(),
        Outcome::Changed,
        "once it is free"
    );
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_late_port_has_a_door_of_its_own() {
    let world = World::new("c-late").await;
    world.supervisor.open(&world.instance(&[])).await.unwrap();
    let vm = UnitId::vm(&world.handle);
    world.supervisor.start(&vm).await.unwrap();
    let before = world.unit(&vm).await.unwrap();
    let host = free_port();
    let plan = world.door(PortMapping { host, guest: 80 });
    let taken = TcpListener::bind(host).unwrap();
    let refused = world.supervisor.listen(&plan).await;
    assert!(
        matches!(&refused, Err(SupervisorError::Bind { address, .. }) if *address == host.to_string()),
        "{refused:?}"
    );
    drop(taken);
    for outcome in [Outcome::Changed, Outcome::Unchanged] {
        assert_eq!(world.supervisor.listen(&plan).await.unwrap(), outcome);
    }
    let first = served_by(Listen::Tcp(host)).await;
    let door = world
        .wait_for(&plan.door, "running", |door| door.active == Active::Active)
        .await;
    assert_eq!(door.main_pid, Some(first));
    assert_eq!(
        world.supervisor.stop(&plan.door).await.unwrap(),
        Outcome::Changed
    );
    assert_ne!(served_by(Listen::Tcp(host)).await, first, "it is woken");
    assert_eq!(
        world.supervisor.stop(&plan.door).await.unwrap(),
        Outcome::Changed
    );
    assert_eq!(
        world.supervisor.stop(&plan.socket).await.unwrap(),
        Outcome::Changed
    );
    assert!(TcpStream::connect(host).is_err(), "a closed port refuses");
    assert_eq!(world.unit(&plan.socket).await, None);
    let after = world.unit(&vm).await.unwrap();
    assert_eq!(after.main_pid, before.main_pid, "the VM did not notice");
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_killed_service_comes_back_without_a_visitor_and_a_stopped_one_does_not() {
    let world = World::new("c-back").await;
    let vm = UnitId::vm(&world.handle);
    world.supervisor.open(&world.instance(&[])).await.unwrap();
    world.supervisor.start(&vm).await.unwrap();
    let first = world.unit(&vm).await.unwrap();
    world.supervisor.signal(&vm, 9).await.unwrap();
    let again = |state: &UnitState| {
        state.active == Active::Active
            && state
                .main_pid
                .is_some_and(|pid| Some(pid) != first.main_pid)
    };
    world.wait_for(&vm, "running again", again).await;
    assert_eq!(world.supervisor.stop(&vm).await.unwrap(), Outcome::Changed);
    let capabilities = world.supervisor.facts().await.unwrap().capabilities;
    tokio::time::sleep(capabilities.between_starts * 3 + Duration::from_millis(300)).await;
    let rests = world.unit(&vm).await.unwrap();
    assert_eq!((rests.active, rests.main_pid), (Active::Inactive, None));
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn sockets_do_not_open_under_a_running_service() {
    let world = World::new("c-under").await;
    let plan = world.instance(&[]);
    world.supervisor.open(&plan).await.unwrap();
    world
        .supervisor
        .start(&UnitId::vm(&world.handle))
        .await
        .unwrap();
    world
        .supervisor
        .stop(&UnitId::sockets(&world.handle))
        .await
        .unwrap();
    if world
        .unit(&UnitId::vm(&world.handle))
        .await
        .is_some_and(|vm| vm.active == Active::Active)
    {
        let refused = world.supervisor.open(&plan).await;
        assert!(
            matches!(refused, Err(SupervisorError::StillRuns { .. })),
            "{refused:?}"
        );
        world
            .supervisor
            .stop(&UnitId::vm(&world.handle))
            .await
            .unwrap();
    }
    assert_eq!(
        world.supervisor.open(&plan).await.unwrap(),
        Outcome::Changed
    );
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn what_people_stop_is_told_from_what_vanished() {
    let world = World::new("c-changes").await;
    world.supervisor.open(&world.instance(&[])).await.unwrap();
    let sockets = UnitId::sockets(&world.handle);
    let mut changes = world.supervisor.changes().await.unwrap();
    world.manager.stop_by_hand(&sockets);
    let told = async {
        let mut stopped = false;
        while let Some(change) = changes.next().await {
            stopped |= change == Change::Stopped(sockets.clone());
            if change == Change::Gone(sockets.clone()) {
                return stopped;
            }
        }
        panic!("the stream of changes ended");
    };
    assert!(
        tokio::time::timeout(PATIENCE, told).await.unwrap(),
        "stopped by hand"
    );
    world.clean().await;
}

/// Set for a copy of this program that creates an instance and then waits to be killed.
const CREATOR: &str = "AEGIS_CONFORMANCE_CREATOR";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn what_was_created_outlives_its_creator() {
    const NAME: &str = "outlives_its_creator";
    let name = "c-creator";
    if std::env::var_os(CREATOR).is_some() {
        let world = World::new(name).await;
        world.supervisor.open(&world.instance(&[])).await.unwrap();
        world
            .supervisor
            .launch(&world.daemon("d", "exec sleep 1000"))
            .await
            .unwrap();
        std::fs::write(world.dir.join("created"), "yes\n").unwrap();
        std::future::pending::<()>().await;
    }
    let world = World::new(name).await;
    let mut copy = std::process::Command::new(std::env::current_exe().unwrap());
    copy.args(["--ignored", NAME]).env(CREATOR, "1");
    world.manager.share(&mut copy);
    let mut creator = copy.spawn().unwrap();
    world.wait_for_lines("created", 1).await;
    let daemon = UnitId::daemon(&world.handle, "d");
    let before = world.unit(&daemon).await.unwrap();
    creator.kill().unwrap();
    creator.wait().unwrap();
    let first = served_by(Listen::Unix(world.layout.control_socket(&world.handle))).await;
    assert!(Path::new(&format!("/proc/{first}")).exists());
    assert_eq!(
        world.unit(&daemon).await.unwrap(),
        before,
        "the same process, untouched"
    );
    world.clean().await;
}
