//! The Secrets interface: values that are kept encrypted.
//!
//! A value is never in a message, which whoever may watch the bus can read: it
//! travels behind a descriptor, a pipe or a file in memory.

mod stale;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use aegis_core::secret::{SecretName, SecretSource};
use zbus::Fd;

use crate::dict::{Dict, DictError, DictReader, put, put_descriptor, take_descriptor};

pub use stale::StaleUser;

/// The key of `CreateInstance`'s spec and of `Exec`'s options whose descriptor
/// leads to a JSON object of variables and the caller's values for them.
pub const VALUES: &str = "values";
/// The key with the sources: `a{ss}`, variable to secret, empty for the caller's.
const SOURCES: &str = "secrets";

/// The secrets, at the root path.
#[zbus::proxy(
    interface = "org.aegisvm.Aegis1.Secrets",
    default_service = "org.aegisvm.Aegis1",
    default_path = "/org/aegisvm/Aegis1"
)]
pub trait Secrets {
    /// Keeps what the descriptor leads to under a name, in place of the value before.
    #[zbus(allow_interactive_auth)]
    fn set(&self, name: &str, value: Fd<'_>, options: &Dict) -> zbus::Result<()>;

    /// Every secret ([`SecretEntry`]), without its value.
    #[zbus(allow_interactive_auth)]
    fn list(&self) -> zbus::Result<Vec<Dict>>;

    /// Forgets a secret that no instance uses. `options` is a [`DeleteSecretOptions`].
    /// Answers with the instances that used it.
    #[zbus(allow_interactive_auth)]
    fn delete(&self, name: &str, options: &Dict) -> zbus::Result<Vec<String>>;

    /// Keeps what the descriptor leads to, a JSON object of names and values; all or
    /// none. `options` is an [`ImportSecretsOptions`]. Answers with the names.
    #[zbus(allow_interactive_auth)]
    fn import(&self, values: Fd<'_>, options: &Dict) -> zbus::Result<Vec<String>>;

    /// The instances of which somebody has an older value of these secrets than there
    /// is now, or of any where none is named ([`StaleUser`]).
    #[zbus(allow_interactive_auth)]
    fn stale(&self, names: &[&str]) -> zbus::Result<Vec<Dict>>;

    /// How secrets are kept: a [`SecretsStatus`].
    #[zbus(allow_interactive_auth)]
    fn status(&self) -> zbus::Result<Dict>;

    /// Makes a new key and encrypts every value with it; all or none. `options` is empty.
    /// Answers with a [`RotatedKey`].
    #[zbus(allow_interactive_auth)]
    fn rotate_key(&self, options: &Dict) -> zbus::Result<Dict>;
}

/// A secret as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretEntry {
    pub name: String,
    /// Whether the value can be decrypted; else it has to be set again.
    pub readable: bool,
    /// In microseconds since 1970.
    pub updated_at_us: u64,
    /// The instances that use it.
    pub used_by: Vec<String>,
}

impl SecretEntry {
    /// The entry as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "name", self.name.as_str());
        put(&mut dict, "readable", self.readable);
        put(&mut dict, "updated-at", self.updated_at_us);
        put(&mut dict, "used-by", self.used_by.clone());
        dict
    }

    /// Reads an entry; what a newer aegisd adds is left out.
    ///
    /// # Errors
    /// A field is missing or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("field of a secret", dict);
        Ok(Self {
            name: reader.require("name")?,
            readable: reader.require("readable")?,
            updated_at_us: reader.require("updated-at")?,
            used_by: reader.require("used-by")?,
        })
    }
}

/// The `options` of `Delete`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteSecretOptions {
    /// Even where an instance uses it; its next start fails then.
    pub force: bool,
}

impl DeleteSecretOptions {
    /// The options as they travel.
    pub fn to_dict(self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "force", self.force);
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            force: reader.take("force")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

/// The `options` of `Import`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportSecretsOptions {
    /// Secrets of these names have the new values; else no name may be in use.
    pub replace: bool,
}

impl ImportSecretsOptions {
    /// The options as they travel.
    pub fn to_dict(self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "replace", self.replace);
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            replace: reader.take("replace")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

/// How secrets are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsStatus {
    /// `sealed`, `shut` (sealed, and it does not open), `clear` (not sealed) or `missing`
    /// (none until a value is set).
    pub key_state: String,
    /// Empty of none.
    pub key_id: String,
    /// The key's file.
    pub key_file: String,
    /// Who sealed the key. Of one that is not sealed, who will seal the next one; empty
    /// if nobody can.
    pub sealer: String,
    /// What a sealed key opens with, for people.
    pub opens_with: String,
    /// Why the key does not open, or why nobody can seal one. Empty if neither is so.
    pub obstacle: String,
    /// All values, those of instances' own among them.
    pub values: u32,
    /// Those that cannot be read.
    pub unreadable: u32,
}

