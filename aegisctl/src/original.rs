//! The data of the original AegisVM, the Go program of the same name: what is in its
//! folder, and what that becomes here.
//!
//! ```text
//! DIR/aegisd.sock, DIR/data/aegisd.pid   running: does its daemon run?
//! DIR/data/aegis.db  ──database──► rows ──row──► OldInstance ┐
//! DIR/master.key     ──key──────────────────────► values     ┴─plan──► Plan
//! ```
//!
//! The folder is only read. `row` and `plan` are pure.

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use choice::Choice;
pub(crate) use database::{Contents, Messages};
pub(crate) use key::Values;
pub(crate) use plan::{Plan, Secrets, Wish};
pub(crate) use problem::Problem;
pub(crate) use row::OldInstance;

mod choice;
mod database;
mod key;
mod plan;
mod problem;
mod row;
mod running;

/// Where the original keeps its things.
#[derive(Clone, Debug)]
pub(crate) struct Original {
    folder: PathBuf,
}

/// Why nothing can be had of a folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OriginalError {
    #[error("its aegisd runs: {0}")]
    Runs(running::Sign),
    #[error("there is no database {0}")]
    NoDatabase(PathBuf),
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make a private copy of the database")]
    Copy(#[source] io::Error),
    #[error("the database {path} cannot be read")]
    Database {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("the database {path} is damaged: {found}")]
    Damaged { path: PathBuf, found: String },
    #[error("{path} is no database of the original AegisVM: it has no {lacks}")]
    Schema { path: PathBuf, lacks: String },
    #[error("there are secrets, and their key {0} is missing")]
    NoKey(PathBuf),
    #[error("the key {path} has {length} bytes and not {expected}", expected = key::LENGTH)]
    KeyLength { path: PathBuf, length: usize },
}

impl OriginalError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Runs(sign) => return Some(sign.hint()),
            Self::NoDatabase(_) => "--from is the folder that has data/aegis.db, usually ~/.aegis",
            Self::NoKey(_) | Self::KeyLength { .. } => {
                "put the key back, or leave the values there: --without-secrets"
            }
            Self::Damaged { .. } | Self::Database { .. } => {
                "sqlite3(1) can save what is left: .recover; nothing was changed"
            }
            Self::Schema { .. } => {
                "start the newest version of the original once, which brings its database \
                 up to date, and stop it again"
            }
            Self::Read { .. } | Self::Copy(_) => return None,
        };
        Some(hint.to_owned())
    }

    /// One word for programs.
    pub(crate) fn symbol(&self) -> &'static str {
        match self {
            Self::Runs(_) => "OriginalRuns",
            Self::NoDatabase(_) => "NotFound",
            Self::Read { .. } | Self::Copy(_) => "InputOutput",
            Self::Database { .. } | Self::Damaged { .. } | Self::Schema { .. } => {
                "OriginalUnreadable"
            }
            Self::NoKey(_) | Self::KeyLength { .. } => "SecretKeyLost",
        }
    }
}

impl Original {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data().join("aegis.db")
    }

    /// The root file systems of instances.
    pub(crate) fn disks(&self) -> PathBuf {
        self.data().join("overlays")
    }

    /// The config of an instance's daemons.
    pub(crate) fn daemon_config(&self, name: &str) -> PathBuf {
        self.folder.join("kits").join(name)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn key(&self) -> PathBuf {
        self.folder.join("master.key")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("aegisd.sock")
    }

    fn pid_file(&self) -> PathBuf {
        self.data().join("aegisd.pid")
    }

    /// Makes sure that its daemon, which would go on changing what is read, does not run.
    ///
    /// # Errors
    /// It runs, or that cannot be told.
    pub(crate) fn is_at_rest(&self) -> Result<(), OriginalError> {
        running::check(&self.socket(), &self.pid_file())
    }

    /// What its database holds.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(crate) fn read(&self) -> Result<Contents, OriginalError> {
        database::read(&self.database())
    }

    /// Opens the values of secrets; those that do not open are named.
    ///
    /// # Errors
    /// The key cannot be read.
    pub(crate) fn open(
        &self,
        contents: &Contents,
    ) -> Result<(Values, Vec<Problem>), OriginalError> {
        match contents.secrets.is_empty() {
            true => Ok((Values::new(), Vec::new())),
            false => key::read(&self.key()).map(|key| key::open(&key, &contents.secrets)),
        }
    }
}
