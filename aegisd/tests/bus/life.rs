//! The life of an instance as a client lives it.

use std::io::Read;

use aegis_bus::dict::Dict;
use aegis_bus::instance::{DaemonState, DeleteOptions, ExecOptions};
use aegis_bus::job::JobState;
use aegis_bus::manager::{CreateOptions, SpecRequest};
use aegis_core::fault::{Fault, Symbol};
use futures_util::StreamExt;
use zbus::fdo::{ObjectManagerProxy, PropertiesProxy};

use crate::fake_owner::Boot;
use crate::world::{World, exists, plain, within};

#[tokio::test]
async fn create_start_stop_disable_enable_delete() {
    let world = World::new();
    let client = world.start().await;
    assert_eq!(
        client.create("web", plain(), true).await.state,
        JobState::Done
    );
    client.wait_for("web", |view| view.state == "running").await;
    let web = client.instance("web").await;
    let none = Dict::new();

    let job = web.start(&none).await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Unchanged);
    assert_eq!(web.pause(&none).await.unwrap(), "changed");
    assert_eq!(web.pause(&none).await.unwrap(), "unchanged");
    client.wait_for("web", |view| view.state == "paused").await;
    let job = web.start(&none).await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    client.wait_for("web", |view| view.state == "running").await;

    let job = web.stop(&none).await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    client.wait_for("web", |view| view.state == "stopped").await;
    let job = web.stop(&none).await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Unchanged);

    let job = web.disable().await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    client
        .wait_for("web", |view| view.state == "disabled")
        .await;
    assert_eq!(world.supervisor.names(), Vec::<String>::new());
    let error = web.exec(&["true"], &none).await.unwrap_err();
    assert!(error.to_string().contains("is disabled"), "{error}");
    let odd = ExecOptions {
        user: Some("no such: user".to_owned()),
        ..ExecOptions::default()
    };
    let error = web.exec(&["true"], &odd.to_dict()).await.unwrap_err();
    assert!(error.to_string().contains("no such: user"), "{error}");

    let job = web.start(&none).await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    client
        .wait_for("web", |view| view.state == "running" && view.enabled)
        .await;

    let job = web
        .delete(&DeleteOptions { purge: true }.to_dict())
        .await
        .unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    client.wait_gone("web").await;
    assert_eq!(world.supervisor.names(), Vec::<String>::new());
    assert!(world.files("instances").is_empty());
    assert!(world.registry().load().await.unwrap().records.is_empty());
}

