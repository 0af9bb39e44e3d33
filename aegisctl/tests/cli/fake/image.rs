//! The one image of the fake.

use aegis_bus::dict::Dict;
use aegis_bus::image::ImageConfig;
use zbus::interface;

/// The digits of its identity.
pub(crate) const DIGITS: &str = "b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5";

pub(super) struct Image;

#[interface(name = "org.aegisvm.Aegis1.Image")]
impl Image {
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        format!("sha256:{DIGITS}")
    }

    #[zbus(property)]
    fn names(&self) -> Vec<String> {
        vec!["docker.io/library/alpine:latest".into()]
    }

    #[zbus(property)]
    fn platform(&self) -> String {
        "linux/amd64".into()
    }

    #[zbus(property)]
    fn pulled_at(&self) -> u64 {
        1_700_000_000_000_000
    }

    #[zbus(property)]
    fn size(&self) -> u64 {
        3 << 20
    }

    #[zbus(property)]
    fn layers(&self) -> Vec<(String, u64)> {
        vec![(format!("sha256:{DIGITS}"), 3 << 20)]
    }

    #[zbus(property)]
    fn config(&self) -> Dict {
        ImageConfig::default().to_dict()
    }
}
