//! Names of images, as users type them.
//!
//! A name is a place in a registry, or a folder or file on this host:
//!
//! ```text
//!   python:3.12-alpine            docker.io/library/python:3.12-alpine
//!   ghcr.io/org/app@sha256:...    oci:DIR[:TAG]
//!   localhost:5000/app            oci-archive:FILE[:TAG]
//!   docker://NAME                 docker-archive:FILE[:NAME:TAG]
//! ```
//!
//! Registry names follow the grammar and the defaults of distribution/reference
//! (<https://github.com/distribution/reference>, `reference.go`, `normalize.go`),
//! the others containers-transports(5).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, is_lower_hex};

/// The registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// What docker.io's own images stand below.
const OFFICIAL: &str = "library";
/// What a name begins with that is not a registry's.
const TRANSPORTS: [&str; 3] = ["oci", "oci-archive", "docker-archive"];
/// The tag of names that have neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// distribution/reference: `RepositoryNameTotalLengthMax`.
const MAX_REPOSITORY: usize = 255;
/// distribution/reference: a tag is one character and up to 127 more.
const MAX_TAG: usize = 128;

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ImageName {
    /// In a registry.
    Registry(RegistryName),
    /// In an OCI layout, a folder.
    Layout(LocalName),
    /// In an OCI layout packed as a tar file.
    OciArchive(LocalName),
    /// In a file that `docker save` wrote.
    DockerArchive(LocalName),
}

/// The name of an image in a registry, with nothing left to defaults.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryName {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// The name of an image in a folder or file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalName {
    /// The folder or file, as it was typed.
    pub path: PathBuf,
    /// Which of its images; the only one if none is named.
    pub tag: Option<String>,
}

/// Why a text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the name of the image is empty")]
    Empty,
    #[error("'{text}' names no image: '{part}' has upper case, which repositories cannot have")]
    UpperCase { text: String, part: String },
    #[error(
        "'{text}' names no image: '{part}' is not part of a repository's name: a-z and 0-9, between them one '.', one or two '_', or '-'"
    )]
    Repository { text: String, part: String },
    #[error("'{text}' names no image: its repository is longer than {MAX_REPOSITORY} characters")]
    RepositoryLength { text: String },
    #[error(
        "'{text}' names no image: '{host}' is not a registry: a host name or address, and ':PORT' if it is not 443"
    )]
    Host { text: String, host: String },
    #[error("'{text}' is not a registry: a host name or address, and ':PORT' if it is not 443")]
    Registry { text: String },
    #[error(
        "'{text}' names no image: '{tag}' is not a tag: letters, digits, '_', '.' and '-', not beginning with '.' or '-', at most {MAX_TAG} of them"
    )]
    Tag { text: String, tag: String },
    #[error(
        "'{text}' names no image: '{digest}' is not a digest: 'sha256:' and 64, or 'sha512:' and 128, of 0-9 and a-f"
    )]
    Digest { text: String, digest: String },
    #[error("'{text}' is a digest and names no repository; write NAME@sha256:{text}")]
    BareDigest { text: String },
    #[error("'{text}' names no image: there is no path after '{transport}:'")]
    Path {
        text: String,
        transport: &'static str,
    },
}

impl ImageName {
    /// The name for people: without what the defaults add.
    pub fn short(&self) -> String {
        match self {
            Self::Registry(name) => name.short(),
            Self::Layout(_) | Self::OciArchive(_) | Self::DockerArchive(_) => self.to_string(),
        }
    }

