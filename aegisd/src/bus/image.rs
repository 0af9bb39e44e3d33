//! The Image interface.

use std::sync::Arc;

use aegis_bus::dict::Dict;
use aegis_bus::image::ImageView;

use super::access::Owned;
use super::objects::{Looks, Shows};

/// An image's object.
#[derive(Debug)]
pub struct ImageObject {
    looks: Looks<ImageView>,
}

impl ImageObject {
    pub fn new(view: Arc<ImageView>) -> Self {
        Self {
            looks: Looks::new(view),
        }
    }
}

impl Owned for ImageObject {}

impl Shows<ImageView> for ImageObject {
    fn show(&self, view: Arc<ImageView>) {
        self.looks.set(view);
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Image", introspection_docs = false)]
impl ImageObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.looks.get().id.clone()
    }

    #[zbus(property)]
    fn names(&self) -> Vec<String> {
        self.looks.get().names.clone()
    }

    #[zbus(property)]
    fn manifest(&self) -> String {
        self.looks.get().manifest.clone()
    }

    #[zbus(property)]
    fn platform(&self) -> String {
        self.looks.get().platform.clone()
    }

    #[zbus(property)]
    fn created(&self) -> String {
        self.looks.get().created.clone()
    }

    #[zbus(property)]
    fn pulled_at(&self) -> u64 {
        self.looks.get().pulled_at_us
    }

    #[zbus(property)]
    fn size(&self) -> u64 {
        self.looks.get().size
    }

    #[zbus(property)]
    fn layers(&self) -> Vec<(String, u64)> {
        self.looks.get().layers.clone()
    }

    #[zbus(property)]
    fn config(&self) -> Dict {
        self.looks.get().config.to_dict()
    }
}
