//! What is known of a snapshot without loading it: whether it counts, and the key that
//! those of an instance are sealed with.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::SecretText;

/// The first bytes of a snapshot that may be used.
pub const MAGIC: &[u8; 8] = b"AEGISNAP";

/// What stands in their place once it was used. Such a file is left where the host went
/// down right then.
pub const SPENT: &[u8; 8] = b"AEGISPNT";

/// The key of an instance's snapshots, overwritten when it is dropped. As text it has two
/// hexadecimal digits for each byte.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SecretText", into = "SecretText")]
pub struct SnapshotKey(Zeroizing<[u8; SnapshotKey::LENGTH]>);

/// A text is not the key of snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key of a snapshot is {} hexadecimal digits", 2 * SnapshotKey::LENGTH)]
pub struct NoSnapshotKey;

impl SnapshotKey {
    /// Bytes of a key.
    pub const LENGTH: usize = 32;

    pub fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself, for the cipher.
    pub fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Debug for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(key)")
    }
}

impl From<SnapshotKey> for SecretText {
    fn from(key: SnapshotKey) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // At once as long as it becomes: what grows leaves copies behind.
        let mut text = String::with_capacity(2 * SnapshotKey::LENGTH);
        for byte in key.0.iter() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(DIGITS[usize::from(digit)]));
            }
        }
        text.into()
    }
}

impl TryFrom<SecretText> for SnapshotKey {
    type Error = NoSnapshotKey;

    fn try_from(text: SecretText) -> Result<Self, NoSnapshotKey> {
        let digits = text.reveal().as_bytes();
        if digits.len() != 2 * Self::LENGTH {
            return Err(NoSnapshotKey);
        }
        let mut key = Self::new([0; Self::LENGTH]);
        for (byte, pair) in key.0.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let value = char::from(*digit).to_digit(16).ok_or(NoSnapshotKey)?;
                *byte = *byte << 4 | u8::try_from(value).map_err(|_| NoSnapshotKey)?;
            }
        }
        Ok(key)
    }
}

/// Whether there is a file at a path that is not a spent snapshot. Blocks on the disk.
pub fn counts(path: &Path) -> bool {
    let mut first = [0; 8];
    match File::open(path).and_then(|mut file| file.read_exact(&mut first)) {
        Ok(()) => &first != SPENT,
        // Damaged, which who restores it has to say.
        Err(_) => path.is_file(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_text_in_a_credential_and_hides_elsewhere() {
        let key = SnapshotKey::new(std::array::from_fn(|index| {
            u8::try_from(index * 8).unwrap()
        }));
        let text = SecretText::from(key.clone());
        assert!(text.reveal().starts_with("000810") && text.reveal().ends_with("f0f8"));
        assert_eq!(SnapshotKey::try_from(text), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "(key)");
        for text in ["", "00", &"0g".repeat(32), &"00".repeat(33)] {
            let read = SnapshotKey::try_from(SecretText::from(text.to_owned()));
            assert_eq!(read, Err(NoSnapshotKey), "{text}");
        }
    }

    #[test]
    fn only_what_was_not_used_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot");
        assert!(!counts(&path));
        for (bytes, expected) in [(&MAGIC[..], true), (b"", true), (&SPENT[..], false)] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(counts(&path), expected, "{bytes:?}");
        }
    }
}
