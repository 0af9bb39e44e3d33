//! The cipher of a sealed snapshot: XChaCha20-Poly1305, each piece by itself.
//!
//! A nonce is the salt of the snapshot, random for each, and the number of the piece; so
//! a piece opens at its place in its snapshot alone. The tag also covers the kind. That
//! none is missing at the end is told by the last piece, which is sealed as well.

use std::fmt;

use aegis_core::snapshot::SnapshotKey;
use chacha20poly1305::aead::{Aead, AeadInPlace, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

/// Bytes of a snapshot's salt.
const SALT: usize = 16;
const NONCE: usize = 24;
/// How much longer a sealed piece is, in bytes.
pub(super) const TAG: usize = 16;

/// Random bytes that tell one snapshot of an instance from all others.
pub(super) type Salt = [u8; SALT];

/// Why a piece is not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the kernel gives no random bytes")]
    Random(#[source] getrandom::Error),
    #[error("the cipher fails")]
    Cipher,
}

/// Seals and opens the pieces of one snapshot.
pub(super) struct Seal {
    cipher: XChaCha20Poly1305,
    salt: Salt,
}

impl Seal {
    pub(super) fn new(key: &SnapshotKey, salt: Salt) -> Self {
        Self {
            cipher: XChaCha20Poly1305::new(key.bytes().into()),
            salt,
        }
    }

    /// One for a new snapshot.
    pub(super) fn fresh(key: &SnapshotKey) -> Result<(Self, Salt), SealError> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(SealError::Random)?;
        Ok((Self::new(key, salt), salt))
    }

    /// Seals a piece.
    pub(super) fn close(&self, number: u32, kind: u32, piece: &[u8]) -> Result<Vec<u8>, SealError> {
        let payload = Payload {
            msg: piece,
            aad: &kind.to_le_bytes(),
        };
        let sealed = self.cipher.encrypt(&self.nonce(number), payload);
        sealed.map_err(|_| SealError::Cipher)
    }

    /// Opens a piece in its place.
    pub(super) fn open(
        &self,
        number: u32,
        kind: u32,
        piece: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let kind = kind.to_le_bytes();
        let opened = self
            .cipher
            .decrypt_in_place(&self.nonce(number), &kind, piece);
        opened.map_err(|_| SealError::Cipher)
    }

    fn nonce(&self, number: u32) -> XNonce {
        let mut nonce = [0; NONCE];
        nonce[..SALT].copy_from_slice(&self.salt);
        nonce[SALT..SALT + 4].copy_from_slice(&number.to_le_bytes());
        nonce.into()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_opens_at_its_place_alone() {
        let key = SnapshotKey::new([1; SnapshotKey::LENGTH]);
        let (seal, salt) = Seal::fresh(&key).unwrap();
        let sealed = seal.close(5, 1, b"state").unwrap();
        assert_eq!(sealed.len(), 5 + TAG);
        let open = |key: &SnapshotKey, salt, number, kind, sealed: &[u8]| {
            let mut piece = sealed.to_vec();
            Seal::new(key, salt)
                .open(number, kind, &mut piece)
                .map(|()| piece)
        };
        assert_eq!(open(&key, salt, 5, 1, &sealed).unwrap(), b"state");
        let other = SnapshotKey::new([2; SnapshotKey::LENGTH]);
        assert!(open(&other, salt, 5, 1, &sealed).is_err());
        assert!(open(&key, [0; SALT], 5, 1, &sealed).is_err());
        assert!(open(&key, salt, 6, 1, &sealed).is_err());
        assert!(open(&key, salt, 5, 2, &sealed).is_err());
        assert!(open(&key, salt, 5, 1, b"short").is_err());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(open(&key, salt, 5, 1, &changed).is_err(), "byte {index}");
        }
    }
}
