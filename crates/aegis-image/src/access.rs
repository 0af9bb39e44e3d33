//! How the program that pulls gets at an image: all that the user's environment says
//! about it, so that this program needs neither the user's files nor variables.

use serde::{Deserialize, Serialize};

use aegis_core::secret::SecretText;

use crate::auth::{Credentials, Keyring};
use crate::environment::{self, Environment};
use crate::error::SourceError;
use crate::name::ImageName;
use crate::registries::{self, Place, Registries, Serves};

/// Access to one image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Access {
    /// Where to ask, in order: mirrors, and last the registry itself. None for
    /// folders and files.
    pub endpoints: Vec<Endpoint>,
    /// The way out.
    #[serde(default)]
    pub proxies: Proxies,
    /// Whose certificates are trusted everywhere.
    #[serde(default)]
    pub roots: Roots,
}

/// One registry, as it is used for one image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// The registry, with its port if it has one.
    pub host: String,
    /// The repository there.
    pub repository: String,
    /// What it is asked.
    #[serde(default)]
    pub serves: Serves,
    /// Its certificate is not checked, and it may speak plain HTTP.
    #[serde(default)]
    pub insecure: bool,
    /// Who asks.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// Certificates in PEM of authorities that this registry may have its own from.
    #[serde(default)]
    pub certificates: Vec<String>,
}

/// Proxies. Their URLs may hold passwords.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxies {
    /// For `http:`.
    pub http: Option<SecretText>,
    /// For `https:`.
    pub https: Option<SecretText>,
    /// For what has no own.
    pub all: Option<SecretText>,
    /// Hosts that are asked without a proxy.
    pub none: Option<String>,
}

/// Authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    /// Certificates in PEM.
    pub certificates: Vec<String>,
    /// Whether the system's do not count beside them.
    pub only: bool,
}

impl Access {
    /// What an environment says about an image. `insecure` names registries that the
    /// user takes for insecure, beside those of `registries.conf`.
    ///
    /// Reads files and may run credential helpers, which may ask the user something.
    ///
    /// # Errors
    /// The registry is blocked; a file is broken or a helper fails.
    pub fn of_environment(
        name: &ImageName,
        environment: &Environment,
        insecure: &[String],
    ) -> Result<Self, SourceError> {
        let ImageName::Registry(name) = name else {
            return Ok(Self::default());
        };
        let places = Registries::of_environment(environment)?.places(name)?;
        let keyring = Keyring::new(environment.clone());
        let endpoints = places.into_iter().map(|place| {
            let credentials = keyring.find(&place.host, &place.repository)?;
            endpoint(place, credentials, environment, insecure)
        });
        Ok(Self {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            proxies: Proxies::of_environment(environment),
            roots: Roots::of_environment(environment)?,
        })
    }

    /// Access to a registry itself, with these credentials.
    pub(crate) fn of_registry(
        host: &str,
        credentials: Credentials,
        environment: &Environment,
        insecure: &[String],
    ) -> Result<Self, SourceError> {
        let place = Place {
            host: host.to_owned(),
            repository: String::new(),
            insecure: Registries::of_environment(environment)?.is_insecure(host),
            serves: Serves::All,
        };
        Ok(Self {
            endpoints: vec![endpoint(place, Some(credentials), environment, insecure)?],
            proxies: Proxies::of_environment(environment),
            roots: Roots::of_environment(environment)?,
        })
    }
}

fn endpoint(
    place: Place,
    credentials: Option<Credentials>,
    environment: &Environment,
    insecure: &[String],
) -> Result<Endpoint, SourceError> {
    Ok(Endpoint {
        insecure: place.insecure || insecure.contains(&place.host),
        certificates: certificates_of(&place.host, environment)?,
        host: place.host,
        repository: place.repository,
        serves: place.serves,
        credentials,
    })
}

impl Endpoint {
    /// The name under which it answers.
    pub(crate) fn address(&self) -> &str {
        registries::address(&self.host)
    }
}

