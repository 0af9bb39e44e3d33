//! What seals the key of secrets, so that its file alone opens nothing.
//!
//! | sealer | what the key opens with | where |
//! |---|---|---|
//! | [`creds`] | a key of the host or its TPM2 | Linux, by systemd-creds(1) |
//! | [`keychain`] | the user's keychain | macOS, by security(1) |
//!
//! A sealer may give out all there is to keep, as systemd-creds does, or keep the key
//! itself and give out no more than where it is, as a keychain does: what it gave is
//! kept until [`Sealer::forget`], and no two keys have one id.

pub mod creds;
pub mod keychain;
mod program;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use self::creds::SystemdCreds;
use self::keychain::Keychain;
use super::key::{Key, KeyBytes, KeyId};
use crate::host::Host;

/// Why a sealer did not seal or unseal. Cheap to clone, since one key opens many values.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SealerError {
    #[error("cannot run {program}")]
    Run {
        program: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("{0} did not answer in time")]
    Slow(PathBuf),
    #[error("{program} refused: {words}")]
    Refused { program: PathBuf, words: String },
    #[error("{0} answered with something else")]
    Answer(PathBuf),
    #[error("{0} has no key of the host to seal with")]
    Unbound(PathBuf),
    #[error("what was sealed does not unseal")]
    Differs,
    #[error("there is nothing on this host that seals keys")]
    None,
    #[error("it was sealed by '{0}', which this host does not have")]
    Unknown(String),
}

/// Something of the host that seals keys.
#[async_trait]
pub trait Sealer: std::fmt::Debug + Send + Sync {
    /// Stands in the files of the keys it sealed, so it never changes.
    fn name(&self) -> &'static str;

    /// What a sealed key opens with, for people: "the host's key".
    fn bound_to(&self, sealed: &str) -> &'static str;

    /// Seals a key. What the sealer keeps itself is durable when it returns. Sealing
    /// under an id anew takes the place of what was sealed before.
    ///
    /// # Errors
    /// It cannot; nothing is left then.
    async fn seal(&self, key: &Key) -> Result<String, SealerError>;

    /// Opens what [`Self::seal`] gave for that id.
    ///
    /// # Errors
    /// It does not open, here or now.
    async fn unseal(&self, id: KeyId, sealed: &str) -> Result<KeyBytes, SealerError>;

    /// Drops what the sealer keeps of a key that nothing is encrypted with any more.
    /// Asked for before the key's file goes, so that nothing is left that no file names.
    ///
    /// # Errors
    /// It cannot; the file stays.
    async fn forget(&self, id: KeyId, sealed: &str) -> Result<(), SealerError>;
}

/// The best sealer that a host has.
pub fn of(host: &Host) -> Option<Box<dyn Sealer>> {
    if let Some(program) = host.keychain.clone() {
        let home = host.home.clone().map(PathBuf::into_os_string);
        return Some(Box::new(Keychain::new(program, home)));
    }
    let program = host.creds.clone()?;
    Some(Box::new(SystemdCreds::new(program, host.layout.mode)))
}

/// Seals a key and proves that it opens.
///
/// # Errors
/// Either fails.
pub(super) async fn seal_surely(sealer: &dyn Sealer, key: &Key) -> Result<String, SealerError> {
    let sealed = sealer.seal(key).await?;
    let opened = sealer.unseal(key.id(), &sealed).await?;
    match opened == *key.bytes() {
        true => Ok(sealed),
        false => Err(SealerError::Differs),
    }
}
