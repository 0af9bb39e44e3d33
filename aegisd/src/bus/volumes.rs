//! The Volumes interface.

use std::sync::Arc;

use aegis_bus::dict::{Dict, DictReader};
use aegis_bus::error::BusFault;
use aegis_bus::volumes::{PruneVolumesOptions, VolumeEntry};

use super::manager::{failed, refused};
use crate::engine::Engine;
use crate::volumes::Listed;

/// The volumes' object.
#[derive(Debug)]
pub struct VolumesObject {
    engine: Arc<Engine>,
}

impl VolumesObject {
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Volumes", introspection_docs = false)]
impl VolumesObject {
    #[zbus(out_args("made"))]
    async fn create(&self, name: String, options: Dict) -> Result<bool, BusFault> {
        no_options(options)?;
        self.engine.make_volume(&name).await.map_err(failed)
    }

    #[zbus(out_args("volumes"))]
    async fn list(&self) -> Result<Vec<Dict>, BusFault> {
        let listed = self.engine.volumes().await.map_err(failed)?;
        Ok(listed
            .into_iter()
            .map(|volume| entry(volume).to_dict())
            .collect())
    }

    async fn remove(&self, name: String, options: Dict) -> Result<(), BusFault> {
        no_options(options)?;
        self.engine.remove_volume(&name).await.map_err(failed)
    }

    #[zbus(out_args("names"))]
    async fn prune(&self, options: Dict) -> Result<Vec<String>, BusFault> {
        let PruneVolumesOptions { dry_run } =
            PruneVolumesOptions::from_dict(options).map_err(refused)?;
        self.engine.prune_volumes(dry_run).await.map_err(failed)
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