/// The authorities of one registry: containers-certs.d(5).
fn certificates_of(host: &str, environment: &Environment) -> Result<Vec<String>, SourceError> {
    let user = environment.config().map(|config| config.join("containers"));
    let system = ["containers", "docker"].map(|name| environment.etc().join(name));
    let mut all = Vec::new();
    for folder in user.into_iter().chain(system) {
        for file in environment::files(&folder.join("certs.d").join(host), "crt")? {
            all.extend(pem(environment::read(&file)?));
        }
    }
    Ok(all)
}

fn pem(bytes: Option<Vec<u8>>) -> Option<String> {
    let text = String::from_utf8_lossy(&bytes?).into_owned();
    text.contains("-----BEGIN").then_some(text)
}

impl Proxies {
    fn of_environment(environment: &Environment) -> Self {
        let secret = |names: &[&str]| {
            let value = environment.get(names);
            value.map(|value| SecretText::from(value.to_owned()))
        };
        Self {
            http: secret(&["HTTP_PROXY", "http_proxy"]),
            https: secret(&["HTTPS_PROXY", "https_proxy"]),
            all: secret(&["ALL_PROXY", "all_proxy"]),
            none: environment
                .get(&["NO_PROXY", "no_proxy"])
                .map(str::to_owned),
        }
    }
}

impl Roots {
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` replace the system's authorities:
    /// OpenSSL's `SSL_CTX_set_default_verify_paths(3)`.
    fn of_environment(environment: &Environment) -> Result<Self, SourceError> {
        let file = environment.folder("SSL_CERT_FILE");
        let folders = environment.get(&["SSL_CERT_DIR"]);
        let mut certificates = Vec::new();
        if let Some(file) = &file {
            certificates.extend(pem(environment::read(file)?));
        }
        for folder in folders.into_iter().flat_map(|text| text.split(':')) {
            for extension in ["pem", "crt"] {
                for file in environment::files(folder.as_ref(), extension)? {
                    certificates.extend(pem(environment::read(&file)?));
                }
            }
        }
        Ok(Self {
            only: file.is_some() || folders.is_some(),
            certificates,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_becomes_one_value() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "docker/certs.d/h.x:5000/ca.crt",
            "-----BEGIN CERTIFICATE-----",
        );
        put(
            "docker/certs.d/h.x:5000/client.key",
            "-----BEGIN PRIVATE KEY-----",
        );
        put("docker/certs.d/h.x/ca.crt", "-----BEGIN CERTIFICATE-----");
        put(
            "auth.json",
            r#"{"auths": {"h.x:5000/a": {"auth": "dTpzM2NyM3Q="}}}"#,
        );
        let auth = folder.path().join("auth.json").display().to_string();
        let variables = [
            ("HTTPS_PROXY", "http://u:hunter2@proxy:1"),
            ("no_proxy", "h.y"),
            ("SSL_CERT_FILE", "/nothing"),
            ("REGISTRY_AUTH_FILE", &auth),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = Environment::new(variables, folder.path());
        let name: ImageName = "h.x:5000/a/b".parse().unwrap();
        let access = Access::of_environment(&name, &environment, &["h.x:5000".to_owned()]).unwrap();

        let shown = format!("{access:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("s3cr3t"),
            "{shown}"
        );
        let sent = serde_json::to_vec(&access).unwrap();
        let access: Access = serde_json::from_slice(&sent).unwrap();
        let [endpoint] = &access.endpoints[..] else {
            panic!("one endpoint")
        };
        assert!(endpoint.insecure && endpoint.credentials.is_some());
        assert_eq!(endpoint.certificates.len(), 1);
        assert!(access.roots.only);
        assert_eq!(access.proxies.none.as_deref(), Some("h.y"));

        let local: ImageName = "oci:x".parse().unwrap();
        let access = Access::of_environment(&local, &environment, &[]).unwrap();
        assert!(access.endpoints.is_empty());
    }
}
