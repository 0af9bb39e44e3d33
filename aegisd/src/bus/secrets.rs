//! The Secrets interface, and the values that other interfaces are passed.

use std::sync::Arc;

use aegis_bus::dict::{Dict, DictReader};
use aegis_bus::error::BusFault;
use aegis_bus::secrets::{DeleteSecretOptions, SecretEntry, take_values};
use aegis_core::secret::{SecretEnv, SecretName, SecretText};
use zbus::OwnedFd;

use super::manager::{failed, refused};
use crate::engine::Engine;
use crate::secrets::{Listed, SecretsError, passed};

/// The secrets' object.
#[derive(Debug)]
pub struct SecretsObject {
    engine: Arc<Engine>,
}

impl SecretsObject {
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
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
        let vault = &self.engine.shared().vault;
        vault.set(name, value).await.map_err(secrets_failed)
    }

    #[zbus(out_args("secrets"))]
    async fn list(&self) -> Result<Vec<Dict>, BusFault> {
        let listed = self.engine.shared().vault.list().await;
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
        let vault = &self.engine.shared().vault;
        vault
            .delete(parse(&name)?, force)
            .await
            .map_err(secrets_failed)
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

/// How a caller gets at an image, which holds credentials.
pub(super) async fn passed_access(
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

fn secrets_failed(error: SecretsError) -> BusFault {
    failed(error.into())
}
