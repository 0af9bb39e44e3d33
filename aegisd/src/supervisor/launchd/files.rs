//! The files of jobs: property lists, and the records of their runs.
//!
//! Property lists lie outside `~/Library/LaunchAgents`, where launchd would start the
//! jobs by itself at the next login, without aegisd. They hold no secrets, and launchd
//! takes none that others could have written.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aegis_core::launchd::RunRecord;
use plist::{Dictionary, Value};

use crate::effects;

/// Why a file of a job is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum JobFileError {
    #[error("cannot write the property list {path}")]
    Render {
        path: PathBuf,
        #[source]
        source: plist::Error,
    },
    #[error("cannot {operation} {path}")]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl JobFileError {
    fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }
}

/// The folder of the property lists.
#[derive(Clone, Debug)]
pub(super) struct JobFolder(PathBuf);

/// What a property list tells of its job, whoever wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Where aegis-shim keeps what it knows of the runs.
    pub(super) record: Option<PathBuf>,
    /// Where the job says that it is ready, if it does.
    pub(super) notify: Option<PathBuf>,
    /// The paths of its unix sockets.
    pub(super) sockets: Vec<PathBuf>,
    /// How long it may take to stop.
    pub(super) exit_timeout: Duration,
    /// Which ends launchd follows by a start.
    pub(super) keeps: Keeps,
}

/// Which ends of a job launchd follows by another start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Keeps {
    #[default]
    None,
    Failures,
    All,
}

/// launchd's own `ExitTimeOut` (launchd.plist(5)).
const DEFAULT_EXIT_TIMEOUT: Duration = Duration::from_secs(20);

impl JobFolder {
    /// The folder, which is made if it is missing.
    pub(super) fn at(path: PathBuf) -> Result<Self, JobFileError> {
        private_folder(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self, label: &str) -> PathBuf {
        self.0.join(format!("{label}.plist"))
    }

    /// Writes a job's property list, whole before it has its name.
    pub(super) fn write(&self, label: &str, job: &Dictionary) -> Result<PathBuf, JobFileError> {
        let path = self.path(label);
        let content = render(job).map_err(|source| JobFileError::Render {
            path: path.clone(),
            source,
        })?;
        replace(&path, &content)?;
        Ok(path)
    }

    /// What the property list of a job tells; nothing where there is none.
    pub(super) fn read(&self, label: &str) -> Loaded {
        let job = fs::read(self.path(label)).ok();
        let job = job.and_then(|text| plist::from_bytes::<Dictionary>(&text).ok());
        job.map(|job| loaded(&job)).unwrap_or_default()
    }

    /// The labels that have a property list here, loaded or not.
    pub(super) fn labels(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter_map(|name| name.strip_suffix(".plist").map(str::to_owned))
            .collect()
    }

    /// Removes everything of a job that launchd no longer has.
    pub(super) fn forget(&self, label: &str) -> Result<(), JobFileError> {
        let job = self.read(label);
        let files = job.sockets.iter().chain(&job.notify).chain(&job.record);
        for path in files {
            remove(path)?;
        }
        remove(&self.path(label))
    }
}

/// A job as the text that `launchctl bootstrap` reads.
///
/// # Errors
/// The property list could not be written.
pub fn render(job: &Dictionary) -> Result<Vec<u8>, plist::Error> {
    let mut text = Vec::new();
    plist::to_writer_xml(&mut text, job)?;
    Ok(text)
}

fn loaded(job: &Dictionary) -> Loaded {
    let argv = job.get("ProgramArguments").and_then(Value::as_array);
    let argv: Vec<&str> = argv
        .into_iter()
        .flatten()
        .filter_map(Value::as_string)
        .collect();
    let ours = argv.split(|word| *word == "--").next().unwrap_or_default();
    let record = ours.windows(2).find(|pair| pair[0] == "--record");
    let notify = (job.get("EnvironmentVariables"))
        .and_then(Value::as_dictionary)
        .and_then(|environment| environment.get("NOTIFY_SOCKET")?.as_string());
    let sockets = (job.get("Sockets"))
        .and_then(|sockets| sockets.as_dictionary()?.get("aegis")?.as_array())
        .into_iter()
        .flatten()
        .filter_map(|socket| socket.as_dictionary()?.get("SockPathName")?.as_string());
    let exit_timeout = job.get("ExitTimeOut").and_then(Value::as_unsigned_integer);
    Loaded {
        record: record.map(|pair| pair[1].into()),
        notify: notify.map(PathBuf::from),
        sockets: sockets.map(PathBuf::from).collect(),
        exit_timeout: exit_timeout.map_or(DEFAULT_EXIT_TIMEOUT, Duration::from_secs),
        keeps: match job.get("KeepAlive") {
            Some(Value::Boolean(true)) => Keeps::All,
            Some(Value::Dictionary(_)) => Keeps::Failures,
            _ => Keeps::None,
        },
    }
}

/// What aegis-shim knows of a job's runs; nothing where there is no record.
pub(super) fn read_record(path: Option<&Path>) -> RunRecord {
    let text = path.and_then(|path| fs::read(path).ok());
    text.and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

/// Changes the record of a job's runs, for aegis-shim to read.
pub(super) fn change_record(
    path: &Path,
    change: impl FnOnce(&mut RunRecord),
) -> Result<(), JobFileError> {
    let mut record = read_record(Some(path));
    change(&mut record);
    let text = serde_json::to_vec(&record)
        .map_err(|error| JobFileError::file("write", path)(error.into()))?;
    replace(path, &text)?;
    give_like(path, path.parent().unwrap_or(path))
}

/// Makes a folder that only its owner may enter, and those above it.
pub(super) fn private_folder(path: &Path) -> Result<(), JobFileError> {
    if path.is_dir() {
        return Ok(());
    }
    effects::make_folders(path).map_err(JobFileError::file("make the folder", path))?;
    effects::protect(path, 0o700).map_err(JobFileError::file("protect", path))
}

/// Gives a file to the owner of another: in system mode the jobs have another user than
/// aegisd.
pub(super) fn give_like(path: &Path, like: &Path) -> Result<(), JobFileError> {
    let wanted = fs::metadata(like).map_err(JobFileError::file("look at", like))?;
    let found = fs::symlink_metadata(path).map_err(JobFileError::file("look at", path))?;
    if wanted.uid() == found.uid() {
        return Ok(());
    }
    effects::give(path, wanted.uid(), wanted.gid()).map_err(JobFileError::file("give away", path))
}

pub(super) fn remove(path: &Path) -> Result<(), JobFileError> {
    match effects::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(JobFileError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn replace(path: &Path, content: &[u8]) -> Result<(), JobFileError> {
    let fresh = path.with_extension("fresh");
    remove(&fresh)?;
    effects::write_new(&fresh, content).map_err(JobFileError::file("write", &fresh))?;
    effects::rename(&fresh, path).map_err(JobFileError::file("rename to", path))
}
