//! Secrets: kept encrypted, decrypted only for who is given them.
//!
//! ```text
//!  set ──► seal (key) ──► registry: ciphertext
//!                             │
//!  credential of a unit, exec ◄── open (key) ◄──┘
//! ```
//!
//! A value is in clear in a client's descriptor, in aegisd's memory while it is
//! sealed or opened, in the credential of a unit, and where it is used. A key that
//! is lost makes values unreadable and nothing else: names, instances and their
//! specs stay, and a value that is set anew is sealed with the new key.
//!
//! | module | what it owns |
//! |---|---|
//! | [`key`] | where the key is |
//! | [`seal`] | the format of the ciphertext |
//! | [`passed`] | values that a client passes by descriptor |

pub mod key;
pub mod passed;
pub mod seal;

use std::collections::BTreeMap;
use std::sync::Arc;

use aegis_core::fault::{Fault, Symbol};
use aegis_core::handle::Handle;
use aegis_core::secret::{self, MAX_ALL, SecretEnv, SecretName, SecretSource, SecretText};
use aegis_core::snapshot::SnapshotKey;
use zeroize::Zeroizing;

use crate::instance::{blocking, now_us};
use crate::registry::{KeptSecret, Owner, Record, Registry, RegistryError};

use key::{KeyError, KeySource};
use seal::SealError;

/// The name under which an instance's own secrets have the key of its snapshots. No
/// variable is called so.
const SNAPSHOT_KEY: &str = "snapshot.key";

/// Why a secret cannot be kept or had.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("the secret '{name}' cannot be kept")]
    Value {
        name: String,
        #[source]
        source: secret::SecretError,
    },
    #[error("the secrets of the instance are longer than {MAX_ALL} bytes together")]
    TooMuch,
    #[error("the value of the variable '{0}' was not passed")]
    NotPassed(String),
    #[error("the secret '{name}' cannot be encrypted")]
    Seal {
        name: String,
        #[source]
        source: SealError,
    },
    #[error("the secret '{name}' cannot be decrypted")]
    Open {
        name: String,
        /// Of an instance's own value: whose.
        instance: Option<Handle>,
        #[source]
        source: SealError,
    },
    #[error("there is no key for secrets")]
    Key(#[from] KeyError),
    #[error(transparent)]
    Passed(#[from] passed::PassedError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl SecretsError {
    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        let fault = |symbol| Fault::from_error(symbol, self);
        match self {
            Self::Value { .. } | Self::TooMuch | Self::NotPassed(_) | Self::Passed(_) => {
                fault(Symbol::InvalidArgument)
            }
            Self::Open {
                name,
                instance,
                source: SealError::KeyLost,
            } => fault(Symbol::SecretKeyLost).with_hint(match instance {
                None => format!("set it again: aegisctl secret set {name}"),
                Some(handle) => format!(
                    "make the instance anew with --env {name}: aegisctl instance delete {handle}"
                ),
            }),
            Self::Open { .. } | Self::Seal { .. } => fault(Symbol::SecretsFailed),
            Self::Key(error) => match error.hint() {
                Some(hint) => fault(Symbol::SecretsFailed).with_hint(hint),
                None => fault(Symbol::SecretsFailed),
            },
            Self::Registry(error) => error.fault(),
        }
    }
}

/// A secret as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    /// Whether its value can be read.
    pub readable: bool,
    /// In microseconds since 1970.
    pub updated_at: u64,
    /// The instances that use it.
    pub users: Vec<String>,
}

/// All secrets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Vault {
    registry: Registry,
    keys: Arc<dyn KeySource>,
}

impl Vault {
    pub fn new(registry: Registry, keys: Arc<dyn KeySource>) -> Self {
        Self { registry, keys }
    }

    /// Keeps a value under a name, in place of the one before.
    ///
    /// # Errors
    /// It is not acceptable, or cannot be encrypted or written.
    pub async fn set(&self, name: SecretName, value: SecretText) -> Result<(), SecretsError> {
        let name: String = name.into();
        let kept = self.seal(Owner::Everybody, [(name, value)].into()).await?;
        for secret in kept {
            self.registry.set_secret(Owner::Everybody, secret).await?;
        }
        Ok(())
    }

    /// Every named secret.
    ///
    /// # Errors
    /// The registry or the key cannot be read.
    pub async fn list(&self) -> Result<Vec<Listed>, SecretsError> {
        let mut listed = Vec::new();
        for secret in self.registry.secrets(Owner::Everybody).await? {
            let name = secret.name.clone();
            let users = match name.parse() {
                Ok(name) => self.registry.secret_users(name).await?,
                Err(_) => Vec::new(),
            };
            let updated_at = secret.updated_at;
            let readable = match self.open(Owner::Everybody, secret).await {
                Ok(_) => true,
                Err(SecretsError::Open { .. }) => false,
                Err(error) => return Err(error),
            };
            listed.push(Listed {
                name,
                readable,
                updated_at,
                users,
            });
        }
        Ok(listed)
    }

