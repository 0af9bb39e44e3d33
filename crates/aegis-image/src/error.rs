//! What can go wrong between the name of an image and its bytes.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use aegis_core::fault::{Fault, Symbol};

use crate::document::{DocumentError, Platform};
use crate::name::NameError;

/// Why an image cannot be had. No message holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(
        "the short name '{name}' may mean an image of several registries: {}",
        .registries.join(", ")
    )]
    Ambiguous {
        name: String,
        registries: Vec<String>,
    },
    #[error("{} forbids the registry of {name}", .file.display())]
    Blocked { name: String, file: PathBuf },
    #[error("cannot {operation} {}", .path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not as it should be", .path.display())]
    Config {
        path: PathBuf,
        #[source]
        source: ConfigError,
    },
    #[error("cannot get the credentials for {host} from {helper}")]
    Helper {
        helper: String,
        host: String,
        #[source]
        source: HelperError,
    },
    #[error("cannot set up the client for {host}")]
    Client {
        host: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the registry {host} cannot be reached")]
    Unreachable {
        host: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the connection to {host} broke while {what} was loaded")]
    Transfer {
        host: String,
        what: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{host} answered {status} when asked for {what}{}", told(.message))]
    Answer {
        host: String,
        what: String,
        status: u16,
        message: String,
    },
    #[error("the registry {host} has had too many requests{}{}", told(.message), later(.wait.as_ref()))]
    Busy {
        host: String,
        message: String,
        wait: Option<Duration>,
    },
    #[error("{place} does not have {what}")]
    NotFound { what: String, place: String },
    #[error("{host} does not give {what} to {}", whom(.known))]
    Unauthorized {
        host: String,
        what: String,
        /// Whether there were credentials.
        known: bool,
    },
    #[error("{host} does not accept this name and password")]
    Login { host: String },
    #[error("{name} is not made for {wanted}, only for {}", list(.available))]
    Platform {
        name: String,
        wanted: Platform,
        available: Vec<String>,
    },
    #[error("{what} of {place} is not what it should be")]
    Corrupt {
        what: String,
        place: String,
        #[source]
        source: Corruption,
    },
    #[error("{what} of {place} cannot be used")]
    Document {
        what: String,
        place: String,
        #[source]
        source: DocumentError,
    },
    #[error("{} cannot be used as an image", .path.display())]
    Local {
        path: PathBuf,
        #[source]
        source: LocalError,
    },
}

/// How bytes differ from what was promised.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    #[error("its digest is {found}, not {expected}")]
    Digest { expected: String, found: String },
    #[error("the registry says that its digest is {0}, which it is not")]
    Header(String),
    #[error("it is longer than {0} bytes")]
    Longer(u64),
    #[error("it ends after {found} of {expected} bytes")]
    Shorter { expected: u64, found: u64 },
    #[error("the digest '{0}' is neither SHA-256 nor SHA-512")]
    Algorithm(String),
}

/// What is wrong with a file of settings or credentials.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Without the reader's own words, which may show a password.
    #[error("it is not JSON of that kind, in line {line}, column {column}")]
    Json { line: usize, column: usize },
    #[error("line {line}: {message}")]
    Toml { line: usize, message: String },
    #[error("it is in version 1 of the format; convert it to [[registry]] tables")]
    Version1,
    #[error("'{0}' is not a registry, with or without a path")]
    Location(String),
    #[error("the entry of '{0}' is not base64 of USER:PASSWORD")]
    Entry(String),
    #[error("it is longer than {0} bytes")]
    TooLong(u64),
    #[error("'{0}' is not the name of a credential helper")]
    HelperName(String),
    #[error("its 'auths' is not an object")]
    Auths,
    #[error("no folder for it is known: HOME and XDG_RUNTIME_DIR are not set")]
    NoFolder,
}

impl ConfigError {
    pub(crate) fn json(error: &serde_json::Error) -> Self {
        Self::Json {
            line: error.line(),
            column: error.column(),
        }
    }

    pub(crate) fn toml(error: &toml::de::Error, text: &[u8]) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start));
        let lines = before
            .unwrap_or_default()
            .iter()
            .filter(|byte| **byte == b'\n');
        Self::Toml {
            line: 1 + lines.count(),
            message: error.message().replace('\n', "; "),
        }
    }
}

/// Why a credential helper gave no credentials.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    #[error("it cannot be run")]
    Run(#[source] io::Error),
    #[error("it failed ({0})")]
    Failed(std::process::ExitStatus),
    #[error("its answer is not that of a credential helper")]
    Answer,
}

