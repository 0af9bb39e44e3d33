//! Secrets whose older values are still in use.

use crate::dict::{Dict, DictError, DictReader, put};

/// A secret that is another one by now than somebody of an instance was given: an item
/// of the property `Stale`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaleSecret {
    /// The secret's name; of a value of the instance's own the variable's.
    pub name: String,
    /// It is a value of the instance's own.
    pub own: bool,
    /// The daemons that run with an older value.
    pub daemons: Vec<String>,
    /// The guest has an older value, in a VM or in the machine on the disk.
    pub guest: bool,
    /// When the value of now was set, in microseconds since 1970; 0 if it was removed.
    pub set_at_us: u64,
}

impl StaleSecret {
    /// The item as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "name", self.name.as_str());
        put(&mut dict, "own", self.own);
        put(&mut dict, "daemons", self.daemons.clone());
        put(&mut dict, "guest", self.guest);
        put(&mut dict, "set-at", self.set_at_us);
        dict
    }

    /// Reads an item; what a newer aegisd adds is left out.
    ///
    /// # Errors
    /// A field is missing or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("field of a stale secret", dict);
        Ok(Self {
            name: reader.require("name")?,
            own: reader.require("own")?,
            daemons: reader.require("daemons")?,
            guest: reader.require("guest")?,
            set_at_us: reader.require("set-at")?,
        })
    }
}

/// The `options` of `Refresh`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefreshOptions {
    /// For which secrets, by name; all where there is none.
    pub secrets: Vec<String>,
}

impl RefreshOptions {
    /// The options as they travel.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "secrets", self.secrets.clone());
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            secrets: reader.take("secrets")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_options_travel_whole() {
        let stale = StaleSecret {
            name: "KEY".into(),
            own: true,
            daemons: vec!["gateway".into()],
            guest: true,
            set_at_us: 7,
        };
        assert_eq!(StaleSecret::from_dict(stale.to_dict()).unwrap(), stale);
        let options = RefreshOptions {
            secrets: vec!["KEY".into()],
        };
        assert_eq!(
            RefreshOptions::from_dict(options.to_dict()).unwrap(),
            options
        );
    }
}
