//! What aegisd finds when it starts, and what others do to its units.

use aegis_bus::dict::Dict;
use aegis_bus::job::JobState;
use aegis_bus::manager::{CreateOptions, SpecRequest};
use aegis_core::handle::Handle;
use aegis_core::spec::InstanceSpec;
use aegisd::registry::{Intent, Record, SCHEMA_VERSION};
use aegisd::supervisor::UnitId;

use crate::world::{World, plain, within};

fn handle() -> Handle {
    "web".parse().unwrap()
}

/// aegisd writes an intent and is killed before it acts.
async fn killed_with(world: &World, intent: Intent, ephemeral: bool) {
    let spec = InstanceSpec {
        ephemeral,
        ..Default::default()
    };
    let record = Record {
        intent,
        ..Record::new(handle(), spec, 1)
    };
    world.registry().insert(record, Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_vm_goes_on_without_aegisd_and_is_found_again() {
    let world = World::new();
    let first = world.start().await;
    first.create("web", plain(), true).await;
    let pid = world.supervisor.pid(&UnitId::vm(&handle()));
    drop(first);
    let second = world.start().await;
    second.wait_for("web", |view| view.state == "running").await;
    assert_eq!(world.supervisor.pid(&UnitId::vm(&handle())), pid);
}

#[tokio::test]
async fn an_interrupted_creation_is_finished() {
    let world = World::new();
    killed_with(&world, Intent::Creating, false).await;
    let client = world.start().await;
    client
        .wait_for("web", |view| view.state == "stopped" && view.enabled)
        .await;
    let job = client
        .instance("web")
        .await
        .start(&Dict::new())
        .await
        .unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
}

#[tokio::test]
async fn an_interrupted_run_or_deletion_is_cleaned_up() {
    for (intent, ephemeral) in [(Intent::Creating, true), (Intent::Deleting, false)] {
        let world = World::new();
        killed_with(&world, intent, ephemeral).await;
        let client = world.start().await;
        client.wait_gone("web").await;
        assert!(world.registry().load().await.unwrap().records.is_empty());
        assert!(world.files("instances").is_empty());
    }
}

#[tokio::test]
async fn units_of_no_instance_are_stopped() {
    let world = World::new();
    let first = world.start().await;
    first.create("web", plain(), true).await;
    world.registry().remove(handle()).await.unwrap();
    drop(first);
    let _second = world.start().await;
    assert_eq!(world.supervisor.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_lost_unit_is_made_again_and_a_stopped_one_is_not() {
    let world = World::new();
    let client = world.start().await;
    client.create("web", plain(), false).await;
    let sockets = UnitId::sockets(&handle());
    let has_sockets = || world.supervisor.names().contains(&sockets.name());

    world.supervisor.lose(&sockets, false);
    while !has_sockets() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    world.supervisor.lose(&sockets, true);
    client
        .wait_for("web", |view| {
            view.state_reason.contains("stopped by systemctl")
        })
        .await;
    assert!(!has_sockets());

    drop(client);
    let client = world.start().await;
    client
        .wait_for("web", |view| {
            view.state_reason.contains("stopped by systemctl")
        })
        .await;
    assert!(!has_sockets(), "nor by the next aegisd");
    let job = client.instance("web").await.enable().await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    assert!(has_sockets());
}

#[tokio::test]
async fn a_daemon_that_was_being_started_again_is_not_taken_for_stopped() {
    let world = World::new();
    world.install_kit("k");
    let client = world.start().await;
    let spec = SpecRequest {
        kit: Some("k".into()),
        ..plain()
    };
    client.create("web", spec, false).await;
    let daemon = UnitId::daemon(&handle(), "true");
    let has_daemon = || world.supervisor.names().contains(&daemon.name());
    assert!(has_daemon());
    world.supervisor.fail_and_stall(&daemon);
    client.instance("web").await.enable().await.unwrap();
    while has_daemon() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop(client);
    let _second = world.start().await;
    within(async {
        while !has_daemon() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn everything_rests_after_stop_all_until_the_next_aegisd() {
    let world = World::new();
    let client = world.start().await;
    client.create("web", plain(), true).await;
    let job = client.manager().await.stop_all(&Dict::new()).await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    assert_eq!(world.supervisor.names(), Vec::<String>::new());
    drop(client);
    let client = world.start().await;
    client
        .wait_for("web", |view| {
            view.state == "stopped" && view.state_reason.is_empty()
        })
        .await;
    let job = client
        .instance("web")
        .await
        .start(&Dict::new())
        .await
        .unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
}

#[tokio::test]
async fn a_registry_of_a_newer_version_is_refused_with_its_symbol() {
    let world = World::new();
    let first = world.start().await;
    first.create("web", plain(), false).await;
    drop(first);
    let path = world.host().layout.registry();
    let database = rusqlite::Connection::open(path).unwrap();
    database
        .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
        .unwrap();
    let client = world.start().await;
    let manager = client.manager().await;
    let options = CreateOptions::default().to_dict();
    let created = manager.create_instance("new", &Dict::new(), &options).await;
    let zbus::Error::MethodError(name, ..) = created.unwrap_err() else {
        panic!()
    };
    assert_eq!(name.as_str(), "org.aegisvm.Aegis1.Error.RegistryTooNew");
    assert!(
        !world.supervisor.names().is_empty(),
        "nothing is stopped either"
    );
    let rows = manager.check().await.unwrap();
    assert!(
        rows.iter()
            .any(|row| row.id == "registry" && row.status == "fail")
    );
}

#[tokio::test]
async fn an_unreadable_record_is_shown_and_its_units_are_left_alone() {
    let world = World::new();
    let first = world.start().await;
    first.create("web", plain(), false).await;
    drop(first);
    let database = rusqlite::Connection::open(world.host().layout.registry()).unwrap();
    database
        .execute("UPDATE instance SET spec = 'x'", [])
        .unwrap();
    let client = world.start().await;
    let manager = client.manager().await;
    assert!(manager.quarantined().await.unwrap()[0].starts_with("web: "));
    assert!(!world.supervisor.names().is_empty());
    let options = CreateOptions::default().to_dict();
    assert!(
        manager
            .create_instance("web", &Dict::new(), &options)
            .await
            .is_err()
    );
}
