//! Secrets: kept encrypted, decrypted only for who is given them.
//!
//! ```text
//!  set ──► encrypt (key) ──► registry: ciphertext
//!                                 │
//!  credential of a unit, exec ◄── decrypt (key) ◄──┘
//!                                   ▲
//!  secrets.key: the key, sealed ──► unseal (host)
//! ```
//!
//! A value is in clear in a client's descriptor, in aegisd's memory while it is
//! encrypted or decrypted, in the credential of a unit, and where it is used. A key that
//! is lost makes values unreadable and nothing else: names, instances and their
//! specs stay, and a value that is set anew is encrypted with a new key.
//!
//! | module | what it owns |
//! |---|---|
//! | [`key`] | the key and the forms it is kept in |
//! | [`sealer`] | what of the host seals the key |
//! | [`store`] | the files of keys |
//! | [`ring`] | the keys that one operation asks for |
//! | [`rotation`] | a new key for every value, or for none |
//! | [`snapshots`] | the keys of instances' snapshots |
//! | [`status`] | how secrets are kept, for people |
//! | [`seal`] | the format of the ciphertext |
//! | [`passed`] | values that a client passes by descriptor |
//! | [`audit`] | the record of every use |
//! | `dates` | which value is another than before |
//! | [`wanting`] | what is missing, all at once |

pub mod audit;
mod dates;
pub mod key;
pub mod passed;
mod ring;
pub mod rotation;
pub mod seal;
pub mod sealer;
pub mod snapshots;
pub mod status;
pub mod store;
#[cfg(test)]
mod testing;
pub mod wanting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aegis_core::fault::{Fault, Symbol};
use aegis_core::handle::Handle;
use aegis_core::secret::{self, MAX_ALL, SecretEnv, SecretName, SecretSource, SecretText};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::caller::Sees;
use crate::host::Host;
use crate::instance::now_us;
use crate::registry::{KeptSecret, Owner, Record, Registry, RegistryError, SecretId, Versions};

use ring::Ring;
use seal::SealError;
use store::{KeyError, KeyStore};
use wanting::Wanting;

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
    /// Under another key it could not be read by the version that wrote it either.
    #[error("the secret '{0}' was encrypted by a newer version, or is damaged")]
    Newer(String),
    #[error("the rotation of the key ended early")]
    Ended,
    #[error(transparent)]
    Wanting(#[from] Wanting),
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
                source: SealError::KeyLost | SealError::KeyShut(_),
            } => fault(Symbol::SecretKeyLost).with_hint(match instance {
                None => format!("set it again: aegisctl secret set {name}"),
                Some(handle) => format!(
                    "make the instance anew with --env {name}: aegisctl instance delete {handle}"
                ),
            }),
            Self::Wanting(wanting) => wanting.fault(),
            Self::Newer(name) => fault(Symbol::SecretsFailed).with_hint(format!(
                "use the newer version, or set it again: aegisctl secret set {name}"
            )),
            Self::Open { .. } | Self::Seal { .. } | Self::Ended => fault(Symbol::SecretsFailed),
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

/// The values of a new instance's own, encrypted. As long as it is held, no rotation
/// begins: the key they were encrypted with stays until they are written.
#[derive(Debug)]
pub struct Prepared {
    pub own: Vec<KeptSecret>,
    _turn: OwnedRwLockReadGuard<()>,
}

/// All secrets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Vault {
    registry: Registry,
    keys: Arc<KeyStore>,
    /// Held for writing by a rotation alone, for reading by everybody who has a
    /// ciphertext or makes one. Never taken twice by one task: a rotation that waits
    /// holds off readers.
    turn: Arc<RwLock<()>>,
}

impl Vault {
    pub fn new(registry: Registry, keys: KeyStore) -> Self {
        Self {
            registry,
            keys: Arc::new(keys),
            turn: Arc::default(),
        }
    }

    /// The secrets of a host, whose key is sealed by the best it has.
    pub fn of(host: &Host, registry: Registry) -> Self {
        let sealer = sealer::of(host);
        Self::new(registry, KeyStore::new(host.layout.secrets_key(), sealer))
    }

    /// Keeps a value under a name, in place of the one before.
    ///
    /// # Errors
    /// It is not acceptable, or cannot be encrypted or written.
    pub async fn set(&self, name: SecretName, value: SecretText) -> Result<(), SecretsError> {
        self.set_all([(name, value)].into(), true).await
    }

