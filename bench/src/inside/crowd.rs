//! Many instances, made and deleted over one bus connection.

use aegis_bus::instance::{DeleteOptions, InstanceProxy};
use aegis_bus::manager::{CreateOptions, ManagerProxy, SpecRequest};
use aegis_core::layout::Mode;
use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use zbus::{Connection, OwnedObjectPath};

use super::tools::{output, wait_for};

/// Instances `NAME0`, `NAME1` and so on.
pub(super) struct Crowd {
    runtime: Runtime,
    name: &'static str,
    kit: Option<&'static str>,
    size: usize,
}

impl Crowd {
    /// None as yet.
    pub(super) fn new(name: &'static str, kit: Option<&'static str>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting a runtime")?;
        Ok(Self {
            runtime,
            name,
            kit,
            size: 0,
        })
    }

    /// All handles.
    pub(super) fn handles(&self) -> impl Iterator<Item = String> {
        let name = self.name;
        (0..self.size).map(move |index| format!("{name}{index}"))
    }

    /// Makes instances until there are `size`; those beyond `enabled` are disabled at
    /// once. Comes back when the sockets of all others listen.
    pub(super) fn grow(&mut self, size: usize, enabled: usize) -> Result<()> {
        let made = self.size;
        self.size = size;
        let new: Vec<(usize, String)> = self.handles().enumerate().skip(made).collect();
        let spec = SpecRequest {
            kit: self.kit.map(str::to_owned),
            ..SpecRequest::default()
        };
        let options = CreateOptions {
            start: false,
            ..CreateOptions::default()
        };
        self.runtime.block_on(async {
            let bus = bus().await?;
            let manager = ManagerProxy::new(&bus).await.context("finding aegisd")?;
            for (index, handle) in new {
                let (path, _job) = manager
                    .create_instance(&handle, &spec.to_dict(), &options.to_dict())
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
            anyhow::Ok(())
        })?;
        self.wait_for_sockets(enabled.min(size))
    }

    /// Deletes all of them, and their daemons' config.
    pub(super) fn delete(&mut self) -> Result<()> {
        let handles: Vec<String> = self.handles().collect();
        self.runtime.block_on(async {
            let bus = bus().await?;
            let manager = ManagerProxy::new(&bus).await.context("finding aegisd")?;
            let options = DeleteOptions { purge: true };
            for handle in handles {
                let path = manager
                    .get_instance(&handle)
                    .await
                    .with_context(|| format!("finding {handle}"))?;
                instance(&bus, path)
                    .await?
                    .delete(&options.to_dict())
                    .await
                    .with_context(|| format!("deleting {handle}"))?;
            }
            anyhow::Ok(())
        })?;
        self.size = 0;
        self.wait_for_sockets(0)
    }

    fn wait_for_sockets(&self, count: usize) -> Result<()> {
        let pattern = format!("aegis-vm-{}*.socket", self.name);
        let arguments = [
            "--user",
            "list-units",
            "--no-legend",
            "--plain",
            "--state=active",
            &pattern,
        ];
        wait_for("the sockets of all instances", || {
            let listening = output("systemctl", &arguments)?.lines().count();
            Ok((listening == count).then_some(()))
        })
    }
}

async fn bus() -> Result<Connection> {
    aegis_bus::connect::connect(Mode::User)
        .await
        .context("connecting to the bus")
}

async fn instance(bus: &Connection, path: OwnedObjectPath) -> Result<InstanceProxy<'static>> {
    InstanceProxy::builder(bus)
        .path(path)
        .build()
        .await
        .context("finding an instance")
}