    /// The folder or file, of a name that is in no registry.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Registry(_) => None,
            Self::Layout(name) | Self::OciArchive(name) | Self::DockerArchive(name) => {
                Some(&name.path)
            }
        }
    }

    /// The name with its path made absolute, for a program in another folder.
    #[must_use]
    pub fn absolute(self, folder: &Path) -> Self {
        match self.path().map(|path| folder.join(path)) {
            Some(path) => self.at(&path),
            None => self,
        }
    }

    /// The name of the same image in a folder or file at another path.
    #[must_use]
    pub fn at(self, path: &Path) -> Self {
        let at = |name: LocalName| LocalName {
            path: path.to_owned(),
            tag: name.tag,
        };
        match self {
            Self::Registry(name) => Self::Registry(name),
            Self::Layout(name) => Self::Layout(at(name)),
            Self::OciArchive(name) => Self::OciArchive(at(name)),
            Self::DockerArchive(name) => Self::DockerArchive(at(name)),
        }
    }
}

impl RegistryName {
    /// The registry, with its port if it has one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path of the repository in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. A name has a tag, a digest, or both; then the digest decides.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What to ask a registry for: the digest if there is one, else the tag.
    pub fn reference(&self) -> &str {
        let tag = || self.tag.as_deref().unwrap_or(DEFAULT_TAG);
        self.digest.as_deref().unwrap_or_else(tag)
    }

    /// Without what the defaults add, as far as that still means the same: 'oci:latest'
    /// is a folder, and 'a.b/c' is in another registry.
    fn short(&self) -> String {
        let whole = self.to_string();
        let without = |prefix: String| whole.strip_prefix(&prefix);
        let shorter = [
            without(format!("{DEFAULT_REGISTRY}/{OFFICIAL}/")),
            without(format!("{DEFAULT_REGISTRY}/")),
        ];
        let same = |text: &&str| match text.parse() {
            Ok(ImageName::Registry(name)) => name == *self,
            _ => false,
        };
        let found = shorter.into_iter().flatten().find(same);
        found.map(str::to_owned).unwrap_or(whole)
    }

    fn with_reference(&self, mut text: String) -> String {
        for (mark, part) in [(':', &self.tag), ('@', &self.digest)] {
            if let Some(part) = part {
                text.push(mark);
                text.push_str(part);
            }
        }
        text
    }

    fn parse(text: &str) -> Result<Self, NameError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(check_digest(text, digest)?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let path = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (rest, tag) = match rest[path..].split_once(':') {
            Some((name, tag)) => (
                &rest[..path + name.len()],
                Some(check_tag(text, tag)?.to_owned()),
            ),
            None => (rest, None),
        };
        let (host, repository) = split_host(rest);
        let host = host.to_ascii_lowercase();
        if !is_host(&host) {
            return Err(NameError::Host {
                text: text.to_owned(),
                host,
            });
        }
        let repository = match repository {
            name if host == DEFAULT_REGISTRY && !name.contains('/') => format!("{OFFICIAL}/{name}"),
            name => name.to_owned(),
        };
        check_repository(text, &repository)?;
        if tag.is_none() && digest.is_none() && is_hex(rest, 64) {
            return Err(NameError::BareDigest {
                text: text.to_owned(),
            });
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag,
        };
        Ok(Self {
            host,
            repository,
            tag,
            digest,
        })
    }
}

/// The registry and the rest. The first part is a registry if it looks like a host:
/// `splitDockerDomain` of distribution/reference.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => match host {
            "index.docker.io" => (DEFAULT_REGISTRY, rest),
            host => (host, rest),
        },
        _ => (DEFAULT_REGISTRY, name),
    }
}

/// The repository of a name that says no registry, and what comes after it; `None` for
/// all other names.
pub(crate) fn split_short(text: &str) -> Option<(&str, &str)> {
    let begins = text.split_once(':').map(|(transport, _)| transport);
    let local = begins.is_some_and(|begins| TRANSPORTS.contains(&begins));
    let short = !local && !text.starts_with("docker://");
    let end = text.find(['@', ':']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let no_host = !rest.contains('/') && std::ptr::eq(split_host(name).1, name);
    (short && no_host).then_some((name, rest))
}

/// The registry that a user names alone.
pub(crate) fn registry(text: &str) -> Result<String, NameError> {
    let host = text.to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => Ok(DEFAULT_REGISTRY.to_owned()),
        other if is_host(other) => Ok(host),
        _ => Err(NameError::Registry {
            text: text.to_owned(),
        }),
    }
}

