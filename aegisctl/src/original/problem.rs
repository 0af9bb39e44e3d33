//! Why an import is not begun: all of them are told together.

use std::net::SocketAddr;
use std::path::PathBuf;

use aegis_core::capabilities::CapabilityError;
use aegis_core::fault::chain;
use aegis_core::handle::{Handle, HandleError};
use aegis_core::secret::{SecretError, SecretName};
use aegis_core::spec::SpecError;

/// One thing that stands in the way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The content is not shown: it may hold values.
    #[error("the column {column} of the instance {name} does not hold what belongs there")]
    Column { name: String, column: &'static str },
    #[error("the instance '{0}' cannot keep its name, choose one: --rename {0}=NAME")]
    Name(String, #[source] HandleError),
    #[error("two instances would be called '{0}', rename or skip one: --rename ID=NAME, --skip ID")]
    TwoOfAName(Handle),
    #[error("there is no instance '{0}' to rename or skip")]
    NoSuchInstance(String),
    #[error("the instance '{0}' cannot be made as it is there")]
    Spec(Handle, #[source] SpecError),
    #[error("the instance '{0}' cannot have the rights it has there")]
    Capability(Handle, #[source] CapabilityError),
    #[error("the instance '{name}' exposes the port {port}, which is none")]
    Port { name: Handle, port: i64 },
    #[error("the workspace {path} of the instance '{name}' is not an absolute path")]
    WorkspacePath { name: Handle, path: PathBuf },
    #[error("the workspace {path} of the instance '{name}' is no folder")]
    NoWorkspace { name: Handle, path: PathBuf },
    #[error("a secret cannot be kept here")]
    SecretName(#[source] SecretError),
    #[error("the secret {name} cannot be kept here")]
    SecretValue {
        name: SecretName,
        #[source]
        source: SecretError,
    },
    #[error("the value of the secret {0} does not open with master.key")]
    Sealed(SecretName),
    #[error("the instance '{name}' needs the secret {secret}, which is not here")]
    NoSecret { name: Handle, secret: SecretName },
    #[error(
        "there is an instance '{name}' here with other settings ({differences}): \
         --rename {name}=NAME, or --skip {name}"
    )]
    Taken { name: Handle, differences: String },
    #[error("the kit '{kit}' of the instance '{name}' is not installed here")]
    NoKit { name: Handle, kit: String },
    #[error("the kit '{kit}' of the instance '{name}' is broken: {why}")]
    BrokenKit {
        name: Handle,
        kit: String,
        why: String,
    },
    #[error("the image '{image}' of the instance '{name}' has no name of an image: {why}")]
    Image {
        name: Handle,
        image: String,
        why: String,
    },
    #[error("the port {port} of the instance '{name}' is taken here by {by}")]
    PortTaken {
        name: Handle,
        port: SocketAddr,
        by: String,
    },
}

impl Problem {
    /// The problem in one line.
    pub(crate) fn words(&self) -> String {
        chain(self)
    }
}
