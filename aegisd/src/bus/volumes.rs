//! The Volumes interface.

use aegis_bus::dict::{Dict, DictReader};
use aegis_bus::error::BusFault;
use aegis_bus::volumes::{PruneVolumesOptions, VolumeEntry};
use zbus::Connection;
use zbus::message::Header;

use super::Service;
use super::access::Owned;
use super::manager::{failed, refused};
use crate::volumes::Listed;

/// The volumes' object.
#[derive(Debug)]
pub struct VolumesObject {
    service: Service,
}

impl Owned for VolumesObject {}

impl VolumesObject {
    pub fn new(service: Service) -> Self {
        Self { service }
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Volumes", introspection_docs = false)]
impl VolumesObject {
    #[zbus(out_args("made"))]
    async fn create(
        &self,
        name: String,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, BusFault> {
        no_options(options)?;
        let caller = self.service.gate.caller(connection, &header).await?;
        let made = self.service.engine.make_volume(&caller, &name).await;
        made.map_err(failed)
    }

    #[zbus(out_args("volumes"))]
    async fn list(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<Dict>, BusFault> {
        let caller = self.service.gate.caller(connection, &header).await?;
        let listed = self.service.engine.volumes(&caller).await.map_err(failed)?;
        Ok(listed
            .into_iter()
            .map(|volume| entry(volume).to_dict())
            .collect())
    }

    async fn remove(
        &self,
        name: String,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), BusFault> {
        no_options(options)?;
        let caller = self.service.gate.caller(connection, &header).await?;
        let removed = self.service.engine.remove_volume(&caller, &name).await;
        removed.map_err(failed)
    }

    #[zbus(out_args("names"))]
    async fn prune(
        &self,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, BusFault> {
        let PruneVolumesOptions { dry_run } =
            PruneVolumesOptions::from_dict(options).map_err(refused)?;
        let caller = self.service.gate.caller(connection, &header).await?;
        let pruned = self.service.engine.prune_volumes(&caller, dry_run).await;
        pruned.map_err(failed)
    }
}

fn no_options(options: Dict) -> Result<(), BusFault> {
    DictReader::new("option", options).finish().map_err(refused)
}

fn entry(listed: Listed) -> VolumeEntry {
    VolumeEntry {
        name: listed.name,
        path: listed.path.display().to_string(),
        created_at_us: listed.created_at,
        used_by: listed.users,
    }
}
