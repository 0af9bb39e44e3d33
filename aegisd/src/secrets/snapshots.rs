//! The keys that snapshots are sealed with: one for each instance that has secrets or
//! was given one, kept among the instance's own secrets and gone with them.

use aegis_core::handle::Handle;
use aegis_core::snapshot::SnapshotKey;
use zeroize::Zeroizing;

use super::ring::Ring;
use super::seal::SealError;
use super::store::KeyError;
use super::{SecretsError, Vault};
use crate::registry::{Owner, RegistryError};

/// What the key is called among them. No variable has this name.
const NAME: &str = "snapshot.key";

impl Vault {
    /// The key of an instance's snapshots; made where there is none, or where it is lost
    /// for good. `None` while it does not open: what it has sealed is not given up.
    ///
    /// # Errors
    /// It cannot be read or made.
    pub async fn snapshot_key(&self, handle: &Handle) -> Result<Option<SnapshotKey>, SecretsError> {
        let _turn = self.settled().await?;
        let owner = Owner::Instance(handle.clone());
        let kept = match self.registry.secret(owner.clone(), NAME.to_owned()).await {
            Ok(kept) => Some(kept),
            Err(RegistryError::NoSecret(_)) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(kept) = kept {
            let opened = Ring::new(&self.keys).open(&owner.key(), &kept).await?;
            match opened.map(SnapshotKey::try_from) {
                Ok(Ok(key)) => return Ok(Some(key)),
                Err(SealError::KeyShut(error)) => {
                    let why = aegis_core::fault::chain(&error);
                    tracing::warn!(instance = %handle, "{handle}: no key for snapshots: {why}");
                    return Ok(None);
                }
                // Nobody can open what it has sealed.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        let mut bytes = Zeroizing::new([0; SnapshotKey::LENGTH]);
        getrandom::fill(&mut *bytes).map_err(KeyError::Random)?;
        let key = SnapshotKey::new(*bytes);
        let values = [(NAME.to_owned(), key.clone().into())].into();
        let kept = self.seal(&owner, values).await?;
        self.registry.set_secrets(owner, kept, true).await?;
        Ok(Some(key))
    }
}

#[cfg(test)]
mod tests {
    use crate::secrets::testing::{TestSealer, vault};

    #[tokio::test]
    async fn a_key_is_made_once_and_anew_where_it_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(&folder, &TestSealer::default());
        let (web, db) = ("web".parse().unwrap(), "db".parse().unwrap());
        let key = vault.snapshot_key(&web).await.unwrap().unwrap();
        assert_eq!(vault.snapshot_key(&web).await.unwrap().unwrap(), key);
        assert_ne!(vault.snapshot_key(&db).await.unwrap().unwrap(), key);
        assert!(vault.list().await.unwrap().is_empty());
        std::fs::remove_file(folder.path().join("secrets.key")).unwrap();
        let new = vault.snapshot_key(&web).await.unwrap().unwrap();
        assert_ne!(new, key);
        assert_eq!(vault.snapshot_key(&web).await.unwrap().unwrap(), new);
    }

    #[tokio::test]
    async fn a_key_that_does_not_open_for_now_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = TestSealer::default();
        let web = "web".parse().unwrap();
        let key = vault(&folder, &sealer).snapshot_key(&web).await.unwrap();
        sealer.change_host();
        let later = vault(&folder, &sealer);
        assert_eq!(later.snapshot_key(&web).await.unwrap(), None);
        sealer.change_host_back();
        assert_eq!(later.snapshot_key(&web).await.unwrap(), key);
    }
}
