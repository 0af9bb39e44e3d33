//! The Volumes interface of the fake. The volume `used` is web's.

use aegis_bus::dict::Dict;
use aegis_bus::error::BusFault;
use aegis_bus::volumes::{PruneVolumesOptions, VolumeEntry};
use aegis_core::fault::{Fault, Symbol};
use zbus::interface;

use super::Handles;

pub(super) struct Volumes {
    pub(super) handles: Handles,
}

#[interface(name = "org.aegisvm.Aegis1.Volumes")]
impl Volumes {
    #[zbus(out_args("made"))]
    async fn create(&self, name: String, _options: Dict) -> bool {
        self.handles.with(|state| state.volumes.insert(name))
    }

    #[zbus(out_args("volumes"))]
    async fn list(&self) -> Vec<Dict> {
        let names: Vec<String> = self
            .handles
            .with(|state| state.volumes.iter().cloned().collect());
        let entry = |name: String| VolumeEntry {
            path: format!("/home/alice/.aegis/volumes/{name}"),
            created_at_us: 0,
            used_by: match name.as_str() {
                "used" => vec!["web".to_owned()],
                _ => Vec::new(),
            },
            name,
        };
        names
            .into_iter()
            .map(|name| entry(name).to_dict())
            .collect()
    }

    async fn remove(&self, name: String, _options: Dict) -> Result<(), BusFault> {
        if name == "used" {
            let fault = Fault::new(Symbol::VolumeInUse, "the volume 'used' is used by web");
            return Err(fault.with_hint("delete the instances first").into());
        }
        match self.handles.with(|state| state.volumes.remove(&name)) {
            true => Ok(()),
            false => {
                let words = format!("there is no volume '{name}'");
                Err(Fault::new(Symbol::VolumeNotFound, words).into())
            }
        }
    }

    #[zbus(out_args("names"))]
    async fn prune(&self, options: Dict) -> Result<Vec<String>, BusFault> {
        let options = PruneVolumesOptions::from_dict(options).map_err(Fault::from)?;
        Ok(self.handles.with(|state| {
            let unused = state.volumes.iter().filter(|name| *name != "used");
            let unused: Vec<String> = unused.cloned().collect();
            if !options.dry_run {
                state.volumes.retain(|name| name == "used");
            }
            unused
        }))
    }
}