/// Whether a text is the path of a repository.
pub(crate) fn is_repository(text: &str) -> bool {
    text.len() <= MAX_REPOSITORY && text.split('/').all(is_path_component)
}

/// Whether a text is a registry: a host name, an address, with a port if it has one.
pub(crate) fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) if port.starts_with(':') => (address, port.get(1..)),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'));
    let known = match text.starts_with('[') {
        true => host.parse::<std::net::Ipv6Addr>().is_ok(),
        false => host.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        }),
    };
    port && known
}

fn check_repository(text: &str, repository: &str) -> Result<(), NameError> {
    let text = || text.to_owned();
    if repository.len() > MAX_REPOSITORY {
        return Err(NameError::RepositoryLength { text: text() });
    }
    for part in repository.split('/') {
        let owned = || part.to_owned();
        if part.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(NameError::UpperCase {
                text: text(),
                part: owned(),
            });
        }
        if !is_path_component(part) {
            return Err(NameError::Repository {
                text: text(),
                part: owned(),
            });
        }
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = part;
    loop {
        let word = rest.trim_start_matches(plain);
        if word.len() == rest.len() {
            return false;
        }
        if word.is_empty() {
            return true;
        }
        let next = word.trim_start_matches(['.', '_', '-']);
        let separator = &word[..word.len() - next.len()];
        let dashes = !separator.is_empty() && separator.chars().all(|c| c == '-');
        if !dashes && !matches!(separator, "." | "_" | "__") {
            return false;
        }
        rest = next;
    }
}

fn check_tag<'a>(text: &str, tag: &'a str) -> Result<&'a str, NameError> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = tag.len() <= MAX_TAG
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'));
    match good {
        true => Ok(tag),
        false => Err(NameError::Tag {
            text: text.to_owned(),
            tag: tag.to_owned(),
        }),
    }
}

fn check_digest(text: &str, digest: &str) -> Result<String, NameError> {
    match digest.parse::<Digest>() {
        Ok(digest) => Ok(digest.into()),
        Err(_) => Err(NameError::Digest {
            text: text.to_owned(),
            digest: digest.to_owned(),
        }),
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && is_lower_hex(text)
}

impl LocalName {
    fn parse(text: &str, transport: &'static str, rest: &str) -> Result<Self, NameError> {
        // The path ends at the first colon, as in containers-transports(5).
        let (path, tag) = match rest.split_once(':') {
            Some((path, "")) => (path, None),
            Some((path, tag)) => (path, Some(tag.to_owned())),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(NameError::Path {
                text: text.to_owned(),
                transport,
            });
        }
        Ok(Self {
            path: path.into(),
            tag,
        })
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let local = |transport: &'static str| {
            let rest = text.strip_prefix(transport)?.strip_prefix(':')?;
            Some(LocalName::parse(text, transport, rest))
        };
        if let Some(name) = local("oci-archive") {
            return name.map(Self::OciArchive);
        }
        if let Some(name) = local("docker-archive") {
            return name.map(Self::DockerArchive);
        }
        if let Some(name) = local("oci") {
            return name.map(Self::Layout);
        }
        let name = text.strip_prefix("docker://").unwrap_or(text);
        RegistryName::parse(name).map(Self::Registry)
    }
}

impl TryFrom<String> for ImageName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{}/{}", self.host, self.repository);
        f.write_str(&self.with_reference(name))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, name) = match self {
            Self::Registry(name) => return name.fmt(f),
            Self::Layout(name) => ("oci", name),
            Self::OciArchive(name) => ("oci-archive", name),
            Self::DockerArchive(name) => ("docker-archive", name),
        };
        write!(f, "{transport}:{}", name.path.display())?;
        match &name.tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
