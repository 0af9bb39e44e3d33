//! Many instances: lists, a restart of aegisd, its memory.

use aegis_bus::instance::{DeleteOptions, InstanceProxy};
use aegis_bus::manager::{CreateOptions, ManagerProxy, SpecRequest};
use aegis_core::layout::Mode;
use anyhow::{Context, Result};
use zbus::Connection;

use super::tools::{aegis, output, property, resident, wait_for};
use crate::row::Row;
use crate::samples::Samples;

/// Registered instances, and how many of them are enabled.
const SIZES: [(usize, usize); 3] = [(1, 1), (100, 100), (1000, 100)];
const LISTS: usize = 9;
/// Containers that podman lists; making more would take longer than all else.
const CONTAINERS: usize = 100;
/// Goals for aegisd's memory in MB.
const IDLE_GOAL: f64 = 15.0;
const FULL_GOAL: f64 = 25.0;

pub(super) fn measure() -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?;
    let podman = podman_list();
    if let Err(error) = &podman {
        eprintln!("podman does not serve as a peer: {error:#}");
    }
    let podman = podman.ok();
    let mut rows = Vec::new();
    let mut made = 0;
    output("systemctl", &["--user", "restart", "aegisd.service"])?;
    aegis(&["instance", "list"])?;
    rows.push(Row::new("resident memory of aegisd, idle", "MB", aegisd()?).goal(IDLE_GOAL));
    for (size, enabled) in SIZES {
        runtime.block_on(grow(made, size, enabled))?;
        made = size;
        wait_for("all sockets", || Ok((sockets()? == enabled).then_some(())))?;
        let list = Samples::time(LISTS, || aegis(&["instance", "list"]).map(drop))?;
        let what = format!("`instance list` of {size}, {enabled} enabled");
        let row = Row::new(what, "ms", list.median());
        rows.push(match podman {
            Some(podman) => row.against(format!("`podman ps` of {CONTAINERS} containers"), podman),
            None => row,
        });
    }
    let restart = Samples::time(3, || {
        output("systemctl", &["--user", "restart", "aegisd.service"])?;
        aegis(&["instance", "list"]).map(drop)
    })?;
    let nothing = Samples::time(5, || {
        output("systemd-run", &["--user", "--quiet", "--wait", "true"]).map(drop)
    })?;
    rows.push(
        Row::new(
            "aegisd restarted until it lists 1000 again",
            "ms",
            restart.median(),
        )
        .against("a transient unit that does nothing", nothing.median()),
    );
    rows.push(
        Row::new("resident memory of aegisd, 1000 instances", "MB", aegisd()?).goal(FULL_GOAL),
    );
    runtime.block_on(shrink(made))?;
    wait_for("all sockets to be gone", || {
        Ok((sockets()? == 0).then_some(()))
    })?;
    Ok(rows)
}

fn aegisd() -> Result<f64> {
    resident(&property("aegisd.service", "MainPID")?)
}

/// Sockets of instances that listen.
fn sockets() -> Result<usize> {
    let arguments = [
        "--user",
        "list-units",
        "--no-legend",
        "--plain",
        "--state=active",
        "aegis-vm-fleet*.socket",
    ];
    Ok(output("systemctl", &arguments)?.lines().count())
}

fn handle(index: usize) -> String {
    format!("fleet{index}")
}

async fn bus() -> Result<Connection> {
    aegis_bus::connect::connect(Mode::User)
        .await
        .context("connecting to the bus")
}

/// Makes the instances from one number to another; those beyond `enabled` are
/// disabled at once.
async fn grow(from: usize, to: usize, enabled: usize) -> Result<()> {
    let bus = bus().await?;
    let manager = ManagerProxy::new(&bus).await.context("finding aegisd")?;
    let options = CreateOptions {
        start: false,
        ..CreateOptions::default()
    };
    for index in from..to {
        let handle = handle(index);
        let (path, _job) = manager
            .create_instance(
                &handle,
                &SpecRequest::default().to_dict(),
                &options.to_dict(),
            )
            .await
            .with_context(|| format!("making {handle}"))?;
        if index >= enabled {
            instance(&bus, path)
                .await?
                .disable()
                .await
                .with_context(|| format!("disabling {handle}"))?;
        }
    }
    Ok(())
}

async fn shrink(count: usize) -> Result<()> {
    let bus = bus().await?;
    let manager = ManagerProxy::new(&bus).await.context("finding aegisd")?;
    for index in 0..count {
        let path = manager
            .get_instance(&handle(index))
            .await
            .context("finding an instance")?;
        let options = DeleteOptions { purge: true };
        instance(&bus, path)
            .await?
            .delete(&options.to_dict())
            .await
            .context("deleting")?;
    }
    Ok(())
}

async fn instance(bus: &Connection, path: zbus::OwnedObjectPath) -> Result<InstanceProxy<'static>> {
    InstanceProxy::builder(bus)
        .path(path)
        .build()
        .await
        .context("finding an instance")
}

/// How long podman takes to list its containers.
fn podman_list() -> Result<f64> {
    let make = format!(
        "set -e
         podman rm --all --force >/dev/null
         tar --create --dereference /bin/true | podman import --quiet - aegis-bench >/dev/null
         for number in $(seq {CONTAINERS}); do podman create --quiet aegis-bench /bin/true >/dev/null; done"
    );
    output("sh", &["-c", &make])?;
    let list = Samples::time(LISTS, || output("podman", &["ps", "--all"]).map(drop))?;
    Ok(list.median())
}
