//! Templates: guests that have said who they are and were told nothing yet, kept for
//! the next VM of the same shape, which need not boot then.
//!
//! ```text
//!  a guest's first word ──► FOLDER/DIGEST OF ITS SHAPE ──► verified, loaded, told
//!     of a VM that booted       (a snapshot's form)        what to become: any number
//!                                                          of VMs, at the same time
//! ```
//!
//! No instance is in one: no name, secret or program, only the kernel and the harness.
//! So it is not sealed, and used more than once; the guest is given randomness and the
//! time before anything else. Nothing depends on one either: it is not made durable,
//! and what a crash leaves of it is found out when it is read, and removed.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aegis_fault_points::around;
use aegis_link::message::Hello;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::format::{FormatError, Writer};
use super::stamp::Stamp;
use super::{BUFFER, SnapshotError, StateSink, Stored, at};

/// Bytes that all templates may take: a dozen of guests with 256 MiB.
const ROOM: u64 = 512 << 20;

/// Bytes that must be free on the disk for one to be made.
const SPARE: u64 = 1 << 30;

/// What the names of templates that are being written begin with.
const PARTIAL: &str = ".partial-";

/// What stands before a template's state.
#[derive(Debug, Serialize, Deserialize)]
pub struct Header {
    /// Of all that the guest saw of its VM until then.
    pub shape: Stamp,
    /// Of the hypervisor and the machine.
    pub machine: Stamp,
    /// The link's epoch.
    pub epoch: u32,
    pub hello: Hello,
}

/// The folder of all templates. Operations block on the disk.
#[derive(Clone, Debug)]
pub struct Templates {
    folder: PathBuf,
}

impl Templates {
    /// Those in a folder that is there.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Opens the template of a shape, if there is one.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(&self, shape: &Stamp) -> Result<Option<(Stored, Header)>, SnapshotError> {
        let path = self.path(shape)?;
        // Of those that nobody has used for long the room is given to others.
        if let Ok(file) = File::open(&path) {
            file.set_modified(SystemTime::now()).ok();
        }
        Stored::open(path, None)
    }

    /// Begins the template that this header is of; `None` where there is one, somebody else
    /// is at it, or the disk has no room to spare.
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(&self, header: &Header) -> Result<Option<Unfinished>, SnapshotError> {
        let path = self.path(&header.shape)?;
        // What crashes left takes room as well.
        self.tidy(ROOM).map_err(at("tidy up", &self.folder))?;
        let is_begun = self.is_begun(&path).map_err(at("look for", &path))?;
        if path.exists() || is_begun || !self.has_room() {
            return Ok(None);
        }
        let make = || {
            let mut named = tempfile::Builder::new();
            let prefix = partial_prefix(&path);
            named.prefix(&prefix).tempfile_in(&self.folder)
        };
        let made = around("template.create", |error| error, make);
        let (file, partial) = made.map_err(at("make", &path))?.into_parts();
        // Who tidies up tells by it that somebody still writes.
        file.lock_shared().map_err(at("lock", &path))?;
        let file = NamedTempFile::from_parts(BufWriter::with_capacity(BUFFER, file), partial);
        let writer = Writer::begin(file, header, None);
        let writer = writer.map_err(|source| SnapshotError::Format {
            path: path.clone(),
            source,
        })?;
        Ok(Some(Unfinished {
            templates: self.clone(),
            path,
            writer,
        }))
    }

    /// Whether somebody is writing what is to be at this path.
    fn is_begun(&self, path: &Path) -> io::Result<bool> {
        let prefix = partial_prefix(path);
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_of_it = entry.file_name().to_string_lossy().starts_with(&prefix);
            if is_of_it && is_written(&entry.path()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_room(&self) -> bool {
        let disk = rustix::fs::statvfs(&self.folder);
        disk.is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= SPARE)
    }

    /// Removes the template of a shape, if there is one.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove(&self, shape: &Stamp) -> Result<(), SnapshotError> {
        let path = self.path(shape)?;
        let removed = around("template.remove", |error| error, || super::gone(&path));
        removed.map(drop).map_err(at("remove", &path))
    }

    fn path(&self, shape: &Stamp) -> Result<PathBuf, SnapshotError> {
        let shape = serde_json::to_vec(shape).map_err(|source| SnapshotError::Format {
            path: self.folder.clone(),
            source: FormatError::Unwritable(source),
        })?;
        let digest = Sha256::digest(&shape);
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(self.folder.join(name))
    }

    /// Removes what a crash left, and templates that were not used for longest, until
    /// the rest fits into the room.
    fn tidy(&self, room: u64) -> io::Result<()> {
        let mut whole = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            // Others tidy up at the same time.
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PARTIAL.as_bytes())
            {
                if !is_written(&path) {
                    super::gone(&path)?;
                }
                continue;
            }
            let used = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let age = used.elapsed().unwrap_or(Duration::ZERO);
            whole.push((age, found.len(), path));
        }
        whole.sort();
        let mut taken = 0_u64;
        for (_, size, path) in whole {
            taken = taken.saturating_add(size);
            if taken > room {
                super::gone(&path)?;
            }
        }
        Ok(())
    }
}

