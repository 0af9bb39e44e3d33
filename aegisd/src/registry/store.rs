//! The tables of the registry. Lives on the registry's thread; everything blocks.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use aegis_core::handle::Handle;
use aegis_fault_points::around;
use rusqlite::{Connection, Row, ffi, params};

use super::record::{Intent, Record};
use super::secrets::{self, KeptSecret, Owner};
use super::{OpenError, RegistryError, given, messages};
use crate::effects;

/// The newest schema this version knows; `PRAGMA user_version` of the file.
pub const SCHEMA_VERSION: u32 = 12;

/// Each entry takes the schema from its index to the next number. Entries are
/// never changed, only added: files of every age exist.
const MIGRATIONS: [&str; SCHEMA_VERSION as usize] = [
    "
    CREATE TABLE instance (
        -- The handle without regard to case, which is how names are unique.
        folded          TEXT PRIMARY KEY,
        handle          TEXT NOT NULL,
        -- Microseconds since 1970.
        created_at      INTEGER NOT NULL,
        intent          TEXT NOT NULL,
        -- aegis-core's InstanceSpec as JSON.
        spec            TEXT NOT NULL,
        -- Unit names and times as a JSON object; in old rows names as an array.
        stopped_by_hand TEXT NOT NULL,
        -- Microseconds since 1970.
        made_in         INTEGER
    ) STRICT, WITHOUT ROWID;
",
    "
    -- Microseconds since 1970.
    ALTER TABLE instance ADD COLUMN intent_since INTEGER NOT NULL DEFAULT 0;
    -- Setting to number of its last change, as a JSON object.
    ALTER TABLE instance ADD COLUMN revisions TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE instance ADD COLUMN limits_due INTEGER NOT NULL DEFAULT 0;
    UPDATE instance SET intent_since = created_at;
",
    "
    -- Microseconds since 1970.
    ALTER TABLE instance ADD COLUMN stopped_at INTEGER;
",
    "
    CREATE TABLE secret (
        -- Empty for everybody's, else the folded handle of the instance it belongs to.
        owner           TEXT NOT NULL,
        name            TEXT NOT NULL,
        -- As aegisd's secrets/seal.rs writes it.
        ciphertext      BLOB NOT NULL,
        -- Microseconds since 1970.
        updated_at      INTEGER NOT NULL,
        PRIMARY KEY (owner, name)
    ) STRICT, WITHOUT ROWID;
",
    "
    -- User id, in system mode.
    ALTER TABLE instance ADD COLUMN creator INTEGER;
",
    "
    -- Names of settings, as a JSON array.
    ALTER TABLE instance ADD COLUMN units_due TEXT NOT NULL DEFAULT '[]';
",
    "
    -- aegis-core's Volumes, as a JSON array.
    ALTER TABLE instance ADD COLUMN volumes_before TEXT;
",
    "
    -- aegis-core's Leases, as a JSON array.
    ALTER TABLE instance ADD COLUMN leases TEXT NOT NULL DEFAULT '[]';
",
    "
    CREATE TABLE given (
        -- The unit's name.
        unit            TEXT PRIMARY KEY,
        -- The folded handle.
        instance        TEXT NOT NULL,
        -- Which run of the unit, as the service manager calls it.
        run             TEXT NOT NULL,
        -- Secrets and their versions as a JSON array, never a value.
        secrets         TEXT NOT NULL,
        -- Those of the machine that was on the disk, likewise.
        machine         TEXT
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE message (
        -- The folded handle.
        instance        TEXT NOT NULL,
        -- Among those of the instance, growing.
        seq             INTEGER NOT NULL,
        channel         TEXT NOT NULL,
        session         TEXT NOT NULL,
        type            TEXT NOT NULL,
        -- aegis-core's Frame as JSON.
        frame           TEXT NOT NULL,
        PRIMARY KEY (instance, seq)
    ) STRICT;
",
    "
    -- What its sender calls it; a type and a session has each once. Messages that were
    -- taken over have none.
    ALTER TABLE message ADD COLUMN msg_id TEXT;
    -- It waits for the guest.
    ALTER TABLE message ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;
    CREATE UNIQUE INDEX message_once ON message (instance, channel, session, type, msg_id)
        WHERE msg_id IS NOT NULL;
    CREATE INDEX message_waits ON message (instance, seq) WHERE waits = 1;
    CREATE TABLE watermark (
        -- The folded handle.
        instance        TEXT NOT NULL,
        channel         TEXT NOT NULL,
        -- Number of the last message that the channel is done with.
        seq             INTEGER NOT NULL,
        PRIMARY KEY (instance, channel)
    ) STRICT, WITHOUT ROWID;
",
    "
    -- Microseconds since 1970.
    ALTER TABLE message ADD COLUMN came_at INTEGER NOT NULL DEFAULT 0;
",
];

/// What is in the registry.
#[derive(Debug, Default)]
pub struct Loaded {
    pub records: Vec<Record>,
    pub quarantined: Vec<Quarantined>,
}

/// A record that cannot be read. It stays where it is, and its units are left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The handle as it is written; perhaps not a valid one.
    pub handle: String,
    /// Why it cannot be read.
    pub reason: String,
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) connection: Connection,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the place the registry is changed in; every change is a step()"
)]
impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, RegistryError> {
        let failed = |source: OpenError| RegistryError::Open {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            effects::make_folders(folder).map_err(|error| failed(error.into()))?;
        }
        // SQLite gives its journal the mode of the database file.
        effects::keep_file(path).map_err(|error| failed(error.into()))?;
        let connection = Connection::open(path).map_err(|error| failed(error.into()))?;
        // FULL: an intent must be on the disk before what it announces happens.
        step("registry.open", || {
            connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        })
        .map_err(|error| failed(error.into()))?;
        let mut store = Self { connection };
        store.migrate(path)?;
        Ok(store)
    }

    fn migrate(&mut self, path: &Path) -> Result<(), RegistryError> {
        let read = |row: &Row<'_>| row.get(0);
        let found: u32 = self
            .connection
            .query_row("PRAGMA user_version", [], read)
            .map_err(sql("read the version of"))?;
        if found > SCHEMA_VERSION {
            return Err(RegistryError::TooNew {
                path: path.to_owned(),
                found,
                known: SCHEMA_VERSION,
            });
        }
        for version in found..SCHEMA_VERSION {
            let connection = &mut self.connection;
            let migrated = step("registry.migrate", || {
                let migration = connection.transaction()?;
                migration.execute_batch(MIGRATIONS[version as usize])?;
                migration.pragma_update(None, "user_version", version + 1)?;
                migration.commit()
            });
            migrated.map_err(sql("migrate"))?;
        }
        Ok(())
    }

    pub(super) fn load(&mut self) -> Result<Loaded, RegistryError> {
        let failed = sql("read");
        let mut query = self
            .connection
            .prepare(
                "SELECT handle, created_at, intent, spec, stopped_by_hand, made_in,
                        intent_since, revisions, limits_due, stopped_at, creator, units_due,
                        volumes_before, leases
                 FROM instance ORDER BY folded",
            )
            .map_err(&failed)?;
        let mut rows = query.query([]).map_err(&failed)?;
        let mut loaded = Loaded::default();
        while let Some(row) = rows.next().map_err(&failed)? {
            match read_record(row) {
                Ok(record) => loaded.records.push(record),
                Err(error) => loaded.quarantined.push(Quarantined {
                    handle: row.get(0).unwrap_or_else(|_| "(unreadable)".to_owned()),
                    reason: aegis_core::fault::chain(&error),
                }),
            }
        }
        Ok(loaded)
    }

    /// Writes a new record and the secrets of its own, or nothing.
    pub(super) fn insert(
        &mut self,
        record: &Record,
        own: &[KeptSecret],
    ) -> Result<(), RegistryError> {
        let taken = |error| match error {
            RegistryError::Sql { source, .. }
                if source.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) =>
            {
                RegistryError::Taken(record.handle.to_string())
            }
            other => other,
        };
        around("registry.write", failed_write, || {
            let both = self.connection.transaction().map_err(sql("write"))?;
            write(&both, "INSERT", record).map_err(taken)?;
            secrets::give(&both, record, own)?;
            both.commit().map_err(sql("write"))
        })
    }

    pub(super) fn update(&mut self, record: &Record) -> Result<(), RegistryError> {
        around("registry.write", failed_write, || {
            write(&self.connection, "REPLACE", record)
        })
    }

    pub(super) fn remove(&mut self, handle: &Handle) -> Result<(), RegistryError> {
        let folded = Owner::Instance(handle.clone()).key();
        let removed = step("registry.remove", || {
            let both = self.connection.transaction()?;
            both.execute("DELETE FROM secret WHERE owner = ?1", [&folded])?;
            given::forget(&both, &folded)?;
            messages::forget(&both, &folded)?;
            both.execute("DELETE FROM instance WHERE folded = ?1", [&folded])?;
            both.commit()
        });
        removed.map_err(sql("write"))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the place the registry is changed in; callers are a step"
)]
fn write(connection: &Connection, verb: &str, record: &Record) -> Result<(), RegistryError> {
    let encode = |source| RegistryError::Encode {
        handle: record.handle.clone(),
        source,
    };
    let statement = format!(
        "{verb} INTO instance (folded, handle, created_at, intent, spec, stopped_by_hand, made_in,
                               intent_since, revisions, limits_due, stopped_at, creator, units_due,
                               volumes_before, leases)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
    );
    let values = params![
        record.handle.folded(),
        record.handle.as_str(),
        to_sql(record.created_at),
        word(record.intent).map_err(encode)?,
        serde_json::to_string(&record.spec).map_err(encode)?,
        serde_json::to_string(&record.stopped_by_hand).map_err(encode)?,
        record.made_in.map(to_sql),
        to_sql(record.intent_since),
        serde_json::to_string(&record.revisions).map_err(encode)?,
        record.limits_due,
        record.stopped_at.map(to_sql),
        record.creator,
        serde_json::to_string(&record.units_due).map_err(encode)?,
        record
            .volumes_before
            .as_ref()
            .map(serde_json::to_string)
            .transpose()
            .map_err(encode)?,
        serde_json::to_string(&record.leases).map_err(encode)?,
    ];
    let written = connection.execute(&statement, values);
    written.map(drop).map_err(sql("write"))
}

