//! Verbs of every day: restart, update, prune, kill, processes, stats.

use std::time::Duration;

use aegis_bus::dict::Dict;
use aegis_bus::instance::{GuestProcess, UpdateRequest, Usage};
use aegis_bus::job::JobState;
use aegis_bus::manager::SpecRequest;
use aegis_bus::prune::PruneOptions;
use aegis_core::fault::Symbol;
use aegis_core::limits::ResourceLimits;
use aegisd::supervisor::UnitId;

use crate::world::{Client, World, plain};

fn vm(handle: &str) -> UnitId {
    UnitId::vm(&handle.parse().unwrap())
}

async fn update(client: &Client, handle: &str, request: UpdateRequest) -> JobState {
    let instance = client.instance(handle).await;
    let job = instance.update(&request.to_dict()).await.unwrap();
    client.end_of(job).await.state
}

/// The symbol of an error of aegisd.
fn symbol(error: &zbus::Error) -> String {
    let zbus::Error::MethodError(name, ..) = error else {
        panic!("{error}")
    };
    name.as_str().rsplit('.').next().unwrap().to_owned()
}

#[tokio::test]
async fn restart_makes_a_fresh_vm_from_any_state() {
    let world = World::new();
    let client = world.start().await;
    client.create("web", plain(), true).await;
    client.wait_for("web", |view| view.state == "running").await;
    let before = world.supervisor.pid(&vm("web"));
    let web = client.instance("web").await;
    let none = Dict::new();
    let job = web.restart(&none).await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    client.wait_for("web", |view| view.state == "running").await;
    assert_ne!(world.supervisor.pid(&vm("web")), before);
    let job = web.disable().await.unwrap();
    client.end_of(job).await;
    let job = web.restart(&none).await.unwrap();
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    client
        .wait_for("web", |view| view.state == "running" && view.enabled)
        .await;
}

#[tokio::test]
async fn labels_and_limits_are_those_it_was_made_with() {
    let world = World::new();
    let client = world.start().await;
    let limits = ResourceLimits {
        memory_max_mib: Some(300),
        cpu_quota: None,
        tasks_max: Some(99),
    };
    let spec = SpecRequest {
        labels: [("team".to_owned(), "web".to_owned())].into(),
        limits,
        memory_mib: Some(128),
        cpus: Some(2),
        ..plain()
    };
    client.create("web", spec, false).await;
    let view = client.view("web").await;
    assert_eq!(view.labels, [("team".to_owned(), "web".to_owned())].into());
    assert_eq!(view.limits.memory_max_mib, Some(300));
    assert_eq!(
        (view.limits.cpu_quota, view.limits.tasks_max),
        (Some(300), Some(99))
    );
    let of_unit = world.supervisor.limits(&vm("web"));
    assert_eq!(
        (of_unit.memory_max, of_unit.tasks_max),
        (Some(300 << 20), Some(99))
    );
}

#[tokio::test]
async fn an_update_applies_at_once_what_can_and_the_rest_at_the_next_start() {
    let world = World::new();
    let client = world.start().await;
    client.create("web", plain(), true).await;
    client.wait_for("web", |view| view.state == "running").await;
    let before = world.supervisor.limits(&vm("web"));
    let request = UpdateRequest {
        memory_mib: Some(128),
        cpu_quota: Some(50),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..UpdateRequest::default()
    };
    assert_eq!(
        update(&client, "web", request.clone()).await,
        JobState::Done
    );
    client
        .wait_for("web", |view| view.pending == ["memory"])
        .await;
    let view = client.view("web").await;
    assert_eq!((view.memory_mib, view.limits.cpu_quota), (128, Some(50)));
    assert_eq!(view.labels, [("a".to_owned(), "b".to_owned())].into());
    let now = world.supervisor.limits(&vm("web"));
    assert_eq!(now.cpu_percent, Some(50));
    assert_eq!(
        now.memory_max, before.memory_max,
        "its guest still has the memory"
    );
    assert_eq!(update(&client, "web", request).await, JobState::Unchanged);

    let web = client.instance("web").await;
    let job = web.stop(&Dict::new()).await.unwrap();
    client.end_of(job).await;
    let smaller = || world.supervisor.limits(&vm("web")).memory_max < before.memory_max;
    while !smaller() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let job = web.start(&Dict::new()).await.unwrap();
    client.end_of(job).await;
    client
        .wait_for("web", |view| {
            view.state == "running" && view.pending.is_empty()
        })
        .await;
}