    /// Forgets a secret; returns the instances that used it.
    ///
    /// # Errors
    /// There is none, or an instance uses it and that is not forced.
    pub async fn delete(&self, name: SecretName, force: bool) -> Result<Vec<String>, SecretsError> {
        Ok(self.registry.delete_secret(name, force).await?)
    }

    /// Checks that a new instance can have all its secrets, and encrypts the values
    /// that are to be its own.
    ///
    /// # Errors
    /// One is missing, not acceptable, or cannot be encrypted or decrypted.
    pub async fn prepare(
        &self,
        record: &Record,
        passed: SecretEnv,
    ) -> Result<Vec<KeptSecret>, SecretsError> {
        self.env(None, &record.spec.secrets, &passed).await?;
        let is_own =
            |variable: &String| record.spec.secrets.get(variable) == Some(&SecretSource::Own);
        let own = passed.into_iter().filter(|(variable, _)| is_own(variable));
        let owner = Owner::Instance(record.handle.clone());
        self.seal(owner, own.collect()).await
    }

    /// The values of an instance's variables.
    ///
    /// # Errors
    /// The first that is missing or cannot be decrypted.
    pub async fn env_of(&self, record: &Record) -> Result<SecretEnv, SecretsError> {
        let none = SecretEnv::new();
        self.env(Some(&record.handle), &record.spec.secrets, &none)
            .await
    }

    /// The values of variables for one command, `passed` among them.
    ///
    /// # Errors
    /// The first that is missing, not acceptable or cannot be decrypted.
    pub async fn env_for(
        &self,
        sources: &BTreeMap<String, SecretSource>,
        passed: &SecretEnv,
    ) -> Result<SecretEnv, SecretsError> {
        self.env(None, sources, passed).await
    }

    /// Without a handle an own value is one that is passed.
    async fn env(
        &self,
        handle: Option<&Handle>,
        sources: &BTreeMap<String, SecretSource>,
        passed: &SecretEnv,
    ) -> Result<SecretEnv, SecretsError> {
        let mut env = SecretEnv::new();
        for (variable, source) in sources {
            let (owner, name) = match (source, handle) {
                (SecretSource::Named(name), _) => (Owner::Everybody, name.to_string()),
                (SecretSource::Own, Some(handle)) => {
                    (Owner::Instance(handle.clone()), variable.clone())
                }
                (SecretSource::Own, None) => {
                    let value = passed.get(variable);
                    let value = value.ok_or_else(|| SecretsError::NotPassed(variable.clone()))?;
                    value.check().map_err(|source| SecretsError::Value {
                        name: variable.clone(),
                        source,
                    })?;
                    env.insert(variable.clone(), value.clone());
                    continue;
                }
            };
            let kept = self.registry.secret(owner.clone(), name).await?;
            env.insert(variable.clone(), self.open(owner, kept).await?);
        }
        let length: usize = env
            .iter()
            .map(|(name, value)| name.len() + value.reveal().len())
            .sum();
        match length > MAX_ALL {
            true => Err(SecretsError::TooMuch),
            false => Ok(env),
        }
    }

    /// The key of an instance's snapshots; made where there is none, or where it is lost
    /// and with it what was sealed.
    ///
    /// # Errors
    /// It cannot be read or made.
    pub async fn snapshot_key(&self, handle: &Handle) -> Result<SnapshotKey, SecretsError> {
        let owner = Owner::Instance(handle.clone());
        let kept = self.registry.secret(owner.clone(), SNAPSHOT_KEY.to_owned());
        let found = match kept.await {
            Ok(kept) => match self.open(owner.clone(), kept).await {
                Err(SecretsError::Open {
                    source: SealError::KeyLost,
                    ..
                }) => None,
                opened => Some(opened?),
            },
            Err(RegistryError::NoSecret(_)) => None,
            Err(error) => return Err(error.into()),
        };
        // What is there and is no key is of no use, as one that is lost.
        if let Some(key) = found.and_then(|text| SnapshotKey::try_from(text).ok()) {
            return Ok(key);
        }
        let mut bytes = Zeroizing::new([0; SnapshotKey::LENGTH]);
        getrandom::fill(&mut *bytes).map_err(KeyError::Random)?;
        let key = SnapshotKey::new(*bytes);
        let values = [(SNAPSHOT_KEY.to_owned(), key.clone().into())].into();
        for secret in self.seal(owner.clone(), values).await? {
            self.registry.set_secret(owner.clone(), secret).await?;
        }
        Ok(key)
    }

    async fn seal(&self, owner: Owner, values: SecretEnv) -> Result<Vec<KeptSecret>, SecretsError> {
        let keys = self.keys.clone();
        let updated_at = now_us();
        blocking(move || {
            let seal = |(name, value): (String, SecretText)| {
                if let Err(source) = value.check() {
                    return Err(SecretsError::Value { name, source });
                }
                let key = keys.current()?;
                match seal::seal(&key, &owner.key(), &name, &value) {
                    Ok(ciphertext) => Ok(KeptSecret {
                        name,
                        ciphertext,
                        updated_at,
                    }),
                    Err(source) => Err(SecretsError::Seal { name, source }),
                }
            };
            values.into_iter().map(seal).collect()
        })
        .await
    }

