//! The Kit interface, and a kit as a client sees it.

use crate::dict::{Dict, DictError, DictReader};

/// An installed kit, at [`crate::names::kit_path`].
#[zbus::proxy(
    interface = "org.aegisvm.Aegis1.Kit",
    default_service = "org.aegisvm.Aegis1"
)]
pub trait Kit {
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn description(&self) -> zbus::Result<String>;
    /// `ok`, `broken`, or `shadowed` by a manifest of the same name.
    #[zbus(property)]
    fn status(&self) -> zbus::Result<String>;
    /// Why it is not `ok`.
    #[zbus(property)]
    fn status_reason(&self) -> zbus::Result<String>;
    /// The manifest's file.
    #[zbus(property)]
    fn path(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn image(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn command(&self) -> zbus::Result<Vec<String>>;
    /// The names of its instance daemons.
    #[zbus(property)]
    fn daemons(&self) -> zbus::Result<Vec<String>>;
}

/// Every property of a kit, read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KitView {
    pub name: String,
    pub version: String,
    pub description: String,
    pub status: String,
    pub status_reason: String,
    pub path: String,
    pub image: String,
    pub command: Vec<String>,
    pub daemons: Vec<String>,
}

impl KitView {
    /// Reads the answer of `Properties.GetAll` or a part of `GetManagedObjects`.
    ///
    /// # Errors
    /// A missing name, or a value of a wrong type.
    pub fn from_properties(properties: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("kit property", properties);
        Ok(Self {
            name: reader.require("Name")?,
            version: reader.take("Version")?.unwrap_or_default(),
            description: reader.take("Description")?.unwrap_or_default(),
            status: reader.take("Status")?.unwrap_or_default(),
            status_reason: reader.take("StatusReason")?.unwrap_or_default(),
            path: reader.take("Path")?.unwrap_or_default(),
            image: reader.take("Image")?.unwrap_or_default(),
            command: reader.take("Command")?.unwrap_or_default(),
            daemons: reader.take("Daemons")?.unwrap_or_default(),
        })
    }
}
