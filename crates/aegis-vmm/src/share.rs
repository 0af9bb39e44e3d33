//! Shared folders.

use std::path::PathBuf;

use crate::jail::JailError;

/// Why a folder cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("the folder {path} does not exist")]
    Missing { path: PathBuf },
    #[error("{path} is not a folder")]
    NotADirectory { path: PathBuf },
    #[error("cannot start the file server")]
    Jail {
        #[source]
        source: JailError,
    },
}
