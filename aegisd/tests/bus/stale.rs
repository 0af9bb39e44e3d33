//! Secrets of which somebody has an older value, and bringing the new ones to them.

use aegis_bus::instance::{RefreshOptions, StaleSecret};
use aegis_bus::job::JobState;
use aegis_bus::manager::SpecRequest;
use aegis_bus::secrets::{SecretsProxy, StaleUser};
use aegis_core::secret::SecretSource;
use aegisd::supervisor::UnitId;

use crate::world::{Client, World, plain};

async fn set(client: &Client, value: &str) {
    let values = [("KEY".parse().unwrap(), value.to_owned().into())];
    let set = client.engine.set_secrets(values.into(), true);
    set.await.unwrap();
}

/// What a unit's start would ask for.
async fn give(client: &Client, unit: &UnitId) {
    let instance = client.engine.get("web").unwrap();
    let vault = &client.engine.shared().vault;
    let (_, versions) = vault.give(&instance.record()).await.unwrap();
    instance.note_given(unit, versions).await;
}

async fn refresh(client: &Client, secrets: &[&str]) -> JobState {
    let secrets = secrets.iter().map(|&name| name.to_owned()).collect();
    let options = RefreshOptions { secrets };
    let instance = client.instance("web").await;
    let job = instance.refresh(&options.to_dict()).await.unwrap();
    client.end_of(job).await.state
}

#[tokio::test]
async fn who_has_an_older_value_is_shown_and_started_anew() {
    let world = World::new();
    world.install_kit("echo");
    let client = world.start().await;
    set(&client, "1").await;
    let spec = SpecRequest {
        kit: Some("echo".into()),
        secrets: [(
            "KEY".to_owned(),
            SecretSource::Named("KEY".parse().unwrap()),
        )]
        .into(),
        ..plain()
    };
    let made = client.create("web", spec, true).await;
    assert_eq!(made.state, JobState::Done, "{made:?}");
    client.wait_for("web", |view| view.state == "running").await;
    let handle = "web".parse().unwrap();
    let units = [UnitId::daemon(&handle, "true"), UnitId::vm(&handle)];
    for unit in &units {
        give(&client, unit).await;
    }
    set(&client, "1").await;
    assert_eq!(refresh(&client, &[]).await, JobState::Unchanged);
    set(&client, "2").await;
    client.wait_for("web", |view| !view.stale.is_empty()).await;
    drop(client);
    // Another aegisd knows it too.
    let client = world.start().await;
    client
        .wait_for("web", |view| {
            let held = |one: &StaleSecret| one.name == "KEY" && one.daemons == ["true"];
            view.stale.iter().any(|one| held(one) && one.guest)
        })
        .await;
    let secrets = SecretsProxy::new(&client.connection).await.unwrap();
    let users = secrets.stale(&["KEY"]).await.unwrap();
    let user = StaleUser::from_dict(users.into_iter().next().unwrap()).unwrap();
    assert_eq!((user.instance.as_str(), user.hibernated), ("web", false));
    assert!(secrets.stale(&["OTHER"]).await.unwrap().is_empty());
    assert_eq!(refresh(&client, &["OTHER"]).await, JobState::Unchanged);
    let pids = || units.each_ref().map(|unit| world.supervisor.pid(unit));
    let before = pids();
    assert_eq!(refresh(&client, &["KEY"]).await, JobState::Done);
    client.wait_for("web", |view| view.stale.is_empty()).await;
    let after = pids();
    assert!(before[0] != after[0] && before[1] != after[1], "{after:?}");
    client
        .engine
        .delete_secret("KEY".parse().unwrap(), true)
        .await
        .unwrap();
    assert!(
        client.view("web").await.stale.is_empty(),
        "no unit asked anew"
    );
}