/// What is wrong with a layout or an archive.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("it has no file '{0}'")]
    Missing(String),
    #[error("'{0}' is not a regular file; links are not followed in images")]
    NotRegular(String),
    #[error("'{0}' leaves the image")]
    Outside(String),
    #[error("it is compressed; decompress it first")]
    Compressed,
    #[error("it is not a tar file")]
    Tar(#[source] io::Error),
    #[error("it has more than {0} entries")]
    Entries(usize),
    #[error("it is an OCI layout of version '{0}', not 1.0.0")]
    LayoutVersion(String),
    #[error("it has several images: {}; name one", list(.0))]
    Several(Vec<String>),
    #[error("it has no image '{tag}', only {}", list(.available))]
    NoTag { tag: String, available: Vec<String> },
    #[error("'{0}' is not JSON of that kind")]
    Json(String, #[source] serde_json::Error),
}

fn told(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}

fn later(wait: Option<&Duration>) -> String {
    match wait {
        Some(wait) => format!(" and takes the next in {} s", wait.as_secs()),
        None => String::new(),
    }
}

fn whom(known: &bool) -> &'static str {
    match known {
        true => "the user you are logged in as",
        false => "somebody who is not logged in, or does not have it",
    }
}

fn list(words: &[String]) -> String {
    match words {
        [] => "nothing that is named".to_owned(),
        words => words.join(", "),
    }
}

impl SourceError {
    /// For programs.
    pub fn symbol(&self) -> Symbol {
        match self {
            Self::Name(_) | Self::Ambiguous { .. } => Symbol::ImageName,
            Self::Blocked { .. } => Symbol::PermissionDenied,
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Symbol::ImageNotFound,
                io::ErrorKind::PermissionDenied => Symbol::PermissionDenied,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Symbol::NoSpace,
                _ => Symbol::ImageUnavailable,
            },
            Self::Config { .. } | Self::Helper { .. } | Self::Client { .. } => {
                Symbol::InvalidArgument
            }
            Self::Unreachable { .. } | Self::Transfer { .. } | Self::Answer { .. } => {
                Symbol::RegistryUnreachable
            }
            Self::Busy { .. } => Symbol::RegistryBusy,
            Self::NotFound { .. } => Symbol::ImageNotFound,
            Self::Unauthorized { .. } | Self::Login { .. } => Symbol::ImageUnauthorized,
            Self::Platform { .. } => Symbol::ImagePlatform,
            Self::Corrupt { .. } => Symbol::ImageCorrupt,
            Self::Document { source, .. } => match source.is_unsupported() {
                true => Symbol::ImageUnsupported,
                false => Symbol::ImageCorrupt,
            },
            Self::Local { source, .. } => match source {
                LocalError::NoTag { .. } => Symbol::ImageNotFound,
                LocalError::Several(_) => Symbol::ImageName,
                LocalError::Compressed | LocalError::LayoutVersion(_) => Symbol::ImageUnsupported,
                LocalError::Missing(_)
                | LocalError::NotRegular(_)
                | LocalError::Outside(_)
                | LocalError::Tar(_)
                | LocalError::Entries(_)
                | LocalError::Json(..) => Symbol::ImageCorrupt,
            },
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Ambiguous { name, registries } => {
                let first = registries.first()?;
                Some(format!("write the whole name, as in {first}/{name}"))
            }
            Self::Unauthorized { host, .. } => Some(format!("aegisctl login {host}")),
            Self::Unreachable { host, source } if is_untrusted(source) => Some(format!(
                "if you trust it, put the certificate of its CA in /etc/containers/certs.d/{host}/ca.crt"
            )),
            Self::Client { .. } => Some(
                "install the package ca-certificates, and check the proxy variables and SSL_CERT_FILE"
                    .to_owned(),
            ),
            Self::Unreachable { .. } => {
                Some("check the name, the network and the proxy variables".to_owned())
            }
            Self::Busy { host, .. } => Some(format!(
                "try again later; 'aegisctl login {host}' may raise the limit"
            )),
            Self::Transfer { .. } | Self::Answer { .. } => Some("try again later".to_owned()),
            Self::Corrupt { .. } => {
                Some("pull it again; if that fails the same way, its publisher must fix it".into())
            }
            Self::Name(_)
            | Self::Blocked { .. }
            | Self::File { .. }
            | Self::Config { .. }
            | Self::Helper { .. }
            | Self::NotFound { .. }
            | Self::Login { .. }
            | Self::Platform { .. }
            | Self::Document { .. }
            | Self::Local { .. } => None,
        }
    }
}

/// Whether TLS failed for a certificate that nobody known vouches for.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    if let Some(tls) = error.downcast_ref() {
        return matches!(tls, rustls::Error::InvalidCertificate(_));
    }
    // The source of an io::Error is that of what it wraps, which is left out.
    let wrapped = error.downcast_ref().and_then(io::Error::get_ref);
    match (wrapped, error.source()) {
        (Some(wrapped), _) => is_untrusted(wrapped),
        (None, Some(source)) => is_untrusted(source),
        (None, None) => false,
    }
}

impl From<SourceError> for Fault {
    fn from(error: SourceError) -> Self {
        let fault = Self::from_error(error.symbol(), &error);
        match error.hint() {
            Some(hint) => fault.with_hint(hint),
            None => fault,
        }
    }
}
