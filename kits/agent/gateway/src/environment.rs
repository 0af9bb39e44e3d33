//! What AegisVM tells an instance daemon through its environment.

use std::path::PathBuf;

/// Whose daemon this is, and where its API is (docs/KITS.md, "Instance daemons").
#[derive(Clone, Debug)]
pub struct Environment {
    /// The instance's handle.
    pub instance: String,
    /// The socket of the instance's API.
    pub socket: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is not set: this program is started by AegisVM, as the daemon of an instance")]
pub struct MissingVariable(&'static str);

impl Environment {
    /// Reads `AEGIS_INSTANCE` and `AEGIS_SOCKET`.
    ///
    /// # Errors
    /// The first that is missing.
    pub fn of_process() -> Result<Self, MissingVariable> {
        Ok(Self {
            instance: variable("AEGIS_INSTANCE").ok_or(MissingVariable("AEGIS_INSTANCE"))?,
            socket: variable("AEGIS_SOCKET")
                .ok_or(MissingVariable("AEGIS_SOCKET"))?
                .into(),
        })
    }
}

/// A variable that is set, is text, and is not empty.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
