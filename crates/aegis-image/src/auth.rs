//! Credentials for registries: containers-auth.json(5), and Docker's `config.json`,
//! which has the same format.
//!
//! ```text
//!  $REGISTRY_AUTH_FILE                          alone, if it is set; else in this order
//!  $XDG_RUNTIME_DIR/containers/auth.json        where logins are written
//!  $XDG_CONFIG_HOME/containers/auth.json
//!  $DOCKER_CONFIG/config.json, ~/.docker/config.json
//! ```

mod helper;
mod login;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use aegis_core::secret::SecretText;

pub use login::{LoggedOut, login, logout};

use crate::environment::{self, Environment};
use crate::error::{ConfigError, SourceError};
use crate::name::DEFAULT_REGISTRY;

/// Under what Docker keeps the credentials of docker.io.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// What proves to a registry who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credentials {
    /// A user and a password, or a token that takes its place.
    Password {
        username: String,
        password: SecretText,
    },
    /// What a registry gave out at login in place of a password.
    IdentityToken(SecretText),
}

/// The files that hold a user's credentials.
#[derive(Clone, Debug)]
pub struct Keyring {
    environment: Environment,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Option<Entry>>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<SecretText>,
    identitytoken: Option<SecretText>,
}

impl Keyring {
    /// That of an environment.
    pub fn new(environment: Environment) -> Self {
        Self { environment }
    }

    /// Where logins are written.
    pub(crate) fn written(&self) -> Option<PathBuf> {
        self.paths().into_iter().next()
    }

    fn paths(&self) -> Vec<PathBuf> {
        let environment = &self.environment;
        if let Some(only) = environment.folder("REGISTRY_AUTH_FILE") {
            return vec![only];
        }
        let containers = |folder: PathBuf| folder.join("containers/auth.json");
        let runtime = environment.folder("XDG_RUNTIME_DIR").map(containers);
        let config = environment.config().map(containers);
        let docker = environment.folder("DOCKER_CONFIG").or_else(|| {
            let home = environment.folder("HOME");
            home.map(|home| home.join(".docker"))
        });
        let docker = docker.map(|folder| folder.join("config.json"));
        [runtime, config, docker].into_iter().flatten().collect()
    }