#[tokio::test]
async fn an_instance_can_be_made_disabled() {
    let world = World::new();
    world.install_kit("k");
    let client = world.start().await;
    let spec = SpecRequest {
        kit: Some("k".to_owned()),
        ..plain()
    };
    let options = CreateOptions {
        disabled: true,
        ..CreateOptions::default()
    };
    let manager = client.manager().await;
    let (spec, options) = (spec.to_dict(), options.to_dict());
    let (_, job) = manager
        .create_instance("web", &spec, &options)
        .await
        .unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    client
        .wait_for("web", |view| view.state == "disabled")
        .await;
    assert_eq!(world.supervisor.names(), Vec::<String>::new());
    let folder = world.host().layout.kits().join("web");
    let config = folder.join("gateway.json");
    assert!(config.exists(), "its files are there to be changed");

    // As if aegisd had ended before it wrote them.
    std::fs::remove_dir_all(folder).unwrap();
    let job = client.instance("web").await.enable().await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    assert!(config.exists());
    client.wait_for("web", |view| view.enabled).await;
    assert_ne!(world.supervisor.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_client_follows_everything_by_signals() {
    let world = World::new();
    let client = world.start().await;
    let objects = ObjectManagerProxy::builder(&client.connection)
        .destination(aegis_bus::names::BUS_NAME)
        .path(aegis_bus::names::ROOT_PATH)
        .build()
        .await
        .unwrap();
    let mut added = objects.receive_interfaces_added().await.unwrap();
    let mut removed = objects.receive_interfaces_removed().await.unwrap();
    client.create("web", plain(), false).await;
    let path = aegis_bus::names::instance_path(&"web".parse().unwrap());
    within(async { while *added.next().await.unwrap().args().unwrap().object_path() != *path {} })
        .await;
    let properties = PropertiesProxy::builder(&client.connection)
        .destination(aegis_bus::names::BUS_NAME)
        .path(&path);
    let properties = properties.build().await.unwrap();
    let mut changes = properties.receive_properties_changed().await.unwrap();
    let web = client.instance("web").await;
    let job = web.start(&Dict::new()).await.unwrap();
    within(async {
        loop {
            let change = changes.next().await.unwrap();
            let change = change.args().unwrap();
            let state = change.changed_properties().get("State");
            if state.is_some_and(|state| <&str>::try_from(state).unwrap() == "running") {
                break;
            }
        }
    })
    .await;
    client.end_of(job).await;
    web.delete(&Dict::new()).await.unwrap();
    within(async {
        while *removed.next().await.unwrap().args().unwrap().object_path() != *path {}
    })
    .await;
}

#[tokio::test]
async fn a_vm_that_cannot_start_leaves_nothing_of_its_creation() {
    let world = World::new();
    world.install_kit("k");
    let client = world.start().await;
    let fault = Fault::new(Symbol::QemuMissing, "QEMU is not installed").with_hint("install it");
    world.supervisor.boots(Boot::Fail(fault.clone()));
    let spec = SpecRequest {
        kit: Some("k".into()),
        ..plain()
    };
    let outcome = client.create("web", spec, true).await;
    assert_eq!(outcome.state, JobState::Failed);
    assert_eq!(outcome.fault, Some(fault));
    client.wait_gone("web").await;
    assert_eq!(world.supervisor.names(), Vec::<String>::new());
    assert!(world.files("instances").is_empty());
    assert!(!exists(&world.host().layout.kits().join("web")));
    assert!(world.registry().load().await.unwrap().records.is_empty());
}

#[tokio::test]
async fn a_taken_port_is_named_and_leaves_nothing() {
    let world = World::new();
    let client = world.start().await;
    world.supervisor.take_address("127.0.0.1:8080");
    let spec = SpecRequest {
        ports: vec!["8080:80".parse().unwrap()],
        ..plain()
    };
    let fault = client.create("web", spec, true).await.fault.unwrap();
    assert_eq!(fault.symbol, Symbol::PortInUse);
    assert!(
        fault.message.contains("127.0.0.1:8080"),
        "{}",
        fault.message
    );
    assert!(world.files("instances").is_empty());
}

#[tokio::test]
async fn a_failed_start_of_an_instance_keeps_it_and_stops_its_vm() {
    let world = World::new();
    let client = world.start().await;
    client.create("web", plain(), false).await;
    world
        .supervisor
        .boots(Boot::Fail(Fault::new(Symbol::KernelMissing, "no kernel")));
    let job = client
        .instance("web")
        .await
        .start(&Dict::new())
        .await
        .unwrap();
    let fault = client.end_of(job).await.fault.unwrap();
    assert_eq!(fault.symbol, Symbol::KernelMissing);
    client.wait_for("web", |view| view.state == "stopped").await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_there_is_a_job() {
    let world = World::new();
    let client = world.start().await;
    client.create("web", plain(), false).await;
    let manager = client.manager().await;
    let options = CreateOptions::default().to_dict();
    let no_kit = SpecRequest {
        kit: Some("nope".into()),
        ..plain()
    };
    let image = SpecRequest {
        image: Some("alpine".into()),
        ..plain()
    };
    for (handle, spec, symbol) in [
        ("WEB", plain(), "AlreadyExists"),
        ("a b", plain(), "InvalidHandle"),
        ("x", no_kit, "KitNotFound"),
        ("x", image, "ImageUnavailable"),
    ] {
        let error = manager
            .create_instance(handle, &spec.to_dict(), &options)
            .await
            .unwrap_err();
        let zbus::Error::MethodError(name, ..) = error else {
            panic!("{error}")
        };
        assert_eq!(name.as_str(), format!("org.aegisvm.Aegis1.Error.{symbol}"));
    }
    assert!(manager.get_instance("x").await.is_err());
    assert_eq!(world.files("instances").len(), 1);
}

#[tokio::test]
async fn an_exec_wakes_the_vm_and_its_descriptors_reach_the_client() {
    let world = World::new();
    let client = world.start().await;
    client.create("web", plain(), false).await;
    let options = ExecOptions::default().to_dict();
    let web = client.instance("web").await;
    let (_, stdout, _, control) = web.exec(&["hello", "you"], &options).await.unwrap();
    let read = |descriptor: zbus::OwnedFd| {
        let mut text = String::new();
        let mut file = std::fs::File::from(std::os::fd::OwnedFd::from(descriptor));
        file.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(read(stdout), "hello you");
    assert!(read(control).ends_with("{\"exited\":{\"code\":0}}\n"));
    client.wait_for("web", |view| view.state == "running").await;
}

#[tokio::test]
async fn a_start_can_be_cancelled_and_overtaken() {
    let world = World::new();
    let client = world.start().await;
    client.create("web", plain(), false).await;
    world.supervisor.boots(Boot::Hang);
    let web = client.instance("web").await;
    let job = web.start(&Dict::new()).await.unwrap();
    client
        .wait_for("web", |view| view.state == "starting")
        .await;
    let proxy = aegis_bus::job::JobProxy::builder(&client.connection).path(&job);
    proxy.build().await.unwrap().cancel().await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Cancelled);
    client.wait_for("web", |view| view.state == "stopped").await;

    let start = web.start(&Dict::new()).await.unwrap();
    client
        .wait_for("web", |view| view.state == "starting")
        .await;
    let stop = web.stop(&Dict::new()).await.unwrap();
    assert_eq!(client.end_of(start).await.state, JobState::Cancelled);
    assert_eq!(client.end_of(stop).await.state, JobState::Done);
}

#[tokio::test]
async fn daemons_live_as_long_as_the_instance_is_enabled() {
    let world = World::new();
    world.install_kit("k");
    let client = world.start().await;
    let spec = SpecRequest {
        kit: Some("k".into()),
        ..plain()
    };
    client.create("web", spec, true).await;
    let unit = aegisd::supervisor::UnitId::daemon(&"web".parse().unwrap(), "true");
    let pid = world.supervisor.pid(&unit).unwrap();
    let web = client.instance("web").await;
    let job = web.stop(&Dict::new()).await.unwrap();
    client.end_of(job).await;
    assert_eq!(world.supervisor.pid(&unit), Some(pid), "it survives the VM");
    let view = client.view("web").await;
    assert_eq!(
        (view.daemons[0].label.as_str(), view.daemons[0].state),
        ("Gateway", DaemonState::Running)
    );
    assert_eq!((view.kit.as_str(), view.kit_version.as_str()), ("k", "1"));

    let config = world.host().layout.kits().join("web/gateway.json");
    std::fs::write(&config, "{\"a\":2}").unwrap();
    client
        .wait_for("web", |view| view.daemons[0].pid > pid)
        .await;

    let job = web.disable().await.unwrap();
    client.end_of(job).await;
    client
        .wait_for("web", |view| view.daemons[0].state == DaemonState::Stopped)
        .await;
    assert!(exists(&config), "the user's config stays");
}

#[tokio::test]
async fn an_ephemeral_instance_goes_with_its_vm() {
    let world = World::new();
    let client = world.start().await;
    let spec = SpecRequest {
        ephemeral: true,
        ..plain()
    };
    client.create("run-1", spec, true).await;
    client
        .wait_for("run-1", |view| view.state == "running" && view.ephemeral)
        .await;
    let vm = aegisd::supervisor::UnitId::vm(&"run-1".parse().unwrap());
    world.supervisor.lose(&vm, false);
    client.wait_gone("run-1").await;
    assert_eq!(world.supervisor.names(), Vec::<String>::new());
    assert!(world.files("instances").is_empty());
}
