//! The table of what units were given: which version of which secret, never a value.
//!
//! A note is of one run of a unit and counts for no other one. Of a VM there is a
//! second one beside it: a machine that was on the disk when the VM's unit was started
//! has in its memory what it was booted with, whatever that run of the unit is given.

use std::collections::BTreeMap;

use aegis_core::handle::Handle;
use aegis_fault_points::around;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::RegistryError;
use super::secrets::Owner;
use super::store::{Store, failed_write, from_sql, sql};

/// Whose a secret is and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretId {
    /// It is a value of the instance's own.
    pub own: bool,
    pub name: String,
}

/// The versions of secrets: when each value was set, in microseconds since 1970.
pub type Versions = BTreeMap<SecretId, u64>;

/// What one run of a unit was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The unit's name.
    pub unit: String,
    /// The run, as the service manager calls it.
    pub run: String,
    pub secrets: Versions,
    /// What the machine has that was on the disk when this run began; `None` where there
    /// was none, or a guest was booted all the same.
    pub machine: Option<Versions>,
}

impl Given {
    /// What the guest of a VM's unit has.
    pub fn of_guest(&self) -> &Versions {
        self.machine.as_ref().unwrap_or(&self.secrets)
    }
}

/// A version as the table has it.
#[derive(Serialize, Deserialize)]
struct Version {
    #[serde(flatten)]
    id: SecretId,
    version: u64,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the registry's own table; every change is a step"
)]
impl Store {
    /// Notes what a run of a unit is given, in place of what the run before it was. A
    /// machine `on_disk` goes on with what it has.
    pub(super) fn note_given(
        &mut self,
        instance: &Handle,
        given: &Given,
        on_disk: bool,
    ) -> Result<(), RegistryError> {
        let Given {
            unit, run, secrets, ..
        } = given;
        let machine = match on_disk {
            true => {
                let before = self.given_to(unit)?;
                Some(before.map_or_else(Versions::new, |given| given.of_guest().clone()))
            }
            false => None,
        };
        let values = params![
            unit,
            Owner::Instance(instance.clone()).key(),
            run,
            to_text(secrets),
            machine.as_ref().map(to_text),
        ];
        let statement = "REPLACE INTO given (unit, instance, run, secrets, machine)
                         VALUES (?1, ?2, ?3, ?4, ?5)";
        around("registry.write", failed_write, || {
            let written = self.connection.execute(statement, values);
            written.map(drop).map_err(sql("write"))
        })
    }

    /// Drops what a unit was given; where nothing is noted nothing is written.
    pub(super) fn forget_given(&mut self, unit: &str) -> Result<(), RegistryError> {
        let statement = "DELETE FROM given WHERE unit = ?1";
        around("registry.write", failed_write, || {
            let written = self.connection.execute(statement, [unit]);
            written.map(drop).map_err(sql("write"))
        })
    }

    /// Notes that a unit's run has booted although a machine was on the disk.
    pub(super) fn note_booted(&mut self, unit: &str) -> Result<(), RegistryError> {
        let statement = "UPDATE given SET machine = NULL WHERE unit = ?1";
        around("registry.write", failed_write, || {
            let written = self.connection.execute(statement, [unit]);
            written.map(drop).map_err(sql("write"))
        })
    }

    /// What the units of an instance were given, and the versions of now of everything
    /// that it could be given.
    pub(super) fn given(
        &mut self,
        instance: &Handle,
    ) -> Result<(Vec<Given>, Versions), RegistryError> {
        let failed = sql("read");
        let own = Owner::Instance(instance.clone()).key();
        let mut query = self
            .connection
            .prepare("SELECT unit, run, secrets, machine FROM given WHERE instance = ?1")
            .map_err(&failed)?;
        let notes = query.query_map([&own], read).map_err(&failed)?;
        let notes = notes.collect::<Result<_, _>>().map_err(&failed)?;
        let mut query = self
            .connection
            .prepare("SELECT owner, name, updated_at FROM secret WHERE owner IN ('', ?1)")
            .map_err(&failed)?;
        let version = |row: &Row<'_>| {
            let owner: String = row.get(0)?;
            let id = SecretId {
                own: !owner.is_empty(),
                name: row.get(1)?,
            };
            Ok((id, from_sql(row.get(2)?)))
        };
        let versions = query.query_map([&own], version).map_err(&failed)?;
        let versions = versions.collect::<Result<_, _>>().map_err(&failed)?;
        Ok((notes, versions))
    }

    fn given_to(&self, unit: &str) -> Result<Option<Given>, RegistryError> {
        self.connection
            .query_row(
                "SELECT unit, run, secrets, machine FROM given WHERE unit = ?1",
                [unit],
                read,
            )
            .optional()
            .map_err(sql("read"))
    }
}