/// Why one record cannot be read.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error("a column has a wrong type")]
    Column(#[from] rusqlite::Error),
    #[error("the handle is not valid")]
    Handle(#[from] aegis_core::handle::HandleError),
    #[error("the column '{column}' cannot be read")]
    Json {
        column: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the spec holds a value that is not acceptable")]
    Spec(#[from] aegis_core::spec::SpecError),
}

fn read_record(row: &Row<'_>) -> Result<Record, RecordError> {
    let json = |column| move |source| RecordError::Json { column, source };
    let handle: String = row.get(0)?;
    let intent: String = row.get(2)?;
    let spec: String = row.get(3)?;
    let stopped_by_hand: String = row.get(4)?;
    let revisions: String = row.get(7)?;
    let units_due: String = row.get(11)?;
    let volumes_before: Option<String> = row.get(12)?;
    let leases: String = row.get(13)?;
    let record = Record {
        handle: handle.parse()?,
        created_at: from_sql(row.get(1)?),
        intent: read_word(&intent).map_err(json("intent"))?,
        spec: serde_json::from_str(&spec).map_err(json("spec"))?,
        stopped_by_hand: read_stopped(&stopped_by_hand).map_err(json("stopped_by_hand"))?,
        made_in: row.get::<_, Option<i64>>(5)?.map(from_sql),
        intent_since: from_sql(row.get(6)?),
        revisions: serde_json::from_str(&revisions).map_err(json("revisions"))?,
        limits_due: row.get(8)?,
        stopped_at: row.get::<_, Option<i64>>(9)?.map(from_sql),
        creator: row.get(10)?,
        units_due: serde_json::from_str(&units_due).map_err(json("units_due"))?,
        volumes_before: volumes_before
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(json("volumes_before"))?,
        leases: serde_json::from_str(&leases).map_err(json("leases"))?,
    };
    record.spec.validate()?;
    Ok(record)
}

/// The word of an intent is its name in JSON, without the quotes.
fn word(intent: Intent) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string(&intent)?.trim_matches('"').to_owned())
}

fn read_word(text: &str) -> Result<Intent, serde_json::Error> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
}

