//! The date of a value. It is its version too: who was given a value of another date has
//! another value. So one that is set again as it was keeps its date.

use std::collections::BTreeMap;

use aegis_core::secret::SecretEnv;

use super::ring::Ring;
use super::{SecretsError, Vault};
use crate::registry::{KeptSecret, Owner};

impl Vault {
    /// The dates of those named secrets that have these values already. One that cannot
    /// be read is another.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub(super) async fn dates_of_same(
        &self,
        values: &SecretEnv,
    ) -> Result<BTreeMap<String, u64>, SecretsError> {
        let mut ring = Ring::new(&self.keys);
        let mut dates = BTreeMap::new();
        for kept in self.registry.secrets(Owner::Everybody).await? {
            let Some(value) = values.get(&kept.name) else {
                continue;
            };
            let opened = ring.open(&Owner::Everybody.key(), &kept).await;
            if let Ok(Ok(before)) = opened
                && before.reveal() == value.reveal()
            {
                dates.insert(kept.name, kept.updated_at);
            }
        }
        Ok(dates)
    }
}

/// Gives values their dates back.
pub(super) fn restore(kept: &mut [KeptSecret], dates: &BTreeMap<String, u64>) {
    for secret in kept {
        if let Some(date) = dates.get(&secret.name) {
            secret.updated_at = *date;
        }
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::secret::SecretText;

    use crate::secrets::testing::{TestSealer, vault};

    #[tokio::test]
    async fn a_value_that_is_set_again_keeps_its_date() {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(&folder, &TestSealer::default());
        let set = async |value: &str| {
            let value = SecretText::from(value.to_owned());
            vault.set("key".parse().unwrap(), value).await.unwrap();
            vault.list().await.unwrap()[0].updated_at
        };
        let first = set("a").await;
        assert_eq!(set("a").await, first);
        let second = set("b").await;
        assert_ne!(second, first);
        assert_ne!(set("a").await, second);
        // One that cannot be read may be any.
        std::fs::remove_file(folder.path().join("secrets.key")).unwrap();
        let before = vault.list().await.unwrap()[0].updated_at;
        assert_ne!(set("a").await, before);
    }
}
