//! Logging in to registries, and out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use aegis_core::secret::SecretText;

use super::{Credentials, Keyring};
use crate::access::Access;
use crate::environment::{self, Environment};
use crate::error::{ConfigError, SourceError};
use crate::{name, source};

/// What a logout did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedOut {
    /// The credentials are gone.
    Removed,
    /// There were none.
    NotLoggedIn,
}

/// Checks a user's password with a registry and keeps it; returns where.
///
/// # Errors
/// The registry cannot be asked or refuses; the file cannot be written.
pub async fn login(
    host: &str,
    username: &str,
    password: SecretText,
    environment: &Environment,
    insecure: &[String],
) -> Result<PathBuf, SourceError> {
    let host = &name::registry(host)?;
    let pair = Zeroizing::new(format!("{username}:{}", password.reveal()));
    let auth = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
    let credentials = Credentials::Password {
        username: username.to_owned(),
        password,
    };
    let access = Access::of_registry(host, credentials, environment, insecure)?;
    source::check(access).await.map_err(|error| match error {
        SourceError::Unauthorized { host, .. } => SourceError::Login { host },
        error => error,
    })?;
    let path = file(environment)?;
    edit(&path, |auths| {
        auths.insert(host.to_owned(), json!({ "auth": *auth }));
        true
    })?;
    Ok(path)
}

/// Forgets the credentials for a registry, in the file that logins are written to.
///
/// # Errors
/// The file cannot be read or written.
pub fn logout(host: &str, environment: &Environment) -> Result<LoggedOut, SourceError> {
    let host = &name::registry(host)?;
    let removed = edit(&file(environment)?, |auths| auths.remove(host).is_some())?;
    Ok(match removed {
        true => LoggedOut::Removed,
        false => LoggedOut::NotLoggedIn,
    })
}

fn file(environment: &Environment) -> Result<PathBuf, SourceError> {
    let written = Keyring::new(environment.clone()).written();
    written.ok_or_else(|| SourceError::Config {
        path: PathBuf::from("auth.json"),
        source: ConfigError::NoFolder,
    })
}

/// Changes the entries of a file and writes it if `change` says so. What else is in
/// the file stays.
fn edit(
    path: &Path,
    change: impl FnOnce(&mut Map<String, Value>) -> bool,
) -> Result<bool, SourceError> {
    let broken = |source| SourceError::Config {
        path: path.to_owned(),
        source,
    };
    let unread = |error: serde_json::Error| broken(ConfigError::json(&error));
    // A file that is a link to another stays one.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let bytes = Zeroizing::new(environment::read(path)?.unwrap_or_default());
    let mut whole: Map<String, Value> = match bytes.iter().all(u8::is_ascii_whitespace) {
        true => Map::new(),
        false => serde_json::from_slice(&bytes).map_err(unread)?,
    };
    let auths = whole.entry("auths").or_insert_with(|| json!({}));
    let auths = auths.as_object_mut();
    if !change(auths.ok_or_else(|| broken(ConfigError::Auths))?) {
        return Ok(false);
    }
    let text = Zeroizing::new(serde_json::to_vec_pretty(&whole).map_err(unread)?);
    let failed = |source| SourceError::File {
        operation: "write",
        path: path.clone(),
        source,
    };
    replace(path, &text).map_err(failed)?;
    Ok(true)
}

/// Replaces a file at once: whoever reads it sees the old or the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let scratch = folder.join(name);
    let written = write_new(&scratch, text).and_then(|()| fs::rename(&scratch, path));
    if written.is_err() {
        // The error that led here says more than one of this.
        fs::remove_file(&scratch).ok();
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    // One of a program that died and had the same id.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_entry_changes_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/auth.json");
        let add = |auths: &mut Map<String, Value>| {
            auths.insert("h.x".to_owned(), json!({"auth": "YTpi"}));
            true
        };
        assert!(edit(&path, add).unwrap());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(
            &path,
            r#"{"credHelpers": {"h.z": "y"}, "auths": {"h.y": {"auth": "Yzpk"}}}"#,
        )
        .unwrap();
        assert!(edit(&path, add).unwrap());
        let read: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["credHelpers"]["h.z"], "y");
        assert_eq!(read["auths"].as_object().unwrap().len(), 2);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let variable = ("REGISTRY_AUTH_FILE".to_owned(), path.display().to_string());
        let environment = Environment::new([variable], "/nothing");
        assert_eq!(logout("h.x", &environment).unwrap(), LoggedOut::Removed);
        assert_eq!(logout("h.x", &environment).unwrap(), LoggedOut::NotLoggedIn);
        let read: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["auths"].as_object().unwrap().len(), 1);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