fn read_stopped(text: &str) -> Result<BTreeMap<String, u64>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Stopped {
        Times(BTreeMap<String, u64>),
        Names(Vec<String>),
    }
    Ok(match serde_json::from_str(text)? {
        Stopped::Times(times) => times,
        Stopped::Names(names) => names.into_iter().map(|name| (name, 0)).collect(),
    })
}

/// SQLite's integers are signed; microseconds since 1970 fit for 290,000 years.
pub(super) fn to_sql(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(time: i64) -> u64 {
    u64::try_from(time).unwrap_or_default()
}

/// One change of the file, with its fault points.
fn step<T>(name: &str, act: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    around(name, refused, act)
}

/// A step that failed before it reached SQLite.
#[expect(clippy::needless_pass_by_value, reason = "it is what around() gives")]
pub(super) fn refused(error: io::Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(as_sqlite_says(&error), None)
}

/// SQLite's word for an error of the system, as its documentation of result codes
/// has it.
fn as_sqlite_says(error: &io::Error) -> ffi::Error {
    ffi::Error::new(match error.kind() {
        io::ErrorKind::StorageFull => ffi::SQLITE_FULL,
        io::ErrorKind::ReadOnlyFilesystem => ffi::SQLITE_READONLY,
        _ => ffi::SQLITE_CANTOPEN,
    })
}

/// A change that failed before it reached SQLite.
pub(super) fn failed_write(error: io::Error) -> RegistryError {
    sql("write")(refused(error))
}

pub(super) fn sql(operation: &'static str) -> impl Fn(rusqlite::Error) -> RegistryError {
    move |source| RegistryError::Sql { operation, source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use aegis_core::spec::InstanceSpec;

    use super::*;

    fn record(handle: &str) -> Record {
        Record::new(handle.parse().unwrap(), InstanceSpec::default(), 7)
    }

    #[test]
    fn records_are_read_back_and_the_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/registry.db");
        let mut made = record("Web");
        made.intent = Intent::Purging;
        made.made_in = Some(9);
        made.stopped_by_hand = [("aegis-vm-Web.socket".to_owned(), 8)].into();
        made.intent_since = 8;
        made.revisions = [("memory".to_owned(), 3)].into();
        made.limits_due = true;
        made.units_due = ["ports".to_owned()].into();
        made.stopped_at = Some(10);
        made.creator = Some(1000);
        Store::open(&path).unwrap().insert(&made, &[]).unwrap();
        assert_eq!(Store::open(&path).unwrap().load().unwrap().records, [made]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn stops_noted_without_a_time_are_read() {
        let read = read_stopped(r#"["a.service"]"#).unwrap();
        assert_eq!(read, [("a.service".to_owned(), 0)].into());
    }

    #[test]
    fn a_registry_of_the_first_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.execute_batch(
            r#"INSERT INTO instance VALUES
               ('web', 'web', 7, 'enabled', '{"memory_mib":128,"cpus":2}', '[]', NULL)"#,
        )
        .unwrap();
        drop(old);
        let loaded = Store::open(&path).unwrap().load().unwrap();
        assert!(loaded.quarantined.is_empty(), "{:?}", loaded.quarantined);
        let record = &loaded.records[0];
        assert_eq!((record.intent_since, record.limits_due), (7, false));
        assert_eq!(record.spec.memory_mib, 128);
    }

    #[test]
    fn names_are_unique_without_regard_to_case() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("registry.db")).unwrap();
        store.insert(&record("web"), &[]).unwrap();
        let error = store.insert(&record("WEB"), &[]).unwrap_err();
        assert!(matches!(error, RegistryError::Taken(_)));
        store.remove(&"Web".parse().unwrap()).unwrap();
        store.insert(&record("WEB"), &[]).unwrap();
    }

    #[test]
    fn an_unreadable_record_is_shown_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        let mut store = Store::open(&path).unwrap();
        store.insert(&record("good"), &[]).unwrap();
        for (handle, column, value) in [
            ("bad-spec", "spec", "{"),
            ("bad-intent", "intent", "dreaming"),
            ("bad-value", "spec", r#"{"memory_mib":1,"cpus":1}"#),
        ] {
            store.insert(&record(handle), &[]).unwrap();
            let spoil = format!("UPDATE instance SET {column} = ?1 WHERE handle = ?2");
            store.connection.execute(&spoil, [value, handle]).unwrap();
        }
        for _ in 0..2 {
            let loaded = store.load().unwrap();
            assert_eq!(loaded.records.len(), 1);
            let handles: Vec<_> = loaded.quarantined.iter().map(|q| &q.handle).collect();
            assert_eq!(handles, ["bad-intent", "bad-spec", "bad-value"]);
            assert!(loaded.quarantined[2].reason.contains("memory"));
        }
    }

    #[test]
    fn a_registry_of_the_future_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        let store = Store::open(&path).unwrap();
        store
            .connection
            .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
            .unwrap();
        drop(store);
        let error = Store::open(&path).unwrap_err();
        assert!(
            matches!(error, RegistryError::TooNew { found, .. } if found == SCHEMA_VERSION + 1)
        );
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        fs::write(
            &path,
            "not a database, but long enough to look like one".repeat(50),
        )
        .unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, RegistryError::Open { .. }), "{error:?}");
    }
}
