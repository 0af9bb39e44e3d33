//! What a manager says it cannot do, it leaves undone and says so, or it is done otherwise.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::channel;
use std::time::Duration;

use aegisd::supervisor::plan::{Confinement, HelperPlan, Limits, Program};
use aegisd::supervisor::{UnitId, Usage};
use rustix::net::sockopt::socket_peercred;

use crate::world::{PATIENCE, World};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_unit_asks_for_its_secrets_itself_at_each_start() {
    let world = World::new("c-secrets").await;
    let capabilities = world.supervisor.facts().await.unwrap().capabilities;
    assert!(!capabilities.credentials, "{capabilities:?}");
    let socket = world.dir.join("credentials.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for (number, stream) in (1..).zip(listener.incoming()) {
            let mut stream = stream.unwrap();
            let peer = socket_peercred(&stream).unwrap();
            sender.send(peer.pid.as_raw_nonzero().get()).unwrap();
            // It ends when the test does.
            if write!(stream, r#"{{"env":{{"TOKEN":"secret {number}"}}}}"#).is_err() {
                return;
            }
        }
    });
    let script = "echo $TOKEN >> seen; exec sleep 1000";
    let plan = world.daemon_with("asks", script, Some(socket));
    world.supervisor.launch(&plan).await.unwrap();
    assert_eq!(world.wait_for_lines("seen", 1).await, ["secret 1"]);
    let unit = UnitId::daemon(&world.handle, "asks");
    world.supervisor.restart(&unit).await.unwrap();
    let seen = world.wait_for_lines("seen", 2).await;
    assert_eq!(seen, ["secret 1", "secret 2"]);
    asked.recv_timeout(PATIENCE).unwrap();
    let process = asked.recv_timeout(PATIENCE).unwrap();
    let process = u32::try_from(process).unwrap();
    let place = world.supervisor.place(process).await.unwrap();
    assert_eq!(place, unit.name(), "who asks is known by its process");
    let own = world.supervisor.place(std::process::id()).await.unwrap();
    assert_eq!(own, "");
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_helper_is_a_process_beside_the_jobs() {
    let world = World::new("c-helper").await;
    let (ours, theirs) = std::io::pipe().unwrap();
    let output = world.dir.join("said");
    let script = format!("cat > {}", output.display());
    let plan = HelperPlan {
        name: "aegis-helper-test".into(),
        description: "Test helper".into(),
        program: Program {
            path: "/bin/sh".into(),
            arguments: vec!["-c".into(), script],
        },
        input: OwnedFd::from(ours),
        confinement: Confinement::Waived,
    };
    world.supervisor.help(plan).await.unwrap();
    let mut input = theirs;
    writeln!(input, "an order").unwrap();
    drop(input);
    assert_eq!(world.wait_for_lines("said", 1).await, ["an order"]);
    assert_eq!(world.units().await, [], "it is no unit of the instance");
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn what_a_job_writes_is_kept_within_bounds() {
    let world = World::new("c-logs").await;
    let script = "while :; do head -c 1000000 /dev/zero; sleep 0.1; done";
    world
        .supervisor
        .launch(&world.daemon("loud", script))
        .await
        .unwrap();
    let log = world.layout.instance(&world.handle).log_dir();
    let (log, before) = (log.join("daemon-loud.log"), log.join("daemon-loud.log.1"));
    let end = std::time::Instant::now() + 2 * PATIENCE;
    // It goes on in the file that it has, from its beginning, once that was copied.
    let is_cut = || before.exists() && std::fs::metadata(&log).unwrap().len() < 64 << 20;
    while !is_cut() {
        assert!(std::time::Instant::now() < end, "it is never cut");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn limits_are_left_and_the_obstacle_is_told() {
    let world = World::new("c-limits").await;
    let capabilities = world.supervisor.facts().await.unwrap().capabilities;
    assert!(!capabilities.confinement, "{capabilities:?}");
    let obstacle = world.supervisor.confinement_obstacle().await.unwrap();
    assert!(obstacle.is_some_and(|obstacle| obstacle.contains("no sandbox")));
    let unit = UnitId::daemon(&world.handle, "d");
    let plan = world.daemon("d", "exec sleep 1000");
    world.supervisor.launch(&plan).await.unwrap();
    let limits = Limits {
        memory_max: Some(1 << 20),
        ..Limits::default()
    };
    world.supervisor.limit(&unit, &limits).await.unwrap();
    let state = world.unit(&unit).await.unwrap();
    assert_eq!(state.limits, Limits::default(), "it claims none");
    let usage = world.supervisor.usage(&unit).await.unwrap();
    assert_eq!(usage, Usage::default());
    world.clean().await;
}