    /// Keeps values under their names, all or none; one that is as it was keeps its date.
    /// Unless they replace those of their names, none of the names may be in use.
    ///
    /// # Errors
    /// A name is in use, or a value is not acceptable or cannot be encrypted or written.
    pub async fn set_all(
        &self,
        values: BTreeMap<SecretName, SecretText>,
        replace: bool,
    ) -> Result<(), SecretsError> {
        let _turn = self.settled().await?;
        let values = values.into_iter();
        let values: SecretEnv = values.map(|(name, value)| (name.into(), value)).collect();
        let dates = self.dates_of_same(&values).await?;
        let mut kept = self.seal(&Owner::Everybody, values).await?;
        dates::restore(&mut kept, &dates);
        let set = self.registry.set_secrets(Owner::Everybody, kept, replace);
        Ok(set.await?)
    }

    /// Every named secret.
    ///
    /// # Errors
    /// The registry or the key cannot be read.
    pub async fn list(&self) -> Result<Vec<Listed>, SecretsError> {
        let _turn = self.turn.read().await;
        let mut ring = Ring::new(&self.keys);
        let mut listed = Vec::new();
        for secret in self.registry.secrets(Owner::Everybody).await? {
            let users = match secret.name.parse() {
                Ok(name) => self.registry.secret_users(name).await?,
                Err(_) => Vec::new(),
            };
            let opened = ring.open(&Owner::Everybody.key(), &secret).await?;
            listed.push(Listed {
                name: secret.name,
                readable: opened.is_ok(),
                updated_at: secret.updated_at,
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
    /// that are to be its own. `variables` are those that it needs and does not have.
    /// Who does not see everything has no named secrets: they are the administrator's.
    ///
    /// # Errors
    /// Something is missing, not acceptable, or cannot be encrypted or decrypted.
    pub async fn prepare(
        &self,
        record: &Record,
        passed: SecretEnv,
        variables: Vec<String>,
        sees: Sees,
    ) -> Result<Prepared, SecretsError> {
        let turn = self.settled().await?;
        let mut wanting = Wanting {
            variables,
            ..Wanting::default()
        };
        let named: BTreeSet<&SecretName> = named(&record.spec.secrets).collect();
        for name in named {
            match self
                .registry
                .secret(Owner::Everybody, name.to_string())
                .await
            {
                Ok(_) if sees == Sees::All => {}
                Ok(_) | Err(RegistryError::NoSecret(_)) => wanting.secrets.push(name.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        if !wanting.is_empty() {
            return Err(wanting.into());
        }
        self.env(None, &record.spec.secrets, &passed).await?;
        let is_own =
            |variable: &String| record.spec.secrets.get(variable) == Some(&SecretSource::Own);
        let own = passed.into_iter().filter(|(variable, _)| is_own(variable));
        let owner = Owner::Instance(record.handle.clone());
        Ok(Prepared {
            own: self.seal(&owner, own.collect()).await?,
            _turn: turn,
        })
    }

    /// The values of an instance's variables.
    ///
    /// # Errors
    /// The first that is missing or cannot be decrypted.
    pub async fn env_of(&self, record: &Record) -> Result<SecretEnv, SecretsError> {
        self.give(record).await.map(|(env, _)| env)
    }

    /// The same with their versions.
    ///
    /// # Errors
    /// Likewise.
    pub async fn give(&self, record: &Record) -> Result<(SecretEnv, Versions), SecretsError> {
        let _turn = self.turn.read().await;
        let (handle, none) = (Some(&record.handle), SecretEnv::new());
        self.env(handle, &record.spec.secrets, &none).await
    }

    /// The values of variables for one command, `passed` among them.
    ///
    /// # Errors
    /// The first that is missing, not acceptable or cannot be decrypted.
    pub async fn env_for(
        &self,
        sources: &BTreeMap<String, SecretSource>,
        passed: &SecretEnv,
        sees: Sees,
    ) -> Result<SecretEnv, SecretsError> {
        let mut named = named(sources);
        if sees != Sees::All
            && let Some(name) = named.next()
        {
            return Err(RegistryError::NoSecret(name.to_string()).into());
        }
        let _turn = self.turn.read().await;
        self.env(None, sources, passed).await.map(|(env, _)| env)
    }

    /// Without a handle an own value is one that is passed.
    async fn env(
        &self,
        handle: Option<&Handle>,
        sources: &BTreeMap<String, SecretSource>,
        passed: &SecretEnv,
    ) -> Result<(SecretEnv, Versions), SecretsError> {
        let (mut env, mut versions) = (SecretEnv::new(), Versions::new());
        let mut ring = Ring::new(&self.keys);
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
            let kept = self.registry.secret(owner.clone(), name.clone()).await?;
            let own = owner != Owner::Everybody;
            versions.insert(SecretId { own, name }, kept.updated_at);
            let opened = ring.open(&owner.key(), &kept).await?;
            let value = opened.map_err(|source| SecretsError::Open {
                name: kept.name,
                instance: match owner {
                    Owner::Everybody => None,
                    Owner::Instance(handle) => Some(handle),
                },
                source,
            })?;
            env.insert(variable.clone(), value);
        }
        let length: usize = env
            .iter()
            .map(|(name, value)| name.len() + value.reveal().len())
            .sum();
        match length > MAX_ALL {
            true => Err(SecretsError::TooMuch),
            false => Ok((env, versions)),
        }
    }

    async fn seal(
        &self,
        owner: &Owner,
        values: SecretEnv,
    ) -> Result<Vec<KeptSecret>, SecretsError> {
        for (name, value) in &values {
            if let Err(source) = value.check() {
                let name = name.clone();
                return Err(SecretsError::Value { name, source });
            }
        }
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.keys.current().await?;
        let updated_at = now_us();
        let seal = |(name, value): (String, SecretText)| match seal::seal(
            &key,
            &owner.key(),
            &name,
            &value,
        ) {
            Ok(ciphertext) => Ok(KeptSecret {
                name,
                ciphertext,
                updated_at,
            }),
            Err(source) => Err(SecretsError::Seal { name, source }),
        };
        values.into_iter().map(seal).collect()
    }
}

/// The secrets that variables name.
fn named(sources: &BTreeMap<String, SecretSource>) -> impl Iterator<Item = &SecretName> {
    sources.values().filter_map(|source| match source {
        SecretSource::Named(name) => Some(name),
        SecretSource::Own => None,
    })
}

#[cfg(test)]
mod tests {
    use aegis_core::spec::InstanceSpec;

    use super::testing::{TestSealer, vault};
    use super::*;

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
        let vault = vault(&folder, &TestSealer::default());
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
                Vec::new(),
                Sees::All,
            )
            .await
            .unwrap();
        vault.registry.insert(record(), own.own).await.unwrap();
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
    async fn a_lost_key_leaves_the_names_and_asks_for_the_values() {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(&folder, &TestSealer::default());
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
                Sees::All,
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

    #[tokio::test]
    async fn a_key_that_does_not_open_is_one_that_is_lost_for_now() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = TestSealer::default();
        let named = [("A".to_owned(), SecretSource::Named(name("old")))].into();
        let value = |text: &str| SecretText::from(text.to_owned());
        vault(&folder, &sealer)
            .set(name("old"), value("v"))
            .await
            .unwrap();
        sealer.change_host();
        // As after a restart: what was opened before is not remembered.
        let vault = vault(&folder, &sealer);
        let shut = vault
            .env_for(&named, &SecretEnv::new(), Sees::All)
            .await
            .unwrap_err();
        assert_eq!(shut.fault().symbol, Symbol::SecretKeyLost);
        assert!(!vault.list().await.unwrap()[0].readable);
        vault.set(name("new"), value("n")).await.unwrap();
        let readable = |listed: Vec<Listed>| listed.iter().map(|s| s.readable).collect::<Vec<_>>();
        assert_eq!(readable(vault.list().await.unwrap()), [true, false]);
        // The key that was put aside opens again, and with it what it was used for.
        sealer.change_host_back();
        let env = vault
            .env_for(&named, &SecretEnv::new(), Sees::All)
            .await
            .unwrap();
        assert_eq!(env["A"].reveal(), "v");
    }

    #[tokio::test]
    async fn several_are_set_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(&folder, &TestSealer::default());
        let values = |pairs: &[(&str, &str)]| -> BTreeMap<SecretName, SecretText> {
            let pair = |&(key, value): &(&str, &str)| (name(key), value.to_owned().into());
            pairs.iter().map(pair).collect()
        };
        vault.set_all(values(&[("b", "1")]), false).await.unwrap();
        let both = [("a", "2"), ("b", "2")];
        let refused = vault.set_all(values(&both), false).await.unwrap_err();
        assert_eq!(refused.fault().symbol, Symbol::AlreadyExists);
        let empty = vault.set_all(values(&[("a", "2"), ("c", "")]), true).await;
        assert!(matches!(empty, Err(SecretsError::Value { .. })));
        assert_eq!(vault.list().await.unwrap().len(), 1);
        vault.set_all(values(&both), true).await.unwrap();
        assert_eq!(vault.list().await.unwrap().len(), 2);
    }
}
