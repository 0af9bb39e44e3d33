//! The original's database, read without a trace.
//!
//! SQLite makes `-wal` and `-shm` files beside a database of this kind even to read it,
//! and with `immutable=1`, which makes none, does not see what is in a `-wal` that a crash
//! left behind. So the files are copied to a folder of our own, in memory where there is
//! one, and the copy is opened. It goes before anything else is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aegis_core::tether::Frame;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::OriginalError;
use super::row::Row;

/// Beside a database, with what is not in it yet or is to be undone.
const JOURNALS: [&str; 2] = ["-wal", "-journal"];
/// Without these columns a table is not the original's.
const NEEDED: [(&str, &[&str]); 2] = [
    ("instances", &["id", "command"]),
    ("secrets", &["name", "value"]),
];
/// Columns of `instances` that say how it was, not what it is to be.
const PASSING: [&str; 5] = ["state", "vm_id", "created_at", "updated_at", "stopped_at"];

/// What a database holds.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) rows: Vec<Row>,
    pub(crate) secrets: Vec<Sealed>,
    pub(crate) messages: Messages,
    /// Columns of instances that nobody here knows.
    pub(crate) unknown: Vec<String>,
}

/// A secret as it is kept.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
}

/// The messages there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Messages {
    /// By the id of their instance, in the order of their numbers, which they have.
    pub(crate) of: BTreeMap<String, Vec<Frame>>,
    /// How many cannot be read.
    pub(crate) odd: usize,
}

