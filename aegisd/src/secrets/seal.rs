//! The format of a secret at rest.
//!
//! ```text
//!  0        1        9        33
//!  │version │ key id │ nonce  │ ciphertext and tag ...
//! ```
//!
//! XChaCha20-Poly1305: its nonce is long enough to be random for every value. The
//! tag also covers the version, whose secret it is and its name, so a ciphertext
//! that is moved to another row of the registry does not open.

use aegis_core::secret::SecretText;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::key::{Key, KeyId};
use super::sealer::SealerError;

/// The version that is written. A change of the format is a new one, and old ones
/// are read for ever.
const VERSION: u8 = 1;
const KEY_ID: std::ops::Range<usize> = 1..9;
const NONCE: std::ops::Range<usize> = 9..33;

/// Why a value is not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the kernel gives no random bytes")]
    Random(#[source] getrandom::Error),
    #[error("the cipher fails")]
    Cipher,
    #[error("its format is not known to this version")]
    Format,
    #[error("the key it was encrypted with is lost")]
    KeyLost,
    #[error("the key it was encrypted with does not open")]
    KeyShut(#[source] SealerError),
    #[error("it was changed since it was encrypted")]
    Changed,
}

/// Encrypts a value for an owner and a name.
///
/// # Errors
/// No random bytes, or the cipher fails.
pub fn seal(key: &Key, owner: &str, name: &str, value: &SecretText) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE.end - NONCE.start];
    getrandom::fill(&mut nonce).map_err(SealError::Random)?;
    let bound = bound_to(VERSION, owner, name);
    let payload = Payload {
        msg: value.reveal().as_bytes(),
        aad: &bound,
    };
    let sealed = cipher(key).encrypt(XNonce::from_slice(&nonce), payload);
    let sealed = sealed.map_err(|_| SealError::Cipher)?;
    let mut bytes = vec![VERSION];
    bytes.extend(key.id().bytes());
    bytes.extend(nonce);
    bytes.extend(sealed);
    Ok(bytes)
}

/// Which key a value was encrypted with.
///
/// # Errors
/// [`SealError::Format`].
pub fn key_of(sealed: &[u8]) -> Result<KeyId, SealError> {
    match (sealed.first(), sealed.get(KEY_ID)) {
        (Some(&VERSION), Some(id)) => {
            let id = id.try_into().map_err(|_| SealError::Format)?;
            Ok(KeyId::from_bytes(id))
        }
        _ => Err(SealError::Format),
    }
}

/// Decrypts a value of an owner and a name.
///
/// # Errors
/// It was not encrypted with this key for these.
pub fn open(key: &Key, owner: &str, name: &str, sealed: &[u8]) -> Result<SecretText, SealError> {
    let (Some(nonce), Some(rest)) = (sealed.get(NONCE), sealed.get(NONCE.end..)) else {
        return Err(SealError::Format);
    };
    let bound = bound_to(VERSION, owner, name);
    let payload = Payload {
        msg: rest,
        aad: &bound,
    };
    let opened = cipher(key).decrypt(XNonce::from_slice(nonce), payload);
    let opened = Zeroizing::new(opened.map_err(|_| SealError::Changed)?);
    let text = std::str::from_utf8(&opened).map_err(|_| SealError::Format)?;
    Ok(text.to_owned().into())
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&**key.bytes()).into())
}

/// No handle and no name holds a NUL, so the parts cannot run into each other.
fn bound_to(version: u8, owner: &str, name: &str) -> Vec<u8> {
    let mut bound = vec![version];
    bound.extend(owner.as_bytes());
    bound.push(0);
    bound.extend(name.as_bytes());
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::new(KeyId::from_bytes([byte; 8]), Zeroizing::new([byte; 32]))
    }

    #[test]
    fn a_value_opens_with_its_key_for_its_name_alone() {
        let value: SecretText = "hunter2".to_owned().into();
        let sealed = seal(&key(1), "", "a", &value).unwrap();
        assert_eq!(key_of(&sealed).unwrap(), KeyId::from_bytes([1; 8]));
        assert_eq!(open(&key(1), "", "a", &sealed).unwrap(), value);
        for opened in [
            open(&key(2), "", "a", &sealed),
            open(&key(1), "", "b", &sealed),
            open(&key(1), "web", "a", &sealed),
        ] {
            assert!(matches!(opened, Err(SealError::Changed)));
        }
        assert_ne!(seal(&key(1), "", "a", &value).unwrap(), sealed);
    }

    #[test]
    fn every_changed_byte_is_found() {
        let sealed = seal(&key(1), "", "a", &"v".to_owned().into()).unwrap();
        for index in NONCE.start..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(open(&key(1), "", "a", &changed).is_err(), "byte {index}");
        }
        assert!(matches!(key_of(&[2; 64]), Err(SealError::Format)));
        assert!(matches!(key_of(&[]), Err(SealError::Format)));
        assert!(matches!(
            open(&key(1), "", "a", &[1; 20]),
            Err(SealError::Format)
        ));
    }
}
