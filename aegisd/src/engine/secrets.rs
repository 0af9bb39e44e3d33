//! Secrets, and the instances that use them.

use std::collections::{BTreeMap, BTreeSet};

use aegis_bus::secrets::StaleUser;
use aegis_core::secret::{SecretName, SecretText};

use super::Engine;
use crate::caller::Caller;
use crate::instance::InstanceError;

impl Engine {
    /// Keeps values under their names, as [`crate::secrets::Vault::set_all`].
    ///
    /// # Errors
    /// As there.
    pub async fn set_secrets(
        &self,
        values: BTreeMap<SecretName, SecretText>,
        replace: bool,
    ) -> Result<(), InstanceError> {
        let names: BTreeSet<SecretName> = values.keys().cloned().collect();
        self.shared.vault.set_all(values, replace).await?;
        self.secrets_changed(&names);
        Ok(())
    }

    /// Forgets a secret, as [`crate::secrets::Vault::delete`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete_secret(
        &self,
        name: SecretName,
        force: bool,
    ) -> Result<Vec<String>, InstanceError> {
        let users = self.shared.vault.delete(name.clone(), force).await?;
        self.secrets_changed(&[name].into());
        Ok(users)
    }

    /// The instances of the caller of which somebody has an older value of these secrets
    /// than there is now; of any secret where none is named.
    ///
    /// # Errors
    /// The service manager does not answer.
    pub async fn stale(
        &self,
        caller: &Caller,
        names: &[String],
    ) -> Result<Vec<StaleUser>, InstanceError> {
        self.usable()?;
        let mut users = Vec::new();
        for instance in self.shared.directory.all() {
            if caller.sees.is_there(instance.record().owner()) && instance.has_secrets() {
                users.extend(instance.stale(names).await?);
            }
        }
        Ok(users)
    }

    fn secrets_changed(&self, names: &BTreeSet<SecretName>) {
        for instance in self.shared.directory.all() {
            if instance.uses_secrets(names) {
                instance.secrets_may_differ();
            }
        }
    }
}
