//! The Kit interface.

use std::collections::HashMap;
use std::sync::Arc;

use aegis_bus::dict::Dict;
use aegis_bus::kit::{KitDaemon, KitView};

use super::access::Owned;
use super::objects::{Looks, Shows};

/// A kit's object.
#[derive(Debug)]
pub struct KitObject {
    looks: Looks<KitView>,
}

impl KitObject {
    pub fn new(view: Arc<KitView>) -> Self {
        Self {
            looks: Looks::new(view),
        }
    }
}

impl Owned for KitObject {}

impl Shows<KitView> for KitObject {
    fn show(&self, view: Arc<KitView>) {
        self.looks.set(view);
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Kit", introspection_docs = false)]
impl KitObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.looks.get().name.clone()
    }

    #[zbus(property)]
    fn version(&self) -> String {
        self.looks.get().version.clone()
    }

    #[zbus(property)]
    fn description(&self) -> String {
        self.looks.get().description.clone()
    }

    #[zbus(property)]
    fn usage(&self) -> String {
        self.looks.get().usage.clone()
    }

    #[zbus(property)]
    fn status(&self) -> String {
        self.looks.get().status.clone()
    }

    #[zbus(property)]
    fn status_reason(&self) -> String {
        self.looks.get().status_reason.clone()
    }

    #[zbus(property)]
    fn warnings(&self) -> Vec<String> {
        self.looks.get().warnings.clone()
    }

    #[zbus(property)]
    fn path(&self) -> String {
        self.looks.get().path.clone()
    }

    #[zbus(property)]
    fn installed(&self) -> bool {
        self.looks.get().installed
    }

    #[zbus(property)]
    fn image(&self) -> String {
        self.looks.get().image.clone()
    }

    #[zbus(property)]
    fn command(&self) -> Vec<String> {
        self.looks.get().command.clone()
    }

    #[zbus(property)]
    fn daemons(&self) -> Vec<String> {
        let view = self.looks.get();
        let names = view.daemons.iter().map(|daemon| daemon.name.clone());
        names.collect()
    }

    #[zbus(property)]
    fn daemon_entries(&self) -> Vec<Dict> {
        self.looks
            .get()
            .daemons
            .iter()
            .map(KitDaemon::to_dict)
            .collect()
    }

    #[zbus(property)]
    fn inject(&self) -> Vec<String> {
        self.looks.get().inject.clone()
    }

    #[zbus(property)]
    fn files(&self) -> Vec<String> {
        self.looks.get().files.clone()
    }

    #[zbus(property)]
    fn variables(&self) -> Vec<String> {
        self.looks.get().variables.clone()
    }

    #[zbus(property)]
    fn programs(&self) -> HashMap<String, String> {
        self.looks.get().programs.clone()
    }
}