/// What the names of templates begin with that are being written to be at this path.
fn partial_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("{PARTIAL}{}-", name.to_string_lossy())
}

/// Whether somebody still writes a file.
fn is_written(path: &Path) -> bool {
    match File::open(path).map(|file| file.try_lock()) {
        Ok(Err(TryLockError::WouldBlock)) => true,
        Ok(_) | Err(_) => false,
    }
}

/// A template that is being written. Dropping it removes it.
#[derive(Debug)]
pub struct Unfinished {
    templates: Templates,
    path: PathBuf,
    writer: Writer<NamedTempFile<BufWriter<File>>>,
}

impl StateSink for Unfinished {
    fn state(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let refused = |source| FormatError::Write(source);
        let written = around("template.write", refused, || self.writer.state(bytes));
        written.map_err(|source| SnapshotError::Format {
            path: self.path.clone(),
            source,
        })
    }
}

impl Unfinished {
    /// Makes it the template of its shape, in place of one that is there; its size in
    /// bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn publish(self) -> Result<u64, SnapshotError> {
        let failed = at("write", &self.path);
        let mut file = self.writer.end().map_err(|source| SnapshotError::Format {
            path: self.path.clone(),
            source,
        })?;
        file.flush().map_err(&failed)?;
        let size = file.as_file().get_ref().metadata().map_err(&failed)?.len();
        let published = around(
            "template.publish",
            |error| error,
            || file.persist(&self.path).map_err(|error| error.error),
        );
        published.map_err(at("publish", &self.path))?;
        // It is there, whatever becomes of others; the next one tries again.
        self.templates.tidy(ROOM).ok();
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(shape: &str) -> Header {
        Header {
            shape: Stamp::default().with("the shape", shape),
            machine: Stamp::default(),
            epoch: 3,
            hello: Hello {
                generation: 1,
                harness: "0".to_owned(),
                kernel: "6".to_owned(),
            },
        }
    }

    fn kept(templates: &Templates, shape: &str, state: &[u8]) {
        let mut unfinished = templates.begin(&header(shape)).unwrap().unwrap();
        unfinished.state(state).unwrap();
        unfinished.publish().unwrap();
    }

    fn names(templates: &Templates) -> usize {
        fs::read_dir(&templates.folder).unwrap().count()
    }

    #[test]
    fn one_is_used_as_often_as_wanted_and_by_its_shape_alone() {
        let folder = tempfile::tempdir().unwrap();
        let templates = Templates::in_folder(folder.path().to_owned());
        let shape = header("small").shape;
        assert!(templates.open(&shape).unwrap().is_none());
        kept(&templates, "small", b"state");
        for _ in 0..2 {
            let (mut stored, found) = templates.open(&shape).unwrap().unwrap();
            assert_eq!((found.epoch, found.shape), (3, shape.clone()));
            assert_eq!(stored.state().unwrap().as_deref(), Some(&b"state"[..]));
            assert_eq!(stored.state().unwrap(), None);
        }
        assert!(templates.open(&header("large").shape).unwrap().is_none());
        templates.remove(&shape).unwrap();
        templates.remove(&shape).unwrap();
        assert!(templates.open(&shape).unwrap().is_none());
    }

    #[test]
    fn what_is_not_whole_is_none_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let templates = Templates::in_folder(folder.path().to_owned());
        let unfinished = templates.begin(&header("given up")).unwrap().unwrap();
        assert_eq!(names(&templates), 1);
        // Somebody is at it.
        assert!(templates.begin(&header("given up")).unwrap().is_none());
        assert!(templates.begin(&header("another")).unwrap().is_some());
        templates.tidy(ROOM).unwrap();
        assert_eq!(names(&templates), 1);
        drop(unfinished);
        assert_eq!(names(&templates), 0);
        fs::write(
            folder.path().join(format!("{PARTIAL}x")),
            b"left by a crash",
        )
        .unwrap();
        templates.tidy(ROOM).unwrap();
        assert_eq!(names(&templates), 0);
    }

    #[test]
    fn those_that_were_not_used_for_long_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let templates = Templates::in_folder(folder.path().to_owned());
        for (shape, age) in [("old", 300), ("older", 400), ("new", 100)] {
            kept(&templates, shape, &[7; 1000]);
            let path = templates.path(&header(shape).shape).unwrap();
            let file = File::open(path).unwrap();
            let used = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(used).unwrap();
        }
        // A use counts.
        drop(templates.open(&header("older").shape).unwrap().unwrap());
        templates.tidy(3000).unwrap();
        let is_there = |shape| templates.open(&header(shape).shape).unwrap().is_some();
        assert!(is_there("older") && is_there("new") && !is_there("old"));
    }
}
