//! What a user's environment says: variables, and files below a home and `/etc`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{ConfigError, SourceError};

/// Longest file of settings, credentials or certificates. The certificates of all
/// public authorities together are a quarter of a megabyte.
const MAX_FILE: u64 = 1024 * 1024;

/// The environment of a user.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    etc: PathBuf,
}

impl Environment {
    /// That of this process. Variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os();
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::new(variables.filter_map(text), "/etc")
    }

    /// One of these variables, with the system's files below `etc`.
    pub fn new(
        variables: impl IntoIterator<Item = (String, String)>,
        etc: impl Into<PathBuf>,
    ) -> Self {
        Self {
            variables: variables.into_iter().collect(),
            etc: etc.into(),
        }
    }

    /// The first of these variables that is set to something.
    pub(crate) fn get(&self, names: &[&str]) -> Option<&str> {
        let mut values = names.iter().filter_map(|name| self.variables.get(*name));
        values.find(|value| !value.is_empty()).map(String::as_str)
    }

    /// A folder that a variable names.
    pub(crate) fn folder(&self, variable: &str) -> Option<PathBuf> {
        self.get(&[variable]).map(PathBuf::from)
    }

    /// The user's settings: XDG Base Directory Specification.
    pub(crate) fn config(&self) -> Option<PathBuf> {
        let home = || self.folder("HOME").map(|home| home.join(".config"));
        self.folder("XDG_CONFIG_HOME").or_else(home)
    }

    /// The system's settings.
    pub(crate) fn etc(&self) -> &Path {
        &self.etc
    }
}

/// Variables may hold passwords, as those of proxies do.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.variables.keys().collect();
        f.debug_struct("Environment")
            .field("variables", &names)
            .field("etc", &self.etc)
            .finish()
    }
}

/// The content of a file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, SourceError> {
    let failed = |source| SourceError::File {
        operation: "read",
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(error) if is_absent(&error) => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(SourceError::Config {
            path: path.to_owned(),
            source: ConfigError::TooLong(MAX_FILE),
        }),
        false => Ok(Some(bytes)),
    }
}

/// The files of a folder that end in `.EXTENSION`, in the order of their names. A
/// folder that is not there has none.
pub(crate) fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |source| SourceError::File {
        operation: "read",
        path: folder.to_owned(),
        source,
    };
    let entries = match folder.read_dir() {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>().map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|own| own == extension));
    paths.sort();
    Ok(paths)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