impl SecretsStatus {
    /// The status as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "key-state", self.key_state.as_str());
        put(&mut dict, "key-id", self.key_id.as_str());
        put(&mut dict, "key-file", self.key_file.as_str());
        put(&mut dict, "sealer", self.sealer.as_str());
        put(&mut dict, "opens-with", self.opens_with.as_str());
        put(&mut dict, "obstacle", self.obstacle.as_str());
        put(&mut dict, "values", self.values);
        put(&mut dict, "unreadable", self.unreadable);
        dict
    }

    /// Reads a status; what a newer aegisd adds is left out.
    ///
    /// # Errors
    /// A field is missing or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("field of the secrets' status", dict);
        Ok(Self {
            key_state: reader.require("key-state")?,
            key_id: reader.require("key-id")?,
            key_file: reader.require("key-file")?,
            sealer: reader.require("sealer")?,
            opens_with: reader.require("opens-with")?,
            obstacle: reader.require("obstacle")?,
            values: reader.require("values")?,
            unreadable: reader.require("unreadable")?,
        })
    }
}

/// What a rotation of the key did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotatedKey {
    /// The new key.
    pub key_id: String,
    /// How many values it encrypts.
    pub values: u32,
    /// Those that could not be read and stay as they are: names, and `INSTANCE/VARIABLE`
    /// of instances' own.
    pub unreadable: Vec<String>,
}

impl RotatedKey {
    /// The answer as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "key-id", self.key_id.as_str());
        put(&mut dict, "values", self.values);
        put(&mut dict, "unreadable", self.unreadable.clone());
        dict
    }

    /// Reads an answer; what a newer aegisd adds is left out.
    ///
    /// # Errors
    /// A field is missing or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("field of a rotation", dict);
        Ok(Self {
            key_id: reader.require("key-id")?,
            values: reader.require("values")?,
            unreadable: reader.require("unreadable")?,
        })
    }
}

/// Adds the caller's values to a dictionary.
///
/// # Errors
/// The descriptor cannot be duplicated.
pub fn put_values(dict: &mut Dict, values: impl AsFd) -> zbus::Result<()> {
    put_descriptor(dict, VALUES, values)
}

/// Takes the caller's values out of a dictionary, before the rest of it is read.
///
/// # Errors
/// There is something else under that key.
pub fn take_values(dict: &mut Dict) -> Result<Option<OwnedFd>, DictError> {
    take_descriptor("key", dict, VALUES)
}

pub(crate) fn put_sources(dict: &mut Dict, sources: &BTreeMap<String, SecretSource>) {
    if sources.is_empty() {
        return;
    }
    let words: BTreeMap<String, String> = sources
        .iter()
        .map(|(variable, source)| {
            let word = match source {
                SecretSource::Named(name) => name.to_string(),
                SecretSource::Own => String::new(),
            };
            (variable.clone(), word)
        })
        .collect();
    put(dict, SOURCES, words);
}

pub(crate) fn take_sources(
    reader: &mut DictReader,
) -> Result<BTreeMap<String, SecretSource>, DictError> {
    let words: BTreeMap<String, String> = reader.take(SOURCES)?.unwrap_or_default();
    let source = |(variable, word): (String, String)| {
        if word.is_empty() {
            return Ok((variable, SecretSource::Own));
        }
        let name: Result<SecretName, _> = word.parse();
        name.map(|name| (variable, SecretSource::Named(name)))
            .map_err(|source| DictError::Value {
                what: "key",
                key: SOURCES,
                source: source.into(),
            })
    };
    words.into_iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn entries_and_options_travel_whole() {
        let entry = SecretEntry {
            name: "KEY".into(),
            readable: false,
            updated_at_us: 7,
            used_by: vec!["web".into()],
        };
        assert_eq!(SecretEntry::from_dict(entry.to_dict()).unwrap(), entry);
        let options = DeleteSecretOptions { force: true };
        assert_eq!(
            DeleteSecretOptions::from_dict(options.to_dict()).unwrap(),
            options
        );
    }

    #[test]
    fn status_and_rotation_travel_whole() {
        let status = SecretsStatus {
            key_state: "clear".into(),
            key_id: "0123456789abcdef".into(),
            key_file: "/k".into(),
            sealer: "s".into(),
            opens_with: "o".into(),
            obstacle: "b".into(),
            values: 2,
            unreadable: 1,
        };
        assert_eq!(SecretsStatus::from_dict(status.to_dict()).unwrap(), status);
        let rotated = RotatedKey {
            key_id: "0123456789abcdef".into(),
            values: 2,
            unreadable: vec!["web/KEY".into()],
        };
        assert_eq!(RotatedKey::from_dict(rotated.to_dict()).unwrap(), rotated);
        let options = ImportSecretsOptions { replace: true };
        assert_eq!(
            ImportSecretsOptions::from_dict(options.to_dict()).unwrap(),
            options
        );
    }

    #[test]
    fn values_travel_by_descriptor_and_by_nothing_else() {
        let mut dict = Dict::new();
        assert!(take_values(&mut dict).unwrap().is_none());
        put_values(&mut dict, File::open("/dev/null").unwrap()).unwrap();
        assert!(take_values(&mut dict).unwrap().is_some());
        assert!(dict.is_empty());
        put(&mut dict, VALUES, "hunter2");
        let error = take_values(&mut dict).unwrap_err().to_string();
        assert_eq!(
            error,
            "the key 'values' must be of the D-Bus type 'h', not 's'"
        );
    }
}
