//! The jail in which QEMU and the file server run.

use std::io;

/// Why a process could not be started in its jail.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The step that the new process did not get past.
    #[error("cannot {step}")]
    Step {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

impl JailError {
    /// Whether the host forbids the namespaces a jail is made of.
    pub fn is_forbidden(&self) -> bool {
        false
    }
}
