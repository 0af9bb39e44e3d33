//! All units of an instance together, and calls that nobody waits for.

use std::path::Path;
use std::time::Duration;

use aegisd::supervisor::plan::Readiness;
use aegisd::supervisor::state::Active;
use aegisd::supervisor::{Change, Outcome, SupervisorError, UnitId, UnitState};
use futures_util::StreamExt;

use crate::world::{PATIENCE, World};

/// Whether it runs: one that has ended and is not reaped does not.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_stopped_group_leaves_nothing() {
    let world = World::new("c-group").await;
    world.supervisor.open(&world.instance(&[])).await.unwrap();
    world
        .supervisor
        .start(&UnitId::vm(&world.handle))
        .await
        .unwrap();
    let script = "sleep 1000 & echo $! >> pids; echo $$ >> pids; wait";
    let plan = world.daemon("d", script);
    world.supervisor.launch(&plan).await.unwrap();
    let mut pids = world.wait_for_lines("pids", 2).await;
    let vm = world.unit(&UnitId::vm(&world.handle)).await.unwrap();
    pids.extend(vm.main_pid.map(|pid| pid.to_string()));
    assert!(pids.iter().all(|pid| is_alive(pid)), "{pids:?}");
    let group = UnitId::group(&world.handle);
    assert_eq!(world.unit(&group).await.unwrap().active, Active::Active);
    assert_eq!(
        world.supervisor.stop(&group).await.unwrap(),
        Outcome::Changed
    );
    assert!(!pids.iter().any(|pid| is_alive(pid)), "{pids:?}");
    assert_eq!(world.units().await, Vec::<UnitState>::new());
    assert!(!world.layout.control_socket(&world.handle).exists());
    assert_eq!(
        world.supervisor.stop(&group).await.unwrap(),
        Outcome::Unchanged
    );
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn the_units_of_one_instance_are_not_anothers() {
    let world = World::new("c-one").await;
    let plan = world.daemon("d", "exec sleep 1000");
    world.supervisor.launch(&plan).await.unwrap();
    let all = world.supervisor.list(None).await.unwrap();
    let of_it = all
        .into_iter()
        .filter(|state| state.unit.handle == world.handle);
    assert_eq!(of_it.collect::<Vec<_>>(), world.units().await);
    for other in ["c", "c-one.d", "c-on"] {
        let handle = other.parse().unwrap();
        let units = world.supervisor.list(Some(&handle)).await.unwrap();
        assert_eq!(units, Vec::<UnitState>::new(), "{other}");
    }
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn units_that_are_not_there_are_named_or_nothing_to_stop() {
    let world = World::new("c-none").await;
    let (vm, daemon) = (
        UnitId::vm(&world.handle),
        UnitId::daemon(&world.handle, "d"),
    );
    for unit in [&vm, &daemon] {
        let calls = [
            world.supervisor.start(unit).await.map(drop),
            world.supervisor.restart(unit).await,
            world.supervisor.signal(unit, 1).await,
            world.supervisor.usage(unit).await.map(drop),
        ];
        for call in calls {
            let named = matches!(&call, Err(SupervisorError::NotFound { unit: named }) if *named == unit.name());
            assert!(named, "{call:?}");
        }
        let nothing = [
            world.supervisor.stop(unit).await.unwrap(),
            world.supervisor.clear(unit).await.unwrap(),
        ];
        assert_eq!(nothing, [Outcome::Unchanged; 2]);
    }
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn changes_tell_of_a_daemon_that_runs_and_is_stopped() {
    let world = World::new("c-tells").await;
    let unit = UnitId::daemon(&world.handle, "d");
    let mut changes = world.supervisor.changes().await.unwrap();
    let mut wait_for = async |wanted: Change| {
        let told = async {
            while let Some(change) = changes.next().await {
                if change == wanted {
                    return;
                }
            }
            panic!("the stream of changes ended");
        };
        let told = tokio::time::timeout(PATIENCE, told).await;
        told.unwrap_or_else(|_| panic!("{wanted:?} was not told"));
    };
    let plan = world.daemon("d", "exec sleep 1000");
    world.supervisor.launch(&plan).await.unwrap();
    wait_for(Change::Changed(unit.clone())).await;
    let killed = world.unit(&unit).await.unwrap().main_pid;
    world.supervisor.signal(&unit, 9).await.unwrap();
    wait_for(Change::Changed(unit.clone())).await;
    // One that is stopped before it runs again may stay as failed.
    let again = |state: &UnitState| {
        state.active == Active::Active && state.main_pid.is_some() && state.main_pid != killed
    };
    world.wait_for(&unit, "restarted", again).await;
    world.supervisor.stop(&unit).await.unwrap();
    wait_for(Change::Gone(unit)).await;
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_call_that_nobody_waits_for_goes_on() {
    let world = World::new("c-cancel").await;
    let unit = UnitId::daemon(&world.handle, "d");
    let script = "sleep 3; exec python3 -c '
import os, socket, time
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.connect(os.environ[\"NOTIFY_SOCKET\"])
to.send(b\"READY=1\")
time.sleep(1000)'";
    let mut plan = world.daemon("d", script);
    plan.readiness = Readiness::Notify;
    let call = world.supervisor.launch(&plan);
    let cancelled = tokio::time::timeout(Duration::from_secs(2), call).await;
    assert!(cancelled.is_err(), "{cancelled:?}");
    let state = world.unit(&unit).await.unwrap();
    assert_eq!(state.active, Active::Activating, "{state:?}");
    let ready = |state: &UnitState| state.active == Active::Active;
    world.wait_for(&unit, "ready", ready).await;
    assert_eq!(
        world.supervisor.launch(&plan).await.unwrap(),
        Outcome::Unchanged
    );
    world.clean().await;
}
