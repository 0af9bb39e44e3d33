//! The Secrets interface of the fake.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use aegis_bus::dict::Dict;
use aegis_bus::error::BusFault;
use aegis_bus::instance::StaleSecret;
use aegis_bus::secrets::{
    DeleteSecretOptions, ImportSecretsOptions, RotatedKey, SecretEntry, SecretsStatus, StaleUser,
    take_values,
};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::secret::SecretSource;
use zbus::{OwnedFd, interface};

use super::Handles;

pub(super) struct Secrets {
    pub(super) handles: Handles,
}

#[interface(name = "org.aegisvm.Aegis1.Secrets")]
impl Secrets {
    async fn set(&self, name: String, value: OwnedFd, _options: Dict) {
        let value = read(value.into());
        self.handles.with(|state| state.secrets.insert(name, value));
    }

    #[zbus(out_args("secrets"))]
    async fn list(&self) -> Vec<Dict> {
        let names: Vec<String> = self
            .handles
            .with(|state| state.secrets.keys().cloned().collect());
        let entry = |name: String| SecretEntry {
            readable: name != "LOST",
            used_by: match name.as_str() {
                "USED" => vec!["web".to_owned()],
                _ => Vec::new(),
            },
            name,
            updated_at_us: 0,
        };
        names
            .into_iter()
            .map(|name| entry(name).to_dict())
            .collect()
    }

    #[zbus(out_args("users"))]
    async fn delete(&self, name: String, options: Dict) -> Result<Vec<String>, BusFault> {
        let options = DeleteSecretOptions::from_dict(options).map_err(Fault::from)?;
        if name == "USED" && !options.force {
            let fault = Fault::new(Symbol::SecretInUse, "the secret 'USED' is used by web");
            return Err(fault.with_hint("delete the instances first").into());
        }
        match self.handles.with(|state| state.secrets.remove(&name)) {
            Some(_) if name == "USED" => Ok(vec!["web".to_owned()]),
            Some(_) => Ok(Vec::new()),
            None => Err(Fault::new(
                Symbol::SecretNotFound,
                format!("there is no secret '{name}'"),
            )
            .into()),
        }
    }

    #[zbus(out_args("names"))]
    async fn import(&self, values: OwnedFd, options: Dict) -> Result<Vec<String>, BusFault> {
        let options = ImportSecretsOptions::from_dict(options).map_err(Fault::from)?;
        let values: BTreeMap<String, String> = serde_json::from_str(&read(values.into())).unwrap();
        let known = self.handles.with(|state| state.secrets.clone());
        if !options.replace && values.keys().any(|name| known.contains_key(name)) {
            let fault = Fault::new(Symbol::AlreadyExists, "there are secrets of these names");
            return Err(fault.with_hint("add --replace").into());
        }
        let names = values.keys().cloned().collect();
        self.handles.with(|state| state.secrets.extend(values));
        Ok(names)
    }

    /// Every instance but `flaky` has an older value of `STALE`.
    #[zbus(out_args("users"))]
    async fn stale(&self, names: Vec<String>) -> Vec<Dict> {
        let stale: Vec<StaleSecret> = names
            .into_iter()
            .filter(|name| name == "STALE")
            .map(|name| StaleSecret {
                name,
                daemons: vec!["gateway".to_owned()],
                guest: true,
                ..StaleSecret::default()
            })
            .collect();
        let handles = self
            .handles
            .with(|state| state.instances.keys().cloned().collect::<Vec<_>>());
        let user = |instance| StaleUser {
            instance,
            secrets: stale.clone(),
            ..StaleUser::default()
        };
        let users = handles
            .into_iter()
            .filter(|handle| handle != "flaky")
            .map(user);
        users
            .filter(|user| !user.secrets.is_empty())
            .map(|user| user.to_dict())
            .collect()
    }

    /// A key in clear, until it is rotated.
    #[zbus(out_args("status"))]
    async fn status(&self) -> Dict {
        let (values, rotated) = self
            .handles
            .with(|state| (state.secrets.clone(), state.rotated));
        let (state, opens_with) = match rotated {
            true => ("sealed", "the host's key"),
            false => ("clear", ""),
        };
        SecretsStatus {
            key_state: state.into(),
            key_id: "0123456789abcdef".into(),
            key_file: "/home/alice/.aegis/secrets.key".into(),
            sealer: "systemd-creds".into(),
            opens_with: opens_with.into(),
            obstacle: String::new(),
            values: values.len().try_into().unwrap(),
            unreadable: u32::from(values.contains_key("LOST")),
        }
        .to_dict()
    }

    #[zbus(out_args("rotated"))]
    async fn rotate_key(&self, _options: Dict) -> Dict {
        let names: Vec<String> = self.handles.with(|state| {
            state.rotated = true;
            state.secrets.keys().cloned().collect()
        });
        let (lost, kept): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name == "LOST");
        RotatedKey {
            key_id: "fedcba9876543210".into(),
            values: kept.len().try_into().unwrap(),
            unreadable: lost,
        }
        .to_dict()
    }
}

/// The variables that are secrets, with the values the caller passed or the fake has.
pub(super) fn values(
    handles: &Handles,
    dict: &mut Dict,
) -> impl FnOnce(BTreeMap<String, SecretSource>) -> BTreeMap<String, String> + use<> {
    let passed = take_values(dict).unwrap().map(read);
    let passed: BTreeMap<String, String> =
        passed.map_or_else(BTreeMap::new, |text| serde_json::from_str(&text).unwrap());
    let kept = handles.with(|state| state.secrets.clone());
    move |sources| {
        let value = |(variable, source): (String, SecretSource)| {
            let value = match source {
                SecretSource::Own => passed[&variable].clone(),
                SecretSource::Named(name) => kept[name.as_str()].clone(),
            };
            (variable, value)
        };
        sources.into_iter().map(value).collect()
    }
}

fn read(descriptor: std::os::fd::OwnedFd) -> String {
    let mut text = String::new();
    File::from(descriptor).read_to_string(&mut text).unwrap();
    text
}
