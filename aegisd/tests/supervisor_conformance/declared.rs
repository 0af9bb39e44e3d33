//! What a manager says it cannot do, it refuses or leaves undone, and says so.

use aegisd::supervisor::plan::Limits;
use aegisd::supervisor::{SupervisorError, UnitId, Usage};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_unit_with_secrets_does_not_start_without_them() {
    let world = World::new("c-secrets").await;
    let capabilities = world.supervisor.facts().await.unwrap().capabilities;
    assert!(!capabilities.credentials, "{capabilities:?}");
    let mut daemon = world.daemon("d", "echo run >> runs");
    daemon.credentials = Some(world.dir.join("credentials.sock"));
    let mut instance = world.instance(&[]);
    instance.credentials.clone_from(&daemon.credentials);
    for refused in [
        world.supervisor.launch(&daemon).await,
        world.supervisor.open(&instance).await,
    ] {
        assert!(
            matches!(refused, Err(SupervisorError::NoCredentials { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(world.units().await, []);
    assert!(!world.dir.join("runs").exists());
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
