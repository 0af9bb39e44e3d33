//! The key that secrets are encrypted with, and the form in which it is kept.
//!
//! | form | content of the file |
//! |---|---|
//! | in clear | the id (8 bytes), then the key (32 bytes) |
//! | sealed | a JSON object: version, id, who sealed it, what the sealer gave |
//!
//! The length tells the two apart. Both tell the id without being opened.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Tells keys apart; says nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; KeyId::LENGTH]);

/// The bytes of a key, which are overwritten when they are dropped.
pub type KeyBytes = Zeroizing<[u8; KEY_LENGTH]>;

/// Length of a key in bytes.
pub const KEY_LENGTH: usize = 32;

/// A key in clear: the id, then the key.
pub(super) const CLEAR_LENGTH: usize = KeyId::LENGTH + KEY_LENGTH;

/// The version of a sealed key that is written. Old ones are read for ever.
const VERSION: u32 = 1;

/// A key in memory.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    bytes: KeyBytes,
}

impl KeyId {
    /// Length in bytes.
    pub const LENGTH: usize = 8;

    pub fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    pub fn bytes(self) -> [u8; Self::LENGTH] {
        self.0
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 2 * Self::LENGTH
            && text
                .bytes()
                .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits)?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Key {
    pub fn new(id: KeyId, bytes: KeyBytes) -> Self {
        Self { id, bytes }
    }

    /// A key that nobody has had.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut clear = Zeroizing::new([0; CLEAR_LENGTH]);
        getrandom::fill(&mut *clear)?;
        Ok(Self::from_clear(&clear))
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    pub fn bytes(&self) -> &KeyBytes {
        &self.bytes
    }

    pub(super) fn from_clear(clear: &[u8; CLEAR_LENGTH]) -> Self {
        let (mut id, mut bytes) = ([0; KeyId::LENGTH], KeyBytes::default());
        id.copy_from_slice(&clear[..KeyId::LENGTH]);
        bytes.copy_from_slice(&clear[KeyId::LENGTH..]);
        Self::new(KeyId(id), bytes)
    }

    pub(super) fn to_clear(&self) -> Zeroizing<Vec<u8>> {
        let mut clear = Zeroizing::new(Vec::with_capacity(CLEAR_LENGTH));
        clear.extend_from_slice(&self.id.0);
        clear.extend_from_slice(&*self.bytes);
        clear
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A key that only its sealer can open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKey {
    pub id: KeyId,
    /// The sealer's name.
    pub sealed_by: String,
    /// What the sealer gave.
    pub sealed: String,
}

/// The same as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    key: String,
    sealed_by: String,
    sealed: String,
}

impl SealedKey {
    pub(super) fn to_file(&self) -> Vec<u8> {
        let written = Written {
            version: VERSION,
            key: self.id.to_string(),
            sealed_by: self.sealed_by.clone(),
            sealed: self.sealed.clone(),
        };
        // Numbers and strings always are JSON.
        let mut text = serde_json::to_vec(&written).unwrap_or_default();
        text.push(b'\n');
        text
    }

    pub(super) fn from_file(content: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(content).ok()?;
        let id = KeyId::parse(&written.key).filter(|_| written.version == VERSION)?;
        Some(Self {
            id,
            sealed_by: written.sealed_by,
            sealed: written.sealed,
        })
    }
}

/// A key as its file has it.
#[derive(Clone, Debug)]
pub enum KeptKey {
    Clear(Key),
    Sealed(SealedKey),
}

impl KeptKey {
    pub fn id(&self) -> KeyId {
        match self {
            Self::Clear(key) => key.id(),
            Self::Sealed(sealed) => sealed.id,
        }
    }

    /// Reads a file's content; `None` if it is no key, or one of a newer version.
    pub(super) fn from_file(content: &[u8]) -> Option<Self> {
        match <&[u8; CLEAR_LENGTH]>::try_from(content) {
            Ok(clear) => Some(Self::Clear(Key::from_clear(clear))),
            Err(_) => SealedKey::from_file(content).map(Self::Sealed),
        }
    }

    pub(super) fn to_file(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Clear(key) => key.to_clear(),
            Self::Sealed(sealed) => Zeroizing::new(sealed.to_file()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_back_and_tell_their_id() {
        let key = Key::random().unwrap();
        let clear = KeptKey::Clear(key.clone());
        let sealed = KeptKey::Sealed(SealedKey {
            id: key.id(),
            sealed_by: "test".into(),
            sealed: "abc".into(),
        });
        for kept in [clear, sealed] {
            let file = kept.to_file();
            let read = KeptKey::from_file(&file).unwrap();
            assert_eq!(read.id(), key.id());
            assert_eq!(read.to_file(), file);
        }
        assert_eq!(KeyId::parse(&key.id().to_string()), Some(key.id()));
        assert_eq!(KeyId::parse("+123456789abcdef"), None);
    }

    #[test]
    fn what_is_no_key_is_not_taken_for_one() {
        let newer = br#"{"version":2,"key":"0123456789abcdef","sealed_by":"x","sealed":"y"}"#;
        for content in [&b"short"[..], newer, b"{}", b""] {
            assert!(KeptKey::from_file(content).is_none());
        }
        assert!(!format!("{:?}", Key::random().unwrap()).contains("bytes"));
    }
}