    async fn open(&self, owner: Owner, kept: KeptSecret) -> Result<SecretText, SecretsError> {
        let keys = self.keys.clone();
        blocking(move || {
            let opened = seal::key_of(&kept.ciphertext).map_or_else(
                |error| Ok(Err(error)),
                |id| {
                    let key = keys.find(id)?;
                    let key = key.ok_or(SealError::KeyLost);
                    Ok::<_, KeyError>(key.and_then(|key| {
                        seal::open(&key, &owner.key(), &kept.name, &kept.ciphertext)
                    }))
                },
            )?;
            opened.map_err(|source| SecretsError::Open {
                name: kept.name,
                instance: match owner {
                    Owner::Everybody => None,
                    Owner::Instance(handle) => Some(handle),
                },
                source,
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::spec::InstanceSpec;

    use super::key::FileKey;
    use super::*;

    fn vault(folder: &tempfile::TempDir) -> Vault {
        let registry = Registry::open(&folder.path().join("registry.db")).unwrap();
        let keys = FileKey::new(folder.path().join("secrets.key"));
        Vault::new(registry, Arc::new(keys))
    }

    fn name(text: &str) -> SecretName {
        text.parse().unwrap()
    }

    fn record() -> Record {
        let spec = InstanceSpec {
            secrets: [
                ("KEY".to_owned(), SecretSource::Named(name("key"))),
                ("OWN".to_owned(), SecretSource::Own),
            ]
            .into(),
            ..Default::default()
        };
        Record::new("web".parse().unwrap(), spec, 1)
    }

    #[tokio::test]
    async fn an_instance_gets_what_it_names_and_what_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(&folder);
        let missing = vault.env_of(&record()).await.unwrap_err().fault();
        assert_eq!(missing.symbol, Symbol::SecretNotFound);
        assert_eq!(
            missing.hint.as_deref(),
            Some("set it: aegisctl secret set key")
        );
        vault.set(name("key"), "k".to_owned().into()).await.unwrap();
        let own = vault
            .prepare(
                &record(),
                [("OWN".to_owned(), "o".to_owned().into())].into(),
            )
            .await
            .unwrap();
        vault.registry.insert(record(), own).await.unwrap();
        let env = vault.env_of(&record()).await.unwrap();
        let values: Vec<_> = env.values().map(SecretText::reveal).collect();
        assert_eq!(values, ["k", "o"]);
        // The newest value counts, at each start.
        vault
            .set(name("key"), "new".to_owned().into())
            .await
            .unwrap();
        assert_eq!(
            vault.env_of(&record()).await.unwrap()["KEY"].reveal(),
            "new"
        );
        let file = std::fs::read(folder.path().join("registry.db")).unwrap();
        assert!(!file.windows(3).any(|bytes| bytes == b"new"));
    }

    #[tokio::test]
    async fn the_key_of_snapshots_is_made_once_and_anew_where_it_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(&folder);
        let (web, db) = ("web".parse().unwrap(), "db".parse().unwrap());
        let key = vault.snapshot_key(&web).await.unwrap();
        assert_eq!(vault.snapshot_key(&web).await.unwrap(), key);
        assert_ne!(vault.snapshot_key(&db).await.unwrap(), key);
        assert!(vault.list().await.unwrap().is_empty());
        std::fs::remove_file(folder.path().join("secrets.key")).unwrap();
        let new = vault.snapshot_key(&web).await.unwrap();
        assert_ne!(new, key);
        assert_eq!(vault.snapshot_key(&web).await.unwrap(), new);
    }

    #[tokio::test]
    async fn a_lost_key_leaves_the_names_and_asks_for_the_values() {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(&folder);
        vault.set(name("old"), "v".to_owned().into()).await.unwrap();
        std::fs::remove_file(folder.path().join("secrets.key")).unwrap();
        vault.set(name("new"), "v".to_owned().into()).await.unwrap();
        let listed = vault.list().await.unwrap();
        let listed: Vec<_> = listed
            .iter()
            .map(|s| (s.name.as_str(), s.readable))
            .collect();
        assert_eq!(listed, [("new", true), ("old", false)]);
        let lost = vault
            .env_for(
                &[("A".to_owned(), SecretSource::Named(name("old")))].into(),
                &SecretEnv::new(),
            )
            .await;
        let fault = lost.unwrap_err().fault();
        assert_eq!(fault.symbol, Symbol::SecretKeyLost);
        assert_eq!(
            fault.hint.as_deref(),
            Some("set it again: aegisctl secret set old")
        );
        vault
            .set(name("old"), "v2".to_owned().into())
            .await
            .unwrap();
        assert!(vault.list().await.unwrap().iter().all(|s| s.readable));
    }
}