    /// The credentials for a repository, from the first file that has some.
    ///
    /// # Errors
    /// A file is broken, or a credential helper fails.
    pub fn find(&self, host: &str, repository: &str) -> Result<Option<Credentials>, SourceError> {
        for path in self.paths() {
            let Some(bytes) = environment::read(&path)? else {
                continue;
            };
            let bytes = Zeroizing::new(bytes);
            let broken = |source| SourceError::Config {
                path: path.clone(),
                source,
            };
            let file = AuthFile::read(&bytes).map_err(broken)?;
            if let Some(found) = file.find(host, repository, &path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl AuthFile {
    fn read(bytes: &[u8]) -> Result<Self, ConfigError> {
        // An empty file is what `touch` leaves, and means nothing.
        match bytes.iter().all(u8::is_ascii_whitespace) {
            true => Ok(Self::default()),
            false => serde_json::from_slice(bytes).map_err(|error| ConfigError::json(&error)),
        }
    }

    fn find(
        &self,
        host: &str,
        repository: &str,
        path: &Path,
    ) -> Result<Option<Credentials>, SourceError> {
        let own = self
            .cred_helpers
            .iter()
            .find(|(key, _)| host_of(key) == host);
        if let Some((_, helper)) = own {
            return helper::get(helper, server(host), host, path);
        }
        for key in keys(host, repository) {
            let entry = self.auths.get(&key).and_then(Option::as_ref);
            if let Some(found) = read_entry(entry, &key, path)? {
                return Ok(Some(found));
            }
        }
        for (key, entry) in &self.auths {
            if host_of(key) == host
                && let Some(found) = read_entry(entry.as_ref(), key, path)?
            {
                return Ok(Some(found));
            }
        }
        match &self.creds_store {
            Some(helper) if !helper.is_empty() => helper::get(helper, server(host), host, path),
            _ => Ok(None),
        }
    }
}

fn read_entry(
    entry: Option<&Entry>,
    key: &str,
    path: &Path,
) -> Result<Option<Credentials>, SourceError> {
    let Some(entry) = entry else {
        return Ok(None);
    };
    let bad = || SourceError::Config {
        path: path.to_owned(),
        source: ConfigError::Entry(key.to_owned()),
    };
    entry.credentials().ok_or_else(bad)
}

impl Entry {
    /// `None` if it makes no sense; `Some(None)` if it is empty, as entries are whose
    /// secret a helper keeps.
    fn credentials(&self) -> Option<Option<Credentials>> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !is_empty(token)) {
            return Some(Some(Credentials::IdentityToken(token.clone())));
        }
        let Some(auth) = self.auth.as_ref().filter(|auth| !is_empty(auth)) else {
            return Some(None);
        };
        let pair = Zeroizing::new(BASE64_STANDARD.decode(auth.reveal()).ok()?);
        let (username, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
        // Docker once padded passwords with zeros.
        let password = password.trim_end_matches('\0');
        Some(Some(Credentials::Password {
            username: username.to_owned(),
            password: SecretText::from(password.to_owned()),
        }))
    }
}

fn is_empty(text: &SecretText) -> bool {
    text.reveal().is_empty()
}

/// The keys of a repository, the longest first.
fn keys(host: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{host}/{path}"));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    keys.push(host.to_owned());
    keys
}

/// The registry that a key without a repository means. Docker's keys may be URLs, and
/// docker.io has several names.
fn host_of(key: &str) -> &str {
    let scheme = ["https://", "http://"];
    let bare = scheme.iter().find_map(|scheme| key.strip_prefix(scheme));
    let host = match bare {
        Some(url) => url.split('/').next().unwrap_or(url),
        None => key,
    };
    match host {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        host => host,
    }
}

/// What a credential helper knows a registry as.
fn server(host: &str) -> &str {
    match host {
        DEFAULT_REGISTRY => DOCKER_KEY,
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, host: &str, repository: &str) -> Option<String> {
        let file = AuthFile::read(json.as_bytes()).unwrap();
        let found = file.find(host, repository, Path::new("auth.json")).unwrap();
        found.map(|found| match found {
            Credentials::Password { username, password } => {
                format!("{username}:{}", password.reveal())
            }
            Credentials::IdentityToken(token) => token.reveal().to_owned(),
        })
    }

    fn entry(text: &str) -> String {
        format!(r#"{{"auth": "{}"}}"#, BASE64_STANDARD.encode(text))
    }

    #[test]
    fn the_longest_key_wins() {
        let json = format!(
            r#"{{"auths": {{"h.x": {}, "h.x/a": {}, "h.x/a/b": {}, "h.x:5000": {}}}, "else": 1}}"#,
            entry("host:1"),
            entry("a:2"),
            entry("b:3:4"),
            entry("port:5\0\0"),
        );
        for (host, repository, expected) in [
            ("h.x", "a/b", Some("b:3:4")),
            ("h.x", "a/b/c", Some("b:3:4")),
            ("h.x", "a/bc", Some("a:2")),
            ("h.x", "z", Some("host:1")),
            ("h.x:5000", "a", Some("port:5")),
            ("h.y", "a", None),
        ] {
            assert_eq!(find(&json, host, repository).as_deref(), expected);
        }
    }

    #[test]
    fn dockers_own_keys_are_understood() {
        let json = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {}, "https://h.x/v2/": {}}}}}"#,
            entry("me:hub"),
            entry("me:x"),
        );
        assert_eq!(find(&json, "docker.io", "library/a").unwrap(), "me:hub");
        assert_eq!(find(&json, "h.x", "a").unwrap(), "me:x");
    }

    #[test]
    fn tokens_come_before_passwords_and_empty_entries_do_not_count() {
        let json =
            r#"{"auths": {"h.x": {"auth": "", "identitytoken": "t"}, "h.y": {}, "h.z": null}}"#;
        assert_eq!(find(json, "h.x", "a").unwrap(), "t");
        assert_eq!(find(json, "h.y", "a"), None);
        assert_eq!(find(json, "h.z", "a"), None);
        assert_eq!(find(" \n", "h.z", "a"), None);
    }

    #[test]
    fn errors_name_the_entry_and_hide_what_it_holds() {
        let json = r#"{"auths": {"h.x": {"auth": "aHVudGVyMg=="}}}"#;
        let file = AuthFile::read(json.as_bytes()).unwrap();
        let error = file.find("h.x", "a", Path::new("auth.json")).unwrap_err();
        let fault = aegis_core::fault::Fault::from(error);
        assert!(fault.message.contains("'h.x'"), "{fault}");
        assert!(!fault.message.contains("hunter2") && !fault.message.contains("aHVudGVyMg"));
    }
}
