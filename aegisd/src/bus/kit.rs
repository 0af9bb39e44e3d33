//! The Kit interface.

use std::collections::HashMap;
use std::sync::Arc;

use aegis_bus::dict::Dict;
use aegis_bus::error::BusFault;
use aegis_bus::kit::{KitDaemon, KitView};
use aegis_core::fault::{Fault, Symbol};

use crate::engine::Engine;

/// A kit's object.
#[derive(Debug)]
pub struct KitObject {
    engine: Arc<Engine>,
    object: String,
}

impl KitObject {
    pub fn new(engine: Arc<Engine>, object: String) -> Self {
        Self { engine, object }
    }

    fn view(&self) -> Result<Arc<KitView>, BusFault> {
        let view = self.engine.board().kit(&self.object);
        view.ok_or_else(|| Fault::new(Symbol::KitNotFound, "the kit is gone").into())
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Kit", introspection_docs = false)]
impl KitObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> Result<String, BusFault> {
        Ok(self.view()?.name.clone())
    }

    #[zbus(property)]
    fn version(&self) -> Result<String, BusFault> {
        Ok(self.view()?.version.clone())
    }

    #[zbus(property)]
    fn description(&self) -> Result<String, BusFault> {
        Ok(self.view()?.description.clone())
    }

    #[zbus(property)]
    fn usage(&self) -> Result<String, BusFault> {
        Ok(self.view()?.usage.clone())
    }

    #[zbus(property)]
    fn status(&self) -> Result<String, BusFault> {
        Ok(self.view()?.status.clone())
    }

    #[zbus(property)]
    fn status_reason(&self) -> Result<String, BusFault> {
        Ok(self.view()?.status_reason.clone())
    }

    #[zbus(property)]
    fn warnings(&self) -> Result<Vec<String>, BusFault> {
        Ok(self.view()?.warnings.clone())
    }

    #[zbus(property)]
    fn path(&self) -> Result<String, BusFault> {
        Ok(self.view()?.path.clone())
    }

    #[zbus(property)]
    fn installed(&self) -> Result<bool, BusFault> {
        Ok(self.view()?.installed)
    }

    #[zbus(property)]
    fn image(&self) -> Result<String, BusFault> {
        Ok(self.view()?.image.clone())
    }

    #[zbus(property)]
    fn command(&self) -> Result<Vec<String>, BusFault> {
        Ok(self.view()?.command.clone())
    }

    #[zbus(property)]
    fn daemons(&self) -> Result<Vec<String>, BusFault> {
        let view = self.view()?;
        let names = view.daemons.iter().map(|daemon| daemon.name.clone());
        Ok(names.collect())
    }

    #[zbus(property)]
    fn daemon_entries(&self) -> Result<Vec<Dict>, BusFault> {
        let view = self.view()?;
        Ok(view.daemons.iter().map(KitDaemon::to_dict).collect())
    }

    #[zbus(property)]
    fn inject(&self) -> Result<Vec<String>, BusFault> {
        Ok(self.view()?.inject.clone())
    }

    #[zbus(property)]
    fn files(&self) -> Result<Vec<String>, BusFault> {
        Ok(self.view()?.files.clone())
    }

    #[zbus(property)]
    fn variables(&self) -> Result<Vec<String>, BusFault> {
        Ok(self.view()?.variables.clone())
    }

    #[zbus(property)]
    fn programs(&self) -> Result<HashMap<String, String>, BusFault> {
        Ok(self.view()?.programs.clone())
    }
}
