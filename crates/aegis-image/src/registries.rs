//! `registries.conf` in version 2: containers-registries.conf(5).
//!
//! Read are `$CONTAINERS_REGISTRIES_CONF`, or else the user's file or else the
//! system's; then the files of `registries.conf.d`, the system's first. Later files
//! replace what earlier ones say about the same prefix, alias or key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::environment::{self, Environment};
use crate::error::{ConfigError, SourceError};
use crate::name::{self, DEFAULT_REGISTRY, ImageName, RegistryName};

/// All that the files say.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    search: Option<Vec<String>>,
    aliases: BTreeMap<String, String>,
    registries: BTreeMap<String, (PathBuf, Registry)>,
}

/// Which requests a mirror is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Serves {
    /// Everything.
    #[default]
    All,
    /// Only what is named by its digest.
    DigestOnly,
    /// Only what is named by a tag.
    TagOnly,
}

/// Where an image is really asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The registry, with its port if it has one.
    pub host: String,
    /// The repository there.
    pub repository: String,
    /// Its certificate is not checked, and it may speak plain HTTP.
    pub insecure: bool,
    /// What it is asked.
    pub serves: Serves,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FileText {
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    registry: Vec<Registry>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Version 1 of the format.
    registries: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registry {
    prefix: Option<String>,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: MirrorUse,
}

/// As the file spells [`Serves`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum MirrorUse {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

impl From<MirrorUse> for Serves {
    fn from(mirror: MirrorUse) -> Self {
        match mirror {
            MirrorUse::All => Self::All,
            MirrorUse::DigestOnly => Self::DigestOnly,
            MirrorUse::TagOnly => Self::TagOnly,
        }
    }
}

impl Registries {
    /// Reads the files of an environment; without any, the defaults.
    ///
    /// # Errors
    /// A file cannot be read or is not in the format.
    pub fn of_environment(environment: &Environment) -> Result<Self, SourceError> {
        let system = environment.etc().join("containers");
        let user = environment.config().map(|config| config.join("containers"));
        let mut all = Self::default();
        match environment.folder("CONTAINERS_REGISTRIES_CONF") {
            Some(named) => {
                all.add(&named)?;
            }
            None => {
                let own = user.as_ref().map(|user| user.join("registries.conf"));
                let found = own.map_or(Ok(false), |own| all.add(&own))?;
                if !found {
                    all.add(&system.join("registries.conf"))?;
                }
            }
        }
        for folder in [Some(system), user].into_iter().flatten() {
            for file in environment::files(&folder.join("registries.conf.d"), "conf")? {
                all.add(&file)?;
            }
        }
        Ok(all)
    }

    /// Adds what a file says; whether there is one.
    fn add(&mut self, path: &Path) -> Result<bool, SourceError> {
        let Some(bytes) = environment::read(path)? else {
            return Ok(false);
        };
        let added = self.add_text(path, &bytes);
        added.map_err(|source| SourceError::Config {
            path: path.to_owned(),
            source,
        })?;
        Ok(true)
    }

    fn add_text(&mut self, path: &Path, bytes: &[u8]) -> Result<(), ConfigError> {
        let text: FileText =
            toml::from_slice(bytes).map_err(|error| ConfigError::toml(&error, bytes))?;
        if text.registries.is_some() {
            return Err(ConfigError::Version1);
        }
        for registry in text.registry {
            let prefix = match &registry.prefix {
                Some(prefix) if !prefix.is_empty() => prefix,
                _ => &registry.location,
            };
            if prefix.is_empty() {
                return Err(ConfigError::Location(String::new()));
            }
            let mirrors = registry.mirror.iter().map(|mirror| &mirror.location);
            let locations = mirrors.chain(Some(&registry.location).filter(|own| !own.is_empty()));
            for location in locations {
                let host = location.split('/').next().unwrap_or_default();
                if !name::is_host(host) {
                    return Err(ConfigError::Location(location.clone()));
                }
            }
            self.registries
                .insert(prefix.clone(), (path.to_owned(), registry));
        }
        if let Some(search) = text.unqualified_search_registries {
            if let Some(bad) = search.iter().find(|host| !name::is_host(host)) {
                return Err(ConfigError::Location(bad.clone()));
            }
            self.search = Some(search);
        }
        self.aliases.extend(text.aliases);
        Ok(())
    }

    /// The name that a user's text means here: short names are looked up.
    ///
    /// # Errors
    /// The text names no image, or one of several registries.
    pub fn name(&self, text: &str) -> Result<ImageName, SourceError> {
        let Some((short, rest)) = name::split_short(text) else {
            return Ok(text.parse()?);
        };
        if let Some(alias) = self.aliases.get(short).filter(|alias| !alias.is_empty()) {
            return Ok(format!("{alias}{rest}").parse()?);
        }
        match self.search.as_deref() {
            None | Some([]) => Ok(text.parse()?),
            Some([only]) => Ok(format!("{only}/{short}{rest}").parse()?),
            Some(several) => Err(SourceError::Ambiguous {
                name: text.to_owned(),
                registries: several.to_vec(),
            }),
        }
    }

    /// Whether a registry as such, not one of its images, is said to be insecure.
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        let mut all = self.registries.values();
        all.any(|(_, registry)| registry.insecure && registry.location == host)
    }

    /// Where to ask for an image, in order: the mirrors, then its own registry.
    ///
    /// # Errors
    /// The registry is blocked, or a location makes no sense for this image.
    pub fn places(&self, name: &RegistryName) -> Result<Vec<Place>, SourceError> {
        let whole = format!("{}/{}", name.host(), name.repository());
        let matching = self.registries.iter().filter_map(|(prefix, registry)| {
            let rest = rest_after(prefix, name.host(), &whole)?;
            Some((prefix.len(), rest, registry))
        });
        let Some((_, rest, (file, registry))) = matching.max_by_key(|(length, ..)| *length) else {
            return Ok(vec![Place {
                host: name.host().to_owned(),
                repository: name.repository().to_owned(),
                insecure: false,
                serves: Serves::All,
            }]);
        };
        if registry.blocked {
            return Err(SourceError::Blocked {
                name: name.to_string(),
                file: file.clone(),
            });
        }
        let place = |location: &str, insecure, serves| {
            let moved = match location {
                "" => whole.clone(),
                location => format!("{location}{rest}"),
            };
            let split = moved.split_once('/');
            let good =
                split.filter(|(host, path)| name::is_host(host) && name::is_repository(path));
            let (host, repository) = good.ok_or_else(|| SourceError::Config {
                path: file.clone(),
                source: ConfigError::Location(moved.clone()),
            })?;
            Ok(Place {
                host: host.to_ascii_lowercase(),
                repository: repository.to_owned(),
                insecure,
                serves,
            })
        };
        let mirrors = registry.mirror.iter().map(|mirror| {
            let serves = match registry.mirror_by_digest_only {
                true => Serves::DigestOnly,
                false => mirror.pull_from_mirror.into(),
            };
            place(&mirror.location, mirror.insecure, serves)
        });
        let own = place(&registry.location, registry.insecure, Serves::All);
        mirrors.chain([own]).collect()
    }
}

