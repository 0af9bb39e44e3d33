//! The Volumes interface: named volumes, which instances share and which outlive them.

use crate::dict::{Dict, DictError, DictReader, put};

/// The named volumes, at the root path.
#[zbus::proxy(
    interface = "org.aegisvm.Aegis1.Volumes",
    default_service = "org.aegisvm.Aegis1",
    default_path = "/org/aegisvm/Aegis1"
)]
pub trait Volumes {
    /// Makes an empty volume. Answers whether there was none of that name; one that is
    /// there stays as it is.
    #[zbus(allow_interactive_auth)]
    fn create(&self, name: &str, options: &Dict) -> zbus::Result<bool>;

    /// Every volume ([`VolumeEntry`]).
    #[zbus(allow_interactive_auth)]
    fn list(&self) -> zbus::Result<Vec<Dict>>;

    /// Removes a volume that no instance uses, with all that is in it.
    #[zbus(allow_interactive_auth)]
    fn remove(&self, name: &str, options: &Dict) -> zbus::Result<()>;

    /// Removes the volumes that no instance uses. `options` is a
    /// [`PruneVolumesOptions`]. Answers with their names.
    #[zbus(allow_interactive_auth)]
    fn prune(&self, options: &Dict) -> zbus::Result<Vec<String>>;
}

/// A volume as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeEntry {
    pub name: String,
    /// Its folder on the host.
    pub path: String,
    /// In microseconds since 1970; 0 where the file system does not tell.
    pub created_at_us: u64,
    /// The instances that use it.
    pub used_by: Vec<String>,
}

impl VolumeEntry {
    /// The entry as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "name", self.name.as_str());
        put(&mut dict, "path", self.path.as_str());
        put(&mut dict, "created-at", self.created_at_us);
        put(&mut dict, "used-by", self.used_by.clone());
        dict
    }

    /// Reads an entry; what a newer aegisd adds is left out.
    ///
    /// # Errors
    /// A field is missing or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("field of a volume", dict);
        Ok(Self {
            name: reader.require("name")?,
            path: reader.require("path")?,
            created_at_us: reader.require("created-at")?,
            used_by: reader.require("used-by")?,
        })
    }
}

/// The `options` of `Prune`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneVolumesOptions {
    /// Only name what would go.
    pub dry_run: bool,
}

impl PruneVolumesOptions {
    /// The options as they travel.
    pub fn to_dict(self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "dry-run", self.dry_run);
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            dry_run: reader.take("dry-run")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_options_travel_whole() {
        let entry = VolumeEntry {
            name: "data".into(),
            path: "/home/alice/.aegis/volumes/data".into(),
            created_at_us: 5,
            used_by: vec!["web".into()],
        };
        assert_eq!(VolumeEntry::from_dict(entry.to_dict()).unwrap(), entry);
        let options = PruneVolumesOptions { dry_run: true };
        assert_eq!(
            PruneVolumesOptions::from_dict(options.to_dict()).unwrap(),
            options
        );
    }
}
