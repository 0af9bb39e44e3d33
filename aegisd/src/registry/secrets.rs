//! The table of secrets: names and ciphertext. What is in a ciphertext is
//! [`crate::secrets`]' business; here it is bytes.

use aegis_core::handle::Handle;
use aegis_core::secret::{SecretName, SecretSource};
use aegis_fault_points::around;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::store::{Store, failed_write, from_sql, refused, sql, to_sql};
use super::{Record, RegistryError};

/// Whose a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Everybody's: made by name, used by any instance.
    Everybody,
    /// A value of one instance's own, gone with it.
    Instance(Handle),
}

impl Owner {
    /// As the table has it: no handle is empty.
    pub fn key(&self) -> String {
        match self {
            Self::Everybody => String::new(),
            Self::Instance(handle) => handle.folded(),
        }
    }
}

/// A value encrypted anew, under another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reencrypted {
    /// As [`Owner::key`] has it.
    pub owner: String,
    pub name: String,
    /// The ciphertext it takes the place of.
    pub before: Vec<u8>,
    pub ciphertext: Vec<u8>,
}

/// A secret as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSecret {
    /// A [`SecretName`], or a variable's name for an instance's own.
    pub name: String,
    pub ciphertext: Vec<u8>,
    /// In microseconds since 1970.
    pub updated_at: u64,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the registry's own table; every change is a step"
)]
impl Store {
    /// Writes secrets, all or none; unless they replace those of their names, none of
    /// the names may be in use.
    pub(super) fn set_secrets(
        &mut self,
        owner: &Owner,
        secrets: &[KeptSecret],
        replace: bool,
    ) -> Result<(), RegistryError> {
        if !replace {
            let mut taken = Vec::new();
            for secret in secrets {
                if self.secret(owner, &secret.name)?.is_some() {
                    taken.push(secret.name.clone());
                }
            }
            if !taken.is_empty() {
                return Err(RegistryError::SecretsTaken(taken));
            }
        }
        around("registry.write", failed_write, || {
            let all = self.connection.transaction().map_err(sql("write"))?;
            for secret in secrets {
                put(&all, owner, secret)?;
            }
            all.commit().map_err(sql("write"))
        })
    }

    /// Every secret, with its owner as [`Owner::key`] has it.
    pub(super) fn all_secrets(&mut self) -> Result<Vec<(String, KeptSecret)>, RegistryError> {
        let failed = sql("read the secrets of");
        let query = "SELECT name, ciphertext, updated_at, owner FROM secret ORDER BY owner, name";
        let mut query = self.connection.prepare(query).map_err(&failed)?;
        let rows = query
            .query_map([], |row| Ok((row.get(3)?, read(row)?)))
            .map_err(&failed)?;
        rows.collect::<Result<_, _>>().map_err(&failed)
    }

    /// Puts values encrypted anew in the place of those they were made of, all or none.
    /// One that has gone meanwhile stays gone.
    pub(super) fn reencrypt(&mut self, values: &[Reencrypted]) -> Result<(), RegistryError> {
        let statement = "UPDATE secret SET ciphertext = ?1
                         WHERE owner = ?2 AND name = ?3 AND ciphertext = ?4";
        let written = around("registry.reencrypt", refused, || {
            let all = self.connection.transaction()?;
            for value in values {
                let Reencrypted {
                    owner,
                    name,
                    before,
                    ciphertext,
                } = value;
                all.execute(statement, params![ciphertext, owner, name, before])?;
            }
            all.commit()
        });
        written.map_err(sql("write"))
    }

    /// All secrets of an owner, by name.
    pub(super) fn secrets(&mut self, owner: &Owner) -> Result<Vec<KeptSecret>, RegistryError> {
        let failed = sql("read the secrets of");
        let mut query = self
            .connection
            .prepare(
                "SELECT name, ciphertext, updated_at FROM secret WHERE owner = ?1 ORDER BY name",
            )
            .map_err(&failed)?;
        let rows = query.query_map([owner.key()], read).map_err(&failed)?;
        rows.collect::<Result<_, _>>().map_err(&failed)
    }

