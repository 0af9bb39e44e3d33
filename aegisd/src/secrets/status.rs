//! How secrets are kept, for `secret status` and `doctor`.

use std::path::PathBuf;

use aegis_core::fault::chain;

use super::key::KeyId;
use super::ring::Ring;
use super::{SecretsError, Vault};

/// How secrets are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub key: KeyStatus,
    /// All values, those of instances' own among them.
    pub values: usize,
    /// Those that cannot be read.
    pub unreadable: usize,
}

/// The key that values are encrypted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    pub path: PathBuf,
    pub id: Option<KeyId>,
    pub state: KeyState,
}

/// How the key is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// There is none until a value is set; who will seal it, or why nobody.
    Missing(Result<&'static str, String>),
    /// Who sealed it, and what it opens with.
    Sealed { by: String, with: &'static str },
    /// Who sealed it, and why it does not open.
    Shut { by: String, why: String },
    /// In clear; who will seal the next one, or why nobody.
    Clear(Result<&'static str, String>),
}

impl Vault {
    /// How secrets are kept. The key is opened for it, and where it is not sealed, one
    /// is sealed to see whether that goes.
    ///
    /// # Errors
    /// The registry or the key's file cannot be read.
    pub async fn status(&self) -> Result<Status, SecretsError> {
        let key = self.key_status().await?;
        let _turn = self.settled().await?;
        let rows = self.registry.all_secrets().await?;
        let mut ring = Ring::new(&self.keys);
        let mut unreadable = 0;
        for (owner, kept) in &rows {
            unreadable += usize::from(ring.open(owner, kept).await?.is_err());
        }
        Ok(Status {
            key,
            values: rows.len(),
            unreadable,
        })
    }

    /// How the key is kept; likewise.
    ///
    /// # Errors
    /// Likewise.
    pub async fn key_status(&self) -> Result<KeyStatus, SecretsError> {
        let look = {
            let _turn = self.settled().await?;
            self.keys.look().await?
        };
        let id = look.as_ref().map(|look| look.id);
        let state = match look {
            None => KeyState::Missing(self.outlook().await),
            Some(look) => match (look.sealed, look.shut) {
                (None, _) => KeyState::Clear(self.outlook().await),
                (Some((by, with)), None) => KeyState::Sealed { by, with },
                (Some((by, _)), Some(error)) => KeyState::Shut {
                    by,
                    why: chain(&error),
                },
            },
        };
        Ok(KeyStatus {
            path: self.keys.path().to_owned(),
            id,
            state,
        })
    }

    async fn outlook(&self) -> Result<&'static str, String> {
        let tried = self.keys.try_sealer().await;
        tried.map_err(|error| chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::secret::SecretText;

    use super::*;
    use crate::secrets::testing::{TestSealer, vault};

    #[tokio::test]
    async fn each_state_of_the_key_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = TestSealer::default();
        let vault = vault(&folder, &sealer);
        let state = async || vault.status().await.unwrap().key.state;
        assert_eq!(state().await, KeyState::Missing(Ok("test")));
        sealer.stop();
        assert!(matches!(state().await, KeyState::Missing(Err(_))));
        let value = SecretText::from("v".to_owned());
        vault.set("a".parse().unwrap(), value).await.unwrap();
        assert!(matches!(state().await, KeyState::Clear(Err(_))));
        sealer.start();
        assert_eq!(state().await, KeyState::Clear(Ok("test")));
        let rotated = vault.rotate().await.unwrap();
        let status = vault.status().await.unwrap();
        assert_eq!(status.key.id, Some(rotated.key));
        let sealed = KeyState::Sealed {
            by: "test".into(),
            with: "the test",
        };
        assert_eq!((status.values, status.unreadable), (1, 0));
        assert_eq!(status.key.state, sealed);
        sealer.change_host();
        assert!(matches!(state().await, KeyState::Shut { .. }));
    }
}