/// What of a name comes after a prefix, if it has that prefix. `*.HOST` stands for all
/// hosts below HOST.
fn rest_after<'a>(prefix: &str, host: &str, whole: &'a str) -> Option<&'a str> {
    if let Some(domain) = prefix.strip_prefix('*') {
        return host.ends_with(domain).then(|| &whole[host.len()..]);
    }
    let rest = whole.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// The name under which a registry answers.
pub(crate) fn address(host: &str) -> &str {
    match host {
        DEFAULT_REGISTRY => "registry-1.docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
unqualified-search-registries = ["quay.io"]
short-name-mode = "enforcing"

[aliases]
"alpine" = "docker.io/library/alpine"
"org/app" = "ghcr.io/org/app"

[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.lan:5000/hub"
insecure = true
[[registry.mirror]]
location = "other.lan"
pull-from-mirror = "digest-only"

[[registry]]
prefix = "docker.io/secret"
location = "vault.lan/x"

[[registry]]
prefix = "*.bad.example"
blocked = true

[[registry]]
location = "dev.lan:5000"
insecure = true
"#;

    fn conf(text: &str) -> Result<Registries, ConfigError> {
        let mut all = Registries::default();
        all.add_text(Path::new("registries.conf"), text.as_bytes())?;
        Ok(all)
    }

    fn places(text: &str) -> Vec<String> {
        let ImageName::Registry(name) = text.parse().unwrap() else {
            panic!("a registry's name")
        };
        let places = conf(CONF).unwrap().places(&name).unwrap();
        let spell = |place: Place| {
            let mark = if place.insecure { "!" } else { "" };
            format!(
                "{}/{}{mark} {:?}",
                place.host, place.repository, place.serves
            )
        };
        places.into_iter().map(spell).collect()
    }

    #[test]
    fn the_longest_prefix_says_where_to_ask() {
        assert_eq!(
            places("alpine"),
            [
                "mirror.lan:5000/hub/library/alpine! All",
                "other.lan/library/alpine DigestOnly",
                "docker.io/library/alpine All"
            ]
        );
        assert_eq!(places("secret/a"), ["vault.lan/x/a All"]);
        assert_eq!(places("secrets/a").len(), 3);
        assert_eq!(places("dev.lan:5000/a"), ["dev.lan:5000/a! All"]);
        assert_eq!(places("dev.lan/a"), ["dev.lan/a All"]);
        let all = conf(CONF).unwrap();
        assert!(all.is_insecure("dev.lan:5000") && !all.is_insecure("docker.io"));
    }

    #[test]
    fn a_blocked_registry_is_not_asked() {
        let ImageName::Registry(name) = "x.bad.example/a".parse().unwrap() else {
            panic!("a registry's name")
        };
        let blocked = conf(CONF).unwrap().places(&name);
        assert!(matches!(blocked, Err(SourceError::Blocked { .. })));
    }

    #[test]
    fn short_names_are_looked_up() {
        let all = conf(CONF).unwrap();
        for (typed, meant) in [
            ("alpine:3", "docker.io/library/alpine:3"),
            ("org/app", "ghcr.io/org/app:latest"),
            ("org/other:1", "quay.io/org/other:1"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("oci:alpine", "oci:alpine"),
        ] {
            assert_eq!(all.name(typed).unwrap().to_string(), meant);
        }
        assert_eq!(
            Registries::default().name("a").unwrap().to_string(),
            "docker.io/library/a:latest"
        );
        let several = conf(r#"unqualified-search-registries = ["a.x", "b.x"]"#).unwrap();
        let error = several.name("app:1").unwrap_err();
        assert!(error.to_string().contains("a.x, b.x"), "{error}");
    }

    #[test]
    fn files_that_mean_something_else_are_refused() {
        for text in [
            "[registries.search]\nregistries = []",
            "[[registry]]\nlocation = \"https://a.x\"",
            "[[registry]]\ninsecure = true",
            "unqualified-search-registries = [\"a/b\"]",
            "[[registry]]\nlocation = 1",
        ] {
            assert!(conf(text).is_err(), "{text}");
        }
    }

    #[test]
    fn later_files_win() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "etc/containers/registries.conf",
            "unqualified-search-registries = [\"a.x\"]",
        );
        put(
            "etc/containers/registries.conf.d/1.conf",
            "[aliases]\napp = \"b.x/app\"\nold = \"b.x/o\"",
        );
        put(
            "home/.config/containers/registries.conf.d/0.conf",
            "[aliases]\napp = \"c.x/app\"",
        );
        let home = folder.path().join("home").display().to_string();
        let environment = Environment::new([("HOME".to_owned(), home)], folder.path().join("etc"));
        let all = Registries::of_environment(&environment).unwrap();
        for (typed, meant) in [("app", "c.x/app"), ("old", "b.x/o"), ("z", "a.x/z")] {
            let meant = format!("{meant}:latest");
            assert_eq!(all.name(typed).unwrap().to_string(), meant);
        }
    }
}