    pub(super) fn secret(
        &mut self,
        owner: &Owner,
        name: &str,
    ) -> Result<Option<KeptSecret>, RegistryError> {
        let query =
            "SELECT name, ciphertext, updated_at FROM secret WHERE owner = ?1 AND name = ?2";
        self.connection
            .query_row(query, [owner.key().as_str(), name], read)
            .optional()
            .map_err(sql("read the secrets of"))
    }

    /// Forgets a secret unless an instance uses it; with `force` even then. Returns
    /// the instances that used it.
    pub(super) fn delete_secret(
        &mut self,
        name: &SecretName,
        force: bool,
    ) -> Result<Vec<String>, RegistryError> {
        if self.secret(&Owner::Everybody, name.as_str())?.is_none() {
            return Err(RegistryError::NoSecret(name.to_string()));
        }
        let users = self.secret_users(name)?;
        if !users.is_empty() && !force {
            return Err(RegistryError::SecretInUse {
                name: name.clone(),
                users,
            });
        }
        let forget = "DELETE FROM secret WHERE owner = '' AND name = ?1";
        around("registry.remove", failed_write, || {
            let forgotten = self.connection.execute(forget, [name.as_str()]);
            forgotten.map(drop).map_err(sql("write"))
        })?;
        Ok(users)
    }

    /// The instances whose spec names a secret, those with unreadable records too.
    pub(super) fn secret_users(&mut self, name: &SecretName) -> Result<Vec<String>, RegistryError> {
        let failed = sql("read");
        let mut query = self
            .connection
            .prepare("SELECT handle, spec FROM instance ORDER BY folded")
            .map_err(&failed)?;
        let rows = query
            .query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })
            .map_err(&failed)?;
        let mut users = Vec::new();
        for row in rows {
            let (handle, spec) = row.map_err(&failed)?;
            let spec: Value = serde_json::from_str(&spec).unwrap_or_default();
            let sources = spec["secrets"].as_object().into_iter().flatten();
            if sources
                .into_iter()
                .any(|(_, source)| source["named"] == name.as_str())
            {
                users.push(handle);
            }
        }
        Ok(users)
    }
}

/// Writes the values of a new instance's own, and checks that the others are there.
pub(super) fn give(
    connection: &Connection,
    record: &Record,
    own: &[KeptSecret],
) -> Result<(), RegistryError> {
    let mut query = connection
        .prepare("SELECT 1 FROM secret WHERE owner = '' AND name = ?1")
        .map_err(sql("read the secrets of"))?;
    for source in record.spec.secrets.values() {
        let SecretSource::Named(name) = source else {
            continue;
        };
        if !query
            .exists([name.as_str()])
            .map_err(sql("read the secrets of"))?
        {
            return Err(RegistryError::NoSecret(name.to_string()));
        }
    }
    let owner = Owner::Instance(record.handle.clone());
    own.iter()
        .try_for_each(|secret| put(connection, &owner, secret))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the registry's own table; callers are a step"
)]
fn put(connection: &Connection, owner: &Owner, secret: &KeptSecret) -> Result<(), RegistryError> {
    connection
        .execute(
            "REPLACE INTO secret (owner, name, ciphertext, updated_at) VALUES (?1, ?2, ?3, ?4)",
            params![
                owner.key(),
                secret.name,
                secret.ciphertext,
                to_sql(secret.updated_at)
            ],
        )
        .map(drop)
        .map_err(sql("write"))
}

fn read(row: &Row<'_>) -> rusqlite::Result<KeptSecret> {
    Ok(KeptSecret {
        name: row.get(0)?,
        ciphertext: row.get(1)?,
        updated_at: from_sql(row.get(2)?),
    })
}