#[tokio::test]
async fn a_refused_update_changes_nothing() {
    let world = World::new();
    let client = world.start().await;
    client.create("web", plain(), true).await;
    let web = client.instance("web").await;
    let before = client.view("web").await;
    let bad = UpdateRequest {
        cpus: Some(3),
        memory_mib: Some(1),
        ..UpdateRequest::default()
    };
    let job = web.update(&bad.to_dict()).await.unwrap();
    let fault = client.end_of(job).await.fault.unwrap();
    assert_eq!(fault.symbol, Symbol::InvalidArgument);
    assert!(fault.message.contains("1 MiB"), "{fault}");
    world.supervisor.refuse_limits();
    let refused = UpdateRequest {
        cpus: Some(3),
        cpu_quota: Some(7),
        ..UpdateRequest::default()
    };
    let job = web.update(&refused.to_dict()).await.unwrap();
    let fault = client.end_of(job).await.fault.unwrap();
    assert_eq!(fault.symbol, Symbol::SupervisorFailed);
    let after = client.view("web").await;
    assert_eq!((after.cpus, &after.limits), (before.cpus, &before.limits));
    // The old limits are brought to the unit again, whatever the manager did.
    let registry = world.registry();
    let record = loop {
        let record = registry.load().await.unwrap().records.remove(0);
        if !record.limits_due {
            break record;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(record.spec.cpus, before.cpus);
    assert!(record.revisions.is_empty());
    let error = web.update(&Dict::new()).await.unwrap_err();
    assert_eq!(symbol(&error), "InvalidArgument");
}

#[tokio::test]
async fn prune_deletes_what_is_left_over_and_nothing_that_sleeps() {
    let world = World::new();
    let client = world.start().await;
    for handle in ["asleep", "off", "off-too", "running"] {
        client.create(handle, plain(), handle == "running").await;
    }
    client
        .wait_for("running", |view| view.state == "running")
        .await;
    for handle in ["off", "off-too"] {
        let job = client.instance(handle).await.disable().await.unwrap();
        client.end_of(job).await;
    }
    let manager = client.manager().await;
    let options = |options: PruneOptions| options.to_dict();
    let all = options(PruneOptions::default());
    assert_eq!(
        manager.find_prunable(&all).await.unwrap(),
        ["off", "off-too"]
    );
    let old = options(PruneOptions {
        older_than_secs: Some(3600),
        ..PruneOptions::default()
    });
    assert!(manager.find_prunable(&old).await.unwrap().is_empty());
    let one = options(PruneOptions {
        filters: vec!["name=too".parse().unwrap()],
        ..PruneOptions::default()
    });
    let (handles, job) = manager.prune(&one).await.unwrap();
    assert_eq!(handles, ["off-too"]);
    assert_eq!(client.end_of(job).await.state, JobState::Done);
    client.wait_gone("off-too").await;
    let asleep = options(PruneOptions {
        asleep: true,
        ..PruneOptions::default()
    });
    let (handles, job) = manager.prune(&asleep).await.unwrap();
    assert_eq!(handles, ["asleep", "off"]);
    client.end_of(job).await;
    client.wait_gone("asleep").await;
    client.wait_gone("off").await;
    let (handles, job) = manager.prune(&asleep).await.unwrap();
    assert!(handles.is_empty());
    assert_eq!(client.end_of(job).await.state, JobState::Unchanged);
    assert_eq!(client.view("running").await.state, "running");
}

#[tokio::test]
async fn kill_and_processes_reach_a_guest_that_runs_and_wake_none() {
    let world = World::new();
    let client = world.start().await;
    let spec = SpecRequest {
        command: Some(vec!["serve".into()]),
        ..plain()
    };
    client.create("web", spec, false).await;
    let web = client.instance("web").await;
    assert_eq!(symbol(&web.kill(9).await.unwrap_err()), "WrongState");
    assert_eq!(symbol(&web.processes().await.unwrap_err()), "WrongState");
    assert_eq!(client.view("web").await.state, "stopped");
    let job = web.start(&Dict::new()).await.unwrap();
    client.end_of(job).await;
    client.wait_for("web", |view| view.state == "running").await;
    web.kill(15).await.unwrap();
    assert_eq!(world.supervisor.killed(&"web".parse().unwrap()), 15);
    assert_eq!(symbol(&web.kill(65).await.unwrap_err()), "InvalidArgument");
    let processes = web.processes().await.unwrap();
    let first = GuestProcess::from_dict(processes.into_iter().next().unwrap()).unwrap();
    assert_eq!((first.pid, first.command.as_str()), (1, "init"));
}

#[tokio::test]
async fn what_is_not_accounted_for_is_absent_from_stats() {
    let world = World::new();
    let client = world.start().await;
    client.create("web", plain(), true).await;
    client.wait_for("web", |view| view.state == "running").await;
    let usage = client.instance("web").await.stats().await.unwrap();
    let usage = Usage::from_dict(usage).unwrap();
    assert_eq!(usage.units.len(), 1);
    let vm = &usage.units[0];
    assert_eq!(vm.unit, "aegis-vm-web.service");
    assert_eq!(
        (vm.memory, vm.cpu_ns, vm.tasks),
        (Some(1 << 20), None, Some(3))
    );
    assert!(vm.memory_max.is_some());
}
