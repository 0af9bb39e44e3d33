//! Instance daemons: restarts, delays, ends.

use aegisd::supervisor::plan::{Readiness, Restarts};
use aegisd::supervisor::state::{Active, ProcessEnd, RunResult};
use aegisd::supervisor::{Outcome, SupervisorError, UnitId, UnitState};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_killed_daemon_is_restarted_and_a_stopped_one_vanishes() {
    let world = World::new("c-killed").await;
    let plan = world.daemon("gate.way", "exec sleep 1000");
    let unit = UnitId::daemon(&world.handle, "gate.way");
    assert_eq!(
        world.supervisor.launch(&plan).await.unwrap(),
        Outcome::Changed
    );
    assert_eq!(
        world.supervisor.launch(&plan).await.unwrap(),
        Outcome::Unchanged
    );
    let first = world
        .wait_for(&unit, "running", |state| state.main_pid.is_some())
        .await;
    assert_eq!((first.active, first.restarts), (Active::Active, 0));

    world.supervisor.signal(&unit, 9).await.unwrap();
    let again = |state: &UnitState| {
        state.active == Active::Active
            && state
                .main_pid
                .is_some_and(|pid| Some(pid) != first.main_pid)
    };
    let second = world.wait_for(&unit, "running again", again).await;
    assert_eq!(second.restarts, 1);

    assert_eq!(
        world.supervisor.stop(&unit).await.unwrap(),
        Outcome::Changed
    );
    assert_eq!(world.unit(&unit).await, None, "it vanished");
    assert_eq!(
        world.supervisor.stop(&unit).await.unwrap(),
        Outcome::Unchanged
    );
    let gone = world.supervisor.signal(&unit, 1).await;
    assert!(
        matches!(gone, Err(SupervisorError::NotFound { .. })),
        "{gone:?}"
    );
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn delays_between_restarts_grow_to_the_longest_and_start_over_when_cleared() {
    let world = World::new("c-delays").await;
    let unit = UnitId::daemon(&world.handle, "d");
    let plan = world.daemon("d", "cut -d' ' -f1 /proc/uptime >> runs; exit 3");
    world.supervisor.launch(&plan).await.unwrap();
    // 100, 200, 400, 800, 1600, 1600 ms
    let runs = world.wait_for_lines("runs", 7).await;
    let times: Vec<f64> = runs.iter().map(|line| line.parse().unwrap()).collect();
    let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let capabilities = world.supervisor.facts().await.unwrap().capabilities;
    let least = capabilities.between_starts.as_secs_f64();
    assert!(gaps[0] < 1.5 + least, "the first delay is short: {gaps:?}");
    assert!(
        gaps[4] >= 1.4 && gaps[5] >= 1.4,
        "the last ones are long: {gaps:?}"
    );
    assert!(gaps[2] > 0.3 && gaps[3] > 0.7, "they grow: {gaps:?}");

    // Where aegis-shim waits, the manager's own short delay comes before.
    let delay = |state: &UnitState| Some(state.next_restart?.saturating_sub(state.since));
    let waits_long = |state: &UnitState| {
        state.is_restarting() && delay(state).is_some_and(|delay| delay > 1_000_000)
    };
    let waiting = world.wait_for(&unit, "waiting", waits_long).await;
    assert!(waiting.restarts >= 6, "{waiting:?}");
    assert!(
        delay(&waiting).is_some_and(|delay| delay <= 1_700_000),
        "{waiting:?}"
    );

    assert_eq!(
        world.supervisor.stop(&unit).await.unwrap(),
        Outcome::Changed,
        "in its wait"
    );
    world.supervisor.launch(&plan).await.unwrap();
    let count = world.wait_for_lines("runs", 1).await.len();
    world.wait_for_lines("runs", count + 1).await;
    let fresh = world.unit(&unit).await.unwrap();
    assert!(
        fresh.restarts < 3,
        "a wanted start does not wait: {fresh:?}"
    );
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn clear_starts_the_delay_over_under_a_running_daemon() {
    let world = World::new("c-clear").await;
    let unit = UnitId::daemon(&world.handle, "d");
    world
        .supervisor
        .launch(&world.daemon("d", "exec sleep 1000"))
        .await
        .unwrap();
    world.supervisor.signal(&unit, 9).await.unwrap();
    let restarted = |state: &UnitState| state.restarts == 1 && state.main_pid.is_some();
    let before = world.wait_for(&unit, "restarted", restarted).await;
    assert_eq!(
        world.supervisor.clear(&unit).await.unwrap(),
        Outcome::Changed
    );
    let after = world.unit(&unit).await.unwrap();
    assert_eq!((after.restarts, after.main_pid), (0, before.main_pid));
    world.clean().await;
    assert_eq!(
        world.supervisor.clear(&unit).await.unwrap(),
        Outcome::Unchanged
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_daemon_that_ends_with_0_stays_to_be_seen_and_can_run_again() {
    let world = World::new("c-exit0").await;
    let unit = UnitId::daemon(&world.handle, "d");
    let plan = world.daemon("d", "echo run >> runs; exit 0");
    for runs in 1..=2 {
        assert_eq!(
            world.supervisor.launch(&plan).await.unwrap(),
            Outcome::Changed
        );
        world.wait_for_lines("runs", runs).await;
        let state = world.wait_for(&unit, "exited", UnitState::has_exited).await;
        assert_eq!(state.last_end, Some(ProcessEnd::Code(0)));
        assert_eq!(state.main_pid, None);
    }
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_daemon_that_ends_with_78_waits_and_the_name_can_be_used_again() {
    let world = World::new("c-exit78").await;
    let unit = UnitId::daemon(&world.handle, "d");
    world
        .supervisor
        .launch(&world.daemon("d", "echo run >> runs; exit 78"))
        .await
        .unwrap();
    let waiting = |state: &UnitState| state.waits_for_config();
    let state = world
        .wait_for(&unit, "waiting for its configuration", waiting)
        .await;
    assert_eq!(
        (state.active, state.result, state.restarts),
        (Active::Failed, RunResult::ExitCode, 0)
    );

    let fixed = world.daemon("d", "exec sleep 1000");
    assert_eq!(
        world.supervisor.launch(&fixed).await.unwrap(),
        Outcome::Changed
    );
    world
        .wait_for(&unit, "running", |state| state.active == Active::Active)
        .await;
    assert_eq!(world.wait_for_lines("runs", 1).await.len(), 1);
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_failed_unit_of_a_group_goes_with_the_group() {
    let world = World::new("c-failed").await;
    world
        .supervisor
        .launch(&world.daemon("d", "exit 78"))
        .await
        .unwrap();
    let unit = UnitId::daemon(&world.handle, "d");
    world
        .wait_for(&unit, "failed", |state| state.active == Active::Failed)
        .await;
    let group = UnitId::group(&world.handle);
    assert_eq!(
        world.supervisor.stop(&group).await.unwrap(),
        Outcome::Changed
    );
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_daemon_that_says_so_counts_as_started_when_it_is_ready() {
    let world = World::new("c-notify").await;
    // The last command of the line is the main process, so systemd-notify speaks for it.
    let script = "sleep 1; exec python3 -c '
import os, socket, time
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.connect(os.environ[\"NOTIFY_SOCKET\"])
to.send(b\"READY=1\\nSTATUS=at work\")
time.sleep(1000)'";
    let mut plan = world.daemon("d", script);
    plan.readiness = Readiness::Notify;
    world.supervisor.launch(&plan).await.unwrap();
    let state = world
        .unit(&UnitId::daemon(&world.handle, "d"))
        .await
        .unwrap();
    assert_eq!(
        (state.active, state.status.as_str()),
        (Active::Active, "at work")
    );
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_daemon_that_is_never_restarted_stays_failed_until_it_is_cleared() {
    let world = World::new("c-never").await;
    let unit = UnitId::daemon(&world.handle, "d");
    let mut plan = world.daemon("d", "echo run >> runs; exit 3");
    plan.restarts = Restarts::Never;
    world.supervisor.launch(&plan).await.unwrap();
    let failed = |state: &UnitState| state.active == Active::Failed;
    let state = world.wait_for(&unit, "failed", failed).await;
    assert_eq!(state.last_end, Some(ProcessEnd::Code(3)));
    assert_eq!((state.result, state.main_pid), (RunResult::ExitCode, None));
    let capabilities = world.supervisor.facts().await.unwrap().capabilities;
    tokio::time::sleep(capabilities.between_starts * 3).await;
    assert_eq!(world.wait_for_lines("runs", 1).await.len(), 1);
    assert_eq!(
        world.supervisor.clear(&unit).await.unwrap(),
        Outcome::Changed
    );
    assert_eq!(world.unit(&unit).await, None, "forgotten");
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_daemon_that_is_always_restarted_runs_again_after_an_end_with_0() {
    let world = World::new("c-always").await;
    let unit = UnitId::daemon(&world.handle, "d");
    let mut plan = world.daemon("d", "echo run >> runs; exit 0");
    plan.restarts = Restarts::Always;
    world.supervisor.launch(&plan).await.unwrap();
    world.wait_for_lines("runs", 3).await;
    assert_eq!(
        world.supervisor.stop(&unit).await.unwrap(),
        Outcome::Changed
    );
    assert_eq!(world.unit(&unit).await, None);
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_restart_and_a_signal_reach_the_daemon() {
    let world = World::new("c-restart").await;
    let unit = UnitId::daemon(&world.handle, "d");
    let script = "trap 'echo hup >> said' HUP; trap 'echo term >> said; exit 0' TERM; \
                  echo run >> said; while :; do sleep 0.1; done";
    world
        .supervisor
        .launch(&world.daemon("d", script))
        .await
        .unwrap();
    world.wait_for_lines("said", 1).await;
    world.supervisor.signal(&unit, 1).await.unwrap();
    assert_eq!(world.wait_for_lines("said", 2).await, ["run", "hup"]);
    let before = world.unit(&unit).await.unwrap();
    world.supervisor.restart(&unit).await.unwrap();
    let said = world.wait_for_lines("said", 4).await;
    assert_eq!(said, ["run", "hup", "term", "run"]);
    let after = world.unit(&unit).await.unwrap();
    assert_eq!(after.active, Active::Active);
    assert_ne!(
        (&after.main_pid, &after.run),
        (&before.main_pid, &before.run)
    );
    world.clean().await;
}