#[cfg(test)]
mod tests {
    use aegis_core::spec::InstanceSpec;

    use super::*;

    fn kept(name: &str) -> KeptSecret {
        KeptSecret {
            name: name.to_owned(),
            ciphertext: vec![1, 2, 3],
            updated_at: 7,
        }
    }

    fn store(folder: &tempfile::TempDir) -> Store {
        Store::open(&folder.path().join("registry.db")).unwrap()
    }

    fn user_of(name: &str, handle: &str) -> Record {
        let source = SecretSource::Named(name.parse().unwrap());
        let spec = InstanceSpec {
            secrets: [("KEY".to_owned(), source)].into(),
            ..Default::default()
        };
        Record::new(handle.parse().unwrap(), spec, 1)
    }

    #[test]
    fn an_instance_is_only_written_with_all_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder);
        let record = user_of("key", "web");
        let refused = store.insert(&record, &[kept("OWN")]);
        assert!(matches!(refused, Err(RegistryError::NoSecret(name)) if name == "key"));
        let owner = Owner::Instance(record.handle.clone());
        assert_eq!(store.secrets(&owner).unwrap(), []);
        assert!(store.load().unwrap().records.is_empty());

        store
            .set_secrets(&Owner::Everybody, &[kept("key")], true)
            .unwrap();
        store.insert(&record, &[kept("OWN")]).unwrap();
        assert_eq!(store.secrets(&owner).unwrap(), [kept("OWN")]);
        store.remove(&"WEB".parse().unwrap()).unwrap();
        assert_eq!(store.secrets(&owner).unwrap(), []);
        assert_eq!(store.secrets(&Owner::Everybody).unwrap(), [kept("key")]);
    }

    #[test]
    fn a_secret_in_use_stays_unless_forced() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder);
        let name: SecretName = "key".parse().unwrap();
        store
            .set_secrets(&Owner::Everybody, &[kept("key")], true)
            .unwrap();
        store.insert(&user_of("key", "web"), &[]).unwrap();
        let refused = store.delete_secret(&name, false).unwrap_err();
        assert!(matches!(refused, RegistryError::SecretInUse { users, .. } if users == ["web"]));
        assert_eq!(store.delete_secret(&name, true).unwrap(), ["web"]);
        let gone = store.delete_secret(&name, false).unwrap_err();
        assert!(matches!(gone, RegistryError::NoSecret(_)));
    }

    #[test]
    fn names_in_use_are_replaced_only_if_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder);
        let everybody = Owner::Everybody;
        store.set_secrets(&everybody, &[kept("b")], false).unwrap();
        let both = [kept("a"), kept("b")];
        let refused = store.set_secrets(&everybody, &both, false).unwrap_err();
        assert!(matches!(refused, RegistryError::SecretsTaken(names) if names == ["b"]));
        assert_eq!(store.secrets(&everybody).unwrap(), [kept("b")]);
        store.set_secrets(&everybody, &both, true).unwrap();
        assert_eq!(store.secrets(&everybody).unwrap(), both);
    }

    #[test]
    fn values_are_encrypted_anew_unless_they_have_changed() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder);
        let both = [kept("a"), kept("b")];
        store.set_secrets(&Owner::Everybody, &both, true).unwrap();
        let anew = |name: &str, before: Vec<u8>| Reencrypted {
            owner: String::new(),
            name: name.to_owned(),
            before,
            ciphertext: vec![9],
        };
        let values = [
            anew("a", vec![1, 2, 3]),
            anew("b", vec![4]),
            anew("c", vec![]),
        ];
        store.reencrypt(&values).unwrap();
        let all = store.all_secrets().unwrap();
        let ciphertexts: Vec<_> = all.iter().map(|(_, kept)| &kept.ciphertext[..]).collect();
        assert_eq!(ciphertexts, [&[9][..], &[1, 2, 3]]);
        assert_eq!(all[0].1.updated_at, 7);
    }
}
