//! What tests of secrets need: a sealer whose host can change and fail, and a vault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use async_trait::async_trait;

use super::Vault;
use super::key::{Key, KeyBytes, KeyId};
use super::sealer::{Sealer, SealerError};
use super::store::KeyStore;
use crate::registry::Registry;

/// The secrets of a folder, as an aegisd finds them that starts.
pub(super) fn vault(folder: &tempfile::TempDir, sealer: &TestSealer) -> Vault {
    let registry = Registry::open(&folder.path().join("registry.db")).unwrap();
    let path = folder.path().join("secrets.key");
    Vault::new(
        registry,
        KeyStore::new(path, Some(Box::new(sealer.clone()))),
    )
}

#[derive(Clone, Debug, Default)]
pub(super) struct TestSealer {
    /// "Seals" by adding this to each byte.
    host: Arc<AtomicU8>,
    stopped: Arc<AtomicBool>,
}

impl TestSealer {
    /// Keys that were sealed do not open from now on.
    pub(super) fn change_host(&self) {
        self.host.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn change_host_back(&self) {
        self.host.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn start(&self) {
        self.stopped.store(false, Ordering::Relaxed);
    }

    fn host(&self) -> Result<u8, SealerError> {
        match self.stopped.load(Ordering::Relaxed) {
            true => Err(SealerError::None),
            false => Ok(self.host.load(Ordering::Relaxed).wrapping_add(1)),
        }
    }
}

#[async_trait]
impl Sealer for TestSealer {
    fn name(&self) -> &'static str {
        "test"
    }

    fn bound_to(&self, _sealed: &str) -> &'static str {
        "the test"
    }

    async fn seal(&self, key: &Key) -> Result<String, SealerError> {
        let host = self.host()?;
        let bytes = key.bytes().iter().map(|byte| byte.wrapping_add(host));
        let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{host:02x}{}{hex}", key.id()))
    }

    async fn unseal(&self, id: KeyId, sealed: &str) -> Result<KeyBytes, SealerError> {
        let begin = format!("{:02x}{id}", self.host()?);
        let hex = sealed.strip_prefix(&begin).ok_or(SealerError::Differs)?;
        let mut key = KeyBytes::default();
        for (index, byte) in key.iter_mut().enumerate() {
            let digits = &hex[2 * index..2 * index + 2];
            let sealed = u8::from_str_radix(digits, 16).unwrap();
            *byte = sealed.wrapping_sub(self.host()?);
        }
        Ok(key)
    }

    async fn forget(&self, _id: KeyId, _sealed: &str) -> Result<(), SealerError> {
        Ok(())
    }
}
