//! A new key for every value, or for none.
//!
//! ```text
//!  secrets.next.key ──► one transaction: every value ──► in the place of secrets.key
//!        │                        │
//!        └── a crash here:        └── a crash here: some value needs it,
//!            no value needs it,       so it takes its place
//!            so it goes
//! ```
//!
//! Which of the two it was is asked of the registry, at each start of aegisd and before
//! each value that is set. A value that cannot be read stays as it is, with its key if
//! that is there, and is told.

use std::collections::BTreeSet;

use aegis_core::fault::chain;
use tokio::sync::OwnedRwLockReadGuard;

use super::key::{Key, KeyId};
use super::ring::Ring;
use super::seal::{self, SealError};
use super::{SecretsError, Vault};
use crate::registry::{KeptSecret, Reencrypted};

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The new key.
    pub key: KeyId,
    /// Values that it encrypts.
    pub values: usize,
    /// Those that could not be read: names, and `INSTANCE/VARIABLE` of instances' own.
    pub unreadable: Vec<String>,
}

impl Vault {
    /// Makes a new key and encrypts every value with it; goes on if the caller leaves.
    ///
    /// # Errors
    /// Nothing is changed then, or all of it.
    pub async fn rotate(&self) -> Result<Rotated, SecretsError> {
        let vault = self.clone();
        let rotation = tokio::spawn(async move { vault.rotate_alone().await });
        rotation.await.unwrap_or(Err(SecretsError::Ended))
    }

    async fn rotate_alone(&self) -> Result<Rotated, SecretsError> {
        let _turn = self.turn.write().await;
        self.settle_alone().await?;
        let rows = self.registry.all_secrets().await?;
        let key = self.keys.make_next().await?;
        let rotated = match self.reencrypt(rows, &key).await {
            Ok(rotated) => rotated,
            Err(error) => {
                // Whatever went wrong, the registry knows which key is needed now.
                self.settle_alone().await?;
                return Err(error);
            }
        };
        if let Err(error) = self.finish().await {
            // The values have the new key, so what is left is to be done once more.
            tracing::warn!("{}, trying again", chain(&error));
            self.settle_alone().await?;
        }
        Ok(rotated)
    }

    /// Puts the new key in its place, and removes those that no value needs.
    async fn finish(&self) -> Result<(), SecretsError> {
        let used = self.used().await?;
        self.keys.promote_next(&used).await?;
        Ok(self.keys.drop_unused(&used).await?)
    }

    async fn reencrypt(
        &self,
        rows: Vec<(String, KeptSecret)>,
        key: &Key,
    ) -> Result<Rotated, SecretsError> {
        let mut ring = Ring::new(&self.keys);
        let (mut anew, mut unreadable) = (Vec::new(), Vec::new());
        for (owner, kept) in rows {
            let value = match ring.open(&owner, &kept).await? {
                Ok(value) => value,
                Err(SealError::Format) => return Err(SecretsError::Newer(shown(&owner, &kept))),
                Err(error) => {
                    let name = shown(&owner, &kept);
                    tracing::warn!("'{name}' stays as it is: {}, ignoring", chain(&error));
                    unreadable.push(name);
                    continue;
                }
            };
            let KeptSecret {
                name, ciphertext, ..
            } = kept;
            match seal::seal(key, &owner, &name, &value) {
                Ok(sealed) => anew.push(Reencrypted {
                    owner,
                    name,
                    before: ciphertext,
                    ciphertext: sealed,
                }),
                Err(source) => return Err(SecretsError::Seal { name, source }),
            }
        }
        let values = anew.len();
        self.registry.reencrypt(anew).await?;
        tracing::info!("encrypted {values} secrets with the new key {}", key.id());
        Ok(Rotated {
            key: key.id(),
            values,
            unreadable,
        })
    }

    /// Brings a rotation that was interrupted to its end.
    ///
    /// # Errors
    /// The registry cannot be read, or a key's file not be changed.
    pub async fn settle(&self) -> Result<(), SecretsError> {
        let _turn = self.turn.write().await;
        self.keys.drop_unwritten().await?;
        self.settle_alone().await
    }

    async fn settle_alone(&self) -> Result<(), SecretsError> {
        let Some(next) = self.keys.unsettled().await? else {
            return Ok(());
        };
        let used = self.used().await?;
        match used.contains(&next) {
            true => {
                self.keys.promote_next(&used).await?;
                tracing::info!("the rotation to the key {next} of secrets is at its end");
            }
            false => {
                self.keys.drop_next().await?;
                tracing::info!("a rotation of the key of secrets was undone");
            }
        }
        Ok(())
    }

    /// A turn in which values can be encrypted: no rotation is under way or unsettled.
    pub(super) async fn settled(&self) -> Result<OwnedRwLockReadGuard<()>, SecretsError> {
        loop {
            let turn = self.turn.clone().read_owned().await;
            if self.keys.unsettled().await?.is_none() {
                return Ok(turn);
            }
            drop(turn);
            let _turn = self.turn.write().await;
            self.settle_alone().await?;
        }
    }

