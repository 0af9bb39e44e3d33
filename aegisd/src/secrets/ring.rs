//! The keys that one operation asks for.

use std::collections::BTreeMap;

use aegis_core::secret::SecretText;

use super::key::{Key, KeyId};
use super::seal::{self, SealError};
use super::sealer::SealerError;
use super::store::{KeyError, KeyStore};
use crate::registry::KeptSecret;

/// The keys that one operation has asked for. One that does not open is not tried again
/// for each value.
pub(super) struct Ring<'a> {
    keys: &'a KeyStore,
    asked: BTreeMap<KeyId, Result<Key, Missing>>,
}

#[derive(Clone)]
enum Missing {
    Lost,
    Shut(SealerError),
}

impl<'a> Ring<'a> {
    pub(super) fn new(keys: &'a KeyStore) -> Self {
        Self {
            keys,
            asked: BTreeMap::new(),
        }
    }

    /// Decrypts a value; the inner error is the value's own, the outer one of all.
    pub(super) async fn open(
        &mut self,
        owner: &str,
        kept: &KeptSecret,
    ) -> Result<Result<SecretText, SealError>, KeyError> {
        let id = match seal::key_of(&kept.ciphertext) {
            Ok(id) => id,
            Err(error) => return Ok(Err(error)),
        };
        let key = match self.asked.get(&id) {
            Some(asked) => asked.clone(),
            None => {
                let asked = match self.keys.find(id).await {
                    Ok(Some(key)) => Ok(key),
                    Ok(None) => Err(Missing::Lost),
                    Err(KeyError::Shut { source, .. }) => Err(Missing::Shut(source)),
                    Err(error) => return Err(error),
                };
                self.asked.insert(id, asked.clone());
                asked
            }
        };
        Ok(match key {
            Ok(key) => seal::open(&key, owner, &kept.name, &kept.ciphertext),
            Err(Missing::Lost) => Err(SealError::KeyLost),
            Err(Missing::Shut(source)) => Err(SealError::KeyShut(source)),
        })
    }
}