/// Reads a database.
pub(super) fn read(path: &Path) -> Result<Contents, OriginalError> {
    let copy = copy(path)?;
    let failed = |source| OriginalError::Database {
        path: path.to_owned(),
        source,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(database_in(&copy), flags).map_err(failed)?;
    check(&database, path)?;
    contents(&database, path)
}

fn database_in(folder: &TempDir) -> PathBuf {
    folder.path().join("copy.db")
}

/// A copy in a folder that this user alone can enter, and that goes with the value.
fn copy(path: &Path) -> Result<TempDir, OriginalError> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let parent = runtime.filter(|folder| folder.is_dir());
    let folder = tempfile::Builder::new()
        .prefix("aegisctl-import-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent.unwrap_or_else(std::env::temp_dir))
        .map_err(OriginalError::Copy)?;
    let to = database_in(&folder);
    copy_file(path, &to).map_err(|source| match source.kind() {
        ErrorKind::NotFound => OriginalError::NoDatabase(path.to_owned()),
        _ => OriginalError::Read {
            path: path.to_owned(),
            source,
        },
    })?;
    for journal in JOURNALS {
        let beside = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(journal);
            PathBuf::from(name)
        };
        match copy_file(&beside(path), &beside(&to)) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(OriginalError::Read {
                    path: beside(path),
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(folder)
}

/// Copies what is in a file. Its mode stays: one that cannot be written to could not be
/// opened.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = fs::File::open(from)?;
    let mut to = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(to)?;
    io::copy(&mut from, &mut to).map(drop)
}

/// Whether it is whole, and one of the original's.
fn check(database: &Connection, path: &Path) -> Result<(), OriginalError> {
    let failed = |source| OriginalError::Database {
        path: path.to_owned(),
        source,
    };
    let found: String = database
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(failed)?;
    if found != "ok" {
        return Err(OriginalError::Damaged {
            path: path.to_owned(),
            found: found.lines().last().unwrap_or_default().to_owned(),
        });
    }
    for (table, columns) in NEEDED {
        let there = columns_of(database, table).map_err(failed)?;
        let lacks = match columns.iter().find(|column| !there.contains(**column)) {
            _ if there.is_empty() => format!("table {table}"),
            Some(column) => format!("column {column} in the table {table}"),
            None => continue,
        };
        return Err(OriginalError::Schema {
            path: path.to_owned(),
            lacks,
        });
    }
    Ok(())
}

/// None where there is no such table.
fn columns_of(database: &Connection, table: &str) -> rusqlite::Result<BTreeSet<String>> {
    let mut statement = database.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}

fn contents(database: &Connection, path: &Path) -> Result<Contents, OriginalError> {
    let read = || {
        let there = columns_of(database, "instances")?;
        let mut columns = Columns { there };
        let rows = rows(database, &mut columns)?;
        Ok(Contents {
            rows,
            secrets: secrets(database)?,
            messages: messages(database)?,
            unknown: columns.rest(),
        })
    };
    read().map_err(|source| OriginalError::Database {
        path: path.to_owned(),
        source,
    })
}

/// The columns of a table that were not asked for yet.
struct Columns {
    there: BTreeSet<String>,
}

impl Columns {
    /// A column, or what stands for it in a database that has none.
    fn or(&mut self, name: &'static str, default: &'static str) -> &'static str {
        match self.there.remove(name) {
            true => name,
            false => default,
        }
    }

    fn rest(self) -> Vec<String> {
        let is_passing = |name: &String| PASSING.contains(&name.as_str());
        self.there
            .into_iter()
            .filter(|name| !is_passing(name))
            .collect()
    }
}

fn rows(database: &Connection, columns: &mut Columns) -> rusqlite::Result<Vec<Row>> {
    let asked = [
        ("id", "''"),
        ("command", "''"),
        ("expose_ports", "''"),
        ("handle", "''"),
        ("image_ref", "''"),
        ("workspace", "''"),
        ("env", "''"),
        ("secret_keys", "''"),
        ("public_ports", "''"),
        ("enabled", "1"),
        ("memory_mb", "0"),
        ("vcpus", "0"),
        ("parent_id", "''"),
        ("capabilities", "''"),
        ("kit", "''"),
        ("auto_workspace", "0"),
    ];
    let list = asked
        .map(|(name, default)| columns.or(name, default))
        .join(", ");
    let mut statement = database.prepare(&format!("SELECT {list} FROM instances ORDER BY id"))?;
    let rows = statement.query_map([], |row| {
        Ok(Row {
            id: row.get(0)?,
            command: row.get(1)?,
            expose_ports: row.get(2)?,
            handle: row.get(3)?,
            image_ref: row.get(4)?,
            workspace: row.get(5)?,
            env: row.get(6)?,
            secret_keys: row.get(7)?,
            public_ports: row.get(8)?,
            enabled: row.get(9)?,
            memory_mb: row.get(10)?,
            vcpus: row.get(11)?,
            parent_id: row.get(12)?,
            capabilities: row.get(13)?,
            kit: row.get(14)?,
            auto_workspace: row.get(15)?,
        })
    })?;
    rows.collect()
}

fn secrets(database: &Connection) -> rusqlite::Result<Vec<Sealed>> {
    let mut statement = database.prepare("SELECT name, value FROM secrets ORDER BY name")?;
    let secrets = statement.query_map([], |row| {
        Ok(Sealed {
            name: row.get(0)?,
            value: row.get(1)?,
        })
    })?;
    secrets.collect()
}

fn messages(database: &Connection) -> rusqlite::Result<Messages> {
    let mut messages = Messages::default();
    if columns_of(database, "tether_frames")?.is_empty() {
        return Ok(messages);
    }
    let statement = "SELECT instance_id, seq, frame FROM tether_frames ORDER BY instance_id, seq";
    let mut statement = database.prepare(statement)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (instance, seq, text): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let seq = u64::try_from(seq).ok().filter(|seq| *seq > 0);
        match (seq, Frame::parse(&text)) {
            (Some(seq), Ok(mut frame)) => {
                // The column counts.
                frame.number(seq);
                messages.of.entry(instance).or_default().push(frame);
            }
            _ => messages.odd += 1,
        }
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first tables of the original, which later versions add columns to.
    const OLD: &str = "
        CREATE TABLE instances (id TEXT PRIMARY KEY, state TEXT NOT NULL DEFAULT 'stopped',
            command TEXT NOT NULL, expose_ports TEXT NOT NULL DEFAULT '[]');
        CREATE TABLE secrets (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE,
            value BLOB NOT NULL);
        INSERT INTO instances (id, command) VALUES ('inst-1', '[\"true\"]');
        INSERT INTO secrets VALUES ('sec-1', 'KEY', x'0102');";

    fn listing(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    fn made(sql: &str) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aegis.db");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        (dir, path)
    }

    #[test]
    fn what_an_old_database_lacks_has_the_defaults_of_the_original() {
        let (_dir, path) = made(OLD);
        let contents = read(&path).unwrap();
        let [row] = contents.rows.as_slice() else {
            panic!("{:?}", contents.rows);
        };
        assert_eq!((row.id.as_str(), row.enabled), ("inst-1", true));
        assert_eq!(contents.secrets[0].value, [1, 2]);
        assert_eq!(contents.messages, Messages::default());
        assert!(contents.unknown.is_empty(), "{:?}", contents.unknown);
    }

    #[test]
    fn what_is_in_the_log_alone_is_read_and_nothing_is_written() {
        let (dir, path) = made(&format!("PRAGMA journal_mode=WAL; {OLD}"));
        // Held open, so that nobody brings the log into the database.
        let held = Connection::open(&path).unwrap();
        held.execute_batch(
            "INSERT INTO instances (id, command) VALUES ('inst-2', '[]');
             CREATE TABLE tether_frames (instance_id TEXT, seq INTEGER, frame TEXT);
             INSERT INTO tether_frames VALUES ('inst-1', 2, '{}'), ('inst-1', 1,
                 '{\"v\":1,\"type\":\"t\",\"seq\":9,\"session\":{\"channel\":\"c\",\"id\":\"s\"}}');
             ALTER TABLE instances ADD COLUMN colour TEXT;",
        )
        .unwrap();
        let before = listing(dir.path());
        assert_eq!(before.len(), 3);
        let contents = read(&path).unwrap();
        assert_eq!(contents.rows.len(), 2);
        assert_eq!(contents.messages.odd, 1);
        let frames = &contents.messages.of["inst-1"];
        assert_eq!(frames.iter().map(Frame::seq).collect::<Vec<_>>(), [Some(1)]);
        assert_eq!(contents.unknown, ["colour"]);
        assert!(before == listing(dir.path()));
    }

    #[test]
    fn what_is_no_database_of_the_original_is_told() {
        let error = |path: &Path| read(path).unwrap_err();
        let (dir, path) = made("CREATE TABLE instances (id TEXT, command TEXT);");
        assert!(
            matches!(error(&path), OriginalError::Schema { lacks, .. } if lacks == "table secrets")
        );
        let other = dir.path().join("other");
        assert!(matches!(error(&other), OriginalError::NoDatabase(_)));
        fs::write(
            &other,
            "these are some words and no database, whatever the name",
        )
        .unwrap();
        assert!(matches!(error(&other), OriginalError::Database { .. }));
        let (_dir, path) = made(OLD);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() - 512;
        bytes[middle..].fill(0xa5);
        let last = bytes.len() - 4096;
        bytes[last..last + 64].fill(0xa5);
        fs::write(&path, bytes).unwrap();
        let error = error(&path);
        assert!(
            matches!(
                error,
                OriginalError::Damaged { .. } | OriginalError::Database { .. }
            ),
            "{error}"
        );
    }
}