    /// The keys that values are encrypted with.
    async fn used(&self) -> Result<BTreeSet<KeyId>, SecretsError> {
        let rows = self.registry.all_secrets().await?;
        let ids = rows.iter().map(|(_, kept)| seal::key_of(&kept.ciphertext));
        Ok(ids.filter_map(Result::ok).collect())
    }
}

/// A secret's name for people.
fn shown(owner: &str, kept: &KeptSecret) -> String {
    match owner {
        "" => kept.name.clone(),
        owner => format!("{owner}/{}", kept.name),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use aegis_core::secret::SecretText;

    use super::*;
    use crate::registry::Owner;
    use crate::secrets::testing::{TestSealer, vault};

    async fn set(vault: &Vault, name: &str, value: &str) {
        let value = SecretText::from(value.to_owned());
        vault.set(name.parse().unwrap(), value).await.unwrap();
    }

    async fn readable(vault: &Vault) -> Vec<(String, bool)> {
        let listed = vault.list().await.unwrap();
        let row = |secret: super::super::Listed| (secret.name, secret.readable);
        listed.into_iter().map(row).collect()
    }

    fn keys(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with("secrets")).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn every_value_has_the_new_key() {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(&folder, &TestSealer::default());
        set(&vault, "a", "1").await;
        set(&vault, "b", "2").await;
        let before = vault.registry.all_secrets().await.unwrap();
        let rotated = vault.rotate().await.unwrap();
        assert_eq!((rotated.values, rotated.unreadable.len()), (2, 0));
        assert_eq!(vault.used().await.unwrap(), [rotated.key].into());
        let all = |ok: &[&str]| -> Vec<_> { ok.iter().map(|&n| (n.to_owned(), true)).collect() };
        assert_eq!(readable(&vault).await, all(&["a", "b"]));
        let after = vault.registry.all_secrets().await.unwrap();
        assert_eq!(after[0].1.updated_at, before[0].1.updated_at);
        assert_eq!(keys(folder.path()), ["secrets.key"]);
        // With none there is a new key too.
        let empty = tempfile::tempdir().unwrap();
        let none = super::super::testing::vault(&empty, &TestSealer::default());
        assert_eq!(none.rotate().await.unwrap().values, 0);
        assert_eq!(keys(empty.path()), ["secrets.key"]);
    }

    #[tokio::test]
    async fn what_cannot_be_read_stays_with_its_key_and_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = TestSealer::default();
        set(&vault(&folder, &sealer), "old", "1").await;
        sealer.change_host();
        let vault = vault(&folder, &sealer);
        let rotated = vault.rotate().await.unwrap();
        assert_eq!(rotated.unreadable, ["old"]);
        assert_eq!(keys(folder.path()).len(), 2);
        set(&vault, "new", "2").await;
        assert_eq!(vault.rotate().await.unwrap().values, 1);
        // The host as it was opens what it sealed, and that alone.
        sealer.change_host_back();
        let expected = [("new".to_owned(), false), ("old".to_owned(), true)];
        assert_eq!(readable(&vault).await, expected);
    }

    #[tokio::test]
    async fn a_newer_format_is_not_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(&folder, &TestSealer::default());
        set(&vault, "a", "1").await;
        let newer = KeptSecret {
            name: "b".into(),
            ciphertext: vec![9; 64],
            updated_at: 1,
        };
        let written = vault
            .registry
            .set_secrets(Owner::Everybody, vec![newer], true);
        written.await.unwrap();
        let refused = vault.rotate().await.unwrap_err();
        assert!(matches!(refused, SecretsError::Newer(name) if name == "b"));
        assert_eq!(keys(folder.path()), ["secrets.key"]);
        assert!(readable(&vault).await[0].1);
    }

    /// As a crash leaves it before the transaction, and after it.
    #[tokio::test]
    async fn an_interrupted_rotation_is_undone_or_brought_to_its_end() {
        for committed in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let sealer = TestSealer::default();
            let crashed = vault(&folder, &sealer);
            set(&crashed, "a", "1").await;
            let rows = crashed.registry.all_secrets().await.unwrap();
            let next = crashed.keys.make_next().await.unwrap();
            if committed {
                crashed.reencrypt(rows, &next).await.unwrap();
            }
            // Until then the value can be had.
            assert!(readable(&crashed).await[0].1);
            let vault = vault(&folder, &sealer);
            match committed {
                true => vault.settle().await.unwrap(),
                // Whoever sets one does not wait for a start.
                false => set(&vault, "b", "2").await,
            }
            assert_eq!(keys(folder.path()), ["secrets.key"]);
            assert!(readable(&vault).await.iter().all(|(_, readable)| *readable));
            let key = vault.keys.current().await.unwrap();
            assert_eq!(key.id() == next.id(), committed);
        }
    }
}