/// Forgets what the units of an instance were given.
#[expect(
    clippy::disallowed_methods,
    reason = "the registry's own table; callers are a step"
)]
pub(super) fn forget(connection: &Connection, instance: &str) -> rusqlite::Result<()> {
    let forgotten = connection.execute("DELETE FROM given WHERE instance = ?1", [instance]);
    forgotten.map(drop)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Given> {
    let secrets: String = row.get(2)?;
    let machine: Option<String> = row.get(3)?;
    Ok(Given {
        unit: row.get(0)?,
        run: row.get(1)?,
        secrets: from_text(&secrets),
        machine: machine.as_deref().map(from_text),
    })
}

fn to_text(versions: &Versions) -> String {
    let rows = versions.iter().map(|(id, &version)| Version {
        id: id.clone(),
        version,
    });
    // Numbers and texts always are JSON.
    serde_json::to_string(&rows.collect::<Vec<_>>()).unwrap_or_default()
}

/// What cannot be read is not known to be given.
fn from_text(text: &str) -> Versions {
    let rows: Vec<Version> = serde_json::from_str(text).unwrap_or_default();
    rows.into_iter().map(|row| (row.id, row.version)).collect()
}

#[cfg(test)]
mod tests {
    use aegis_core::spec::InstanceSpec;

    use super::*;
    use crate::registry::{KeptSecret, Record};

    const UNIT: &str = "aegis-vm-web.service";

    fn store(folder: &tempfile::TempDir) -> Store {
        Store::open(&folder.path().join("registry.db")).unwrap()
    }

    fn id(own: bool, name: &str) -> SecretId {
        let name = name.to_owned();
        SecretId { own, name }
    }

    fn versions(version: u64) -> Versions {
        [(id(false, "KEY"), version)].into()
    }

    fn given(unit: &str, run: &str, version: u64) -> Given {
        Given {
            unit: unit.to_owned(),
            run: run.to_owned(),
            secrets: versions(version),
            machine: None,
        }
    }

    #[test]
    fn a_note_is_of_the_last_run_and_goes_with_its_instance() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder);
        let web: Handle = "Web".parse().unwrap();
        let record = Record::new(web.clone(), InstanceSpec::default(), 1);
        let own = KeptSecret {
            name: "OWN".into(),
            ciphertext: vec![1],
            updated_at: 5,
        };
        store.insert(&record, &[own]).unwrap();
        for run in ["a", "b"] {
            store.note_given(&web, &given(UNIT, run, 7), false).unwrap();
        }
        let (notes, now) = store.given(&web).unwrap();
        assert_eq!(notes.len(), 1);
        assert_eq!(
            (notes[0].run.as_str(), &notes[0].secrets),
            ("b", &versions(7))
        );
        assert_eq!(now, [(id(true, "OWN"), 5)].into());
        store.remove(&web).unwrap();
        assert!(store.given(&web).unwrap().0.is_empty());
    }

    #[test]
    fn a_machine_on_the_disk_keeps_what_it_was_booted_with() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder);
        let web: Handle = "web".parse().unwrap();
        let mut note = |run: &str, version, on_disk| {
            let given = given(UNIT, run, version);
            store.note_given(&web, &given, on_disk).unwrap();
            store.given(&web).unwrap().0.remove(0)
        };
        assert_eq!(note("a", 1, false).of_guest(), &versions(1));
        // Hibernated and woken, twice.
        assert_eq!(note("b", 2, true).of_guest(), &versions(1));
        assert_eq!(note("c", 3, true).of_guest(), &versions(1));
        assert_eq!(note("d", 4, false).of_guest(), &versions(4));
        assert_eq!(note("e", 5, true).of_guest(), &versions(4));
        store.note_booted(UNIT).unwrap();
        let (notes, _) = store.given(&web).unwrap();
        assert_eq!(notes[0].of_guest(), &versions(5));
        // Of a machine from before there were notes nothing is known.
        store.forget_given(UNIT).unwrap();
        assert!(store.given(&web).unwrap().0.is_empty());
        let db: Handle = "db".parse().unwrap();
        let given = given("aegis-vm-db.service", "a", 1);
        store.note_given(&db, &given, true).unwrap();
        let (notes, _) = store.given(&db).unwrap();
        assert!(notes[0].of_guest().is_empty());
    }
}
