//! The Secrets interface, and the values that other interfaces are passed.

use std::collections::BTreeMap;

use aegis_bus::dict::{Dict, DictReader};
use aegis_bus::error::BusFault;
use aegis_bus::secrets::{
    DeleteSecretOptions, ImportSecretsOptions, RotatedKey, SecretEntry, SecretsStatus, StaleUser,
    take_values,
};
use aegis_core::secret::{SecretEnv, SecretName, SecretText};
use zbus::message::Header;
use zbus::{Connection, OwnedFd};

use super::Service;
use super::access::Owned;
use super::manager::{failed, refused};
use crate::caller::Sees;
use crate::secrets::rotation::Rotated;
use crate::secrets::status::{KeyState, Status};
use crate::secrets::{Listed, SecretsError, passed};

/// The secrets' object.
#[derive(Debug)]
pub struct SecretsObject {
    service: Service,
}

impl Owned for SecretsObject {}

impl SecretsObject {
    pub fn new(service: Service) -> Self {
        Self { service }
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Secrets", introspection_docs = false)]
impl SecretsObject {
    async fn set(&self, name: String, value: OwnedFd, options: Dict) -> Result<(), BusFault> {
        DictReader::new("option", options)
            .finish()
            .map_err(refused)?;
        let name = parse(&name)?;
        let value = passed::value(value.into()).await;
        let value = value.map_err(|error| secrets_failed(error.into()))?;
        let set = self
            .service
            .engine
            .set_secrets([(name, value)].into(), true)
            .await;
        set.map_err(failed)
    }

    #[zbus(out_args("secrets"))]
    async fn list(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<Dict>, BusFault> {
        let caller = self.service.gate.caller(connection, &header).await?;
        if caller.sees != Sees::All {
            return Ok(Vec::new());
        }
        let listed = self.service.engine.shared().vault.list().await;
        let listed = listed.map_err(secrets_failed)?;
        Ok(listed
            .into_iter()
            .map(|secret| entry(secret).to_dict())
            .collect())
    }

    #[zbus(out_args("users"))]
    async fn delete(&self, name: String, options: Dict) -> Result<Vec<String>, BusFault> {
        let DeleteSecretOptions { force } =
            DeleteSecretOptions::from_dict(options).map_err(refused)?;
        let deleted = self
            .service
            .engine
            .delete_secret(parse(&name)?, force)
            .await;
        deleted.map_err(failed)
    }

    #[zbus(out_args("names"))]
    async fn import(&self, values: OwnedFd, options: Dict) -> Result<Vec<String>, BusFault> {
        let ImportSecretsOptions { replace } =
            ImportSecretsOptions::from_dict(options).map_err(refused)?;
        let values = passed::env(values.into()).await;
        let values = values.map_err(|error| secrets_failed(error.into()))?;
        let named = values
            .into_iter()
            .map(|(name, value)| Ok((parse(&name)?, value)));
        let named = named.collect::<Result<BTreeMap<_, _>, BusFault>>()?;
        let names = named.keys().map(ToString::to_string).collect();
        let set = self.service.engine.set_secrets(named, replace).await;
        set.map(|()| names).map_err(failed)
    }

    #[zbus(out_args("users"))]
    async fn stale(
        &self,
        names: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<Dict>, BusFault> {
        let caller = self.service.gate.caller(connection, &header).await?;
        let users = self
            .service
            .engine
            .stale(&caller, &names)
            .await
            .map_err(failed)?;
        Ok(users.iter().map(StaleUser::to_dict).collect())
    }

    #[zbus(out_args("status"))]
    async fn status(&self) -> Result<Dict, BusFault> {
        let status = self.service.engine.shared().vault.status().await;
        Ok(shown(status.map_err(secrets_failed)?).to_dict())
    }

    #[zbus(out_args("rotated"))]
    async fn rotate_key(&self, options: Dict) -> Result<Dict, BusFault> {
        DictReader::new("option", options)
            .finish()
            .map_err(refused)?;
        let rotated = self.service.engine.shared().vault.rotate().await;
        let Rotated {
            key,
            values,
            unreadable,
        } = rotated.map_err(secrets_failed)?;
        let rotated = RotatedKey {
            key_id: key.to_string(),
            values: count(values),
            unreadable,
        };
        Ok(rotated.to_dict())
    }
}

/// The values a caller passed beside a dictionary, which is freed of them.
pub(super) async fn passed_values(dict: &mut Dict) -> Result<SecretEnv, BusFault> {
    match take_values(dict).map_err(refused)? {
        None => Ok(SecretEnv::new()),
        Some(descriptor) => {
            let values = passed::env(descriptor).await;
            values.map_err(|error| secrets_failed(error.into()))
        }
    }
}

/// A text that a caller passed: messages, or how to get at an image, with credentials.
pub(super) async fn passed_document(
    descriptor: std::os::fd::OwnedFd,
) -> Result<SecretText, BusFault> {
    let text = passed::document(descriptor).await;
    text.map_err(|error| secrets_failed(error.into()))
}

fn parse(name: &str) -> Result<SecretName, BusFault> {
    name.parse().map_err(|source| {
        let name = name.to_owned();
        secrets_failed(SecretsError::Value { name, source })
    })
}

fn entry(listed: Listed) -> SecretEntry {
    SecretEntry {
        name: listed.name,
        readable: listed.readable,
        updated_at_us: listed.updated_at,
        used_by: listed.users,
    }
}

fn shown(status: Status) -> SecretsStatus {
    let (state, sealer, opens_with, obstacle) = match status.key.state {
        KeyState::Missing(Ok(sealer)) => ("missing", sealer.to_owned(), "", None),
        KeyState::Missing(Err(why)) => ("missing", String::new(), "", Some(why)),
        KeyState::Sealed { by, with } => ("sealed", by, with, None),
        KeyState::Shut { by, why } => ("shut", by, "", Some(why)),
        KeyState::Clear(Ok(sealer)) => ("clear", sealer.to_owned(), "", None),
        KeyState::Clear(Err(why)) => ("clear", String::new(), "", Some(why)),
    };
    SecretsStatus {
        key_state: state.to_owned(),
        key_id: status.key.id.map(|id| id.to_string()).unwrap_or_default(),
        key_file: status.key.path.display().to_string(),
        sealer,
        opens_with: opens_with.to_owned(),
        obstacle: obstacle.unwrap_or_default(),
        values: count(status.values),
        unreadable: count(status.unreadable),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn secrets_failed(error: SecretsError) -> BusFault {
    failed(error.into())
}
