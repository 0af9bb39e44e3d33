//! The original's key, and the values it opens: AES-256-GCM, each a nonce of 12 bytes
//! before the ciphertext, without associated data.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use aegis_core::secret::{SecretError, SecretName, SecretText};
use aes_gcm::aead::Aead;
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use zeroize::Zeroizing;

use super::database::Sealed;
use super::{OriginalError, Problem};

/// Of the key, in bytes.
pub(super) const LENGTH: usize = 32;
/// Of a nonce, in bytes.
const NONCE: usize = 12;

/// The values of secrets that can be secrets here too.
pub(crate) type Values = BTreeMap<SecretName, SecretText>;

/// Reads the key.
pub(super) fn read(path: &Path) -> Result<Zeroizing<[u8; LENGTH]>, OriginalError> {
    let read = fs::read(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => OriginalError::NoKey(path.to_owned()),
        _ => OriginalError::Read {
            path: path.to_owned(),
            source,
        },
    });
    let bytes = Zeroizing::new(read?);
    let mut key = Zeroizing::new([0; LENGTH]);
    if bytes.len() != LENGTH {
        return Err(OriginalError::KeyLength {
            path: path.to_owned(),
            length: bytes.len(),
        });
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

/// Opens values. What does not open, or cannot be a secret here, is a problem.
pub(super) fn open(key: &[u8; LENGTH], sealed: &[Sealed]) -> (Values, Vec<Problem>) {
    let cipher = Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(key));
    let (mut values, mut problems) = (Values::new(), Vec::new());
    for secret in sealed {
        match open_one(&cipher, secret) {
            Ok((name, value)) => {
                values.insert(name, value);
            }
            Err(problem) => problems.push(problem),
        }
    }
    (values, problems)
}

fn open_one(cipher: &Aes256Gcm, secret: &Sealed) -> Result<(SecretName, SecretText), Problem> {
    let name: SecretName = secret.name.parse().map_err(Problem::SecretName)?;
    let opened = secret
        .value
        .split_at_checked(NONCE)
        .and_then(|(nonce, text)| cipher.decrypt(Nonce::from_slice(nonce), text).ok());
    let opened = opened.ok_or_else(|| Problem::Sealed(name.clone()))?;
    let refused = |source| Problem::SecretValue {
        name: name.clone(),
        source,
    };
    let text = String::from_utf8(opened).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        refused(SecretError::Encoding)
    })?;
    let value = SecretText::from(text);
    value.check().map_err(refused)?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by OpenSSL: the key is the bytes 0 to 31, the nonce 12 bytes of 7, the text
    /// `sk-original`.
    const BY_OPENSSL: [u8; 27] = [
        0x7c, 0x01, 0x8b, 0x33, 0x1d, 0x66, 0xb0, 0x9d, 0xa8, 0xfc, 0x7f, 0x29, 0x75, 0x36, 0x6f,
        0x02, 0xf8, 0xeb, 0xda, 0xf2, 0x57, 0x5f, 0xc9, 0xb0, 0x07, 0x43, 0x9f,
    ];

    fn key() -> [u8; LENGTH] {
        std::array::from_fn(|index| u8::try_from(index).unwrap())
    }

    fn seal(text: &[u8]) -> Vec<u8> {
        let cipher = Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(&key()));
        let nonce = [7; NONCE];
        let sealed = cipher.encrypt(Nonce::from_slice(&nonce), text).unwrap();
        [&nonce[..], &sealed].concat()
    }

    fn sealed(name: &str, value: Vec<u8>) -> Sealed {
        Sealed {
            name: name.to_owned(),
            value,
        }
    }

    #[test]
    fn values_open_as_they_were_to_the_last_byte() {
        let other = [&[7; NONCE][..], &BY_OPENSSL].concat();
        let secrets = [sealed("A", seal(b"sk-1\n")), sealed("B", other)];
        let (values, problems) = open(&key(), &secrets);
        assert!(problems.is_empty(), "{problems:?}");
        let values: Vec<_> = values.values().map(SecretText::reveal).collect();
        assert_eq!(values, ["sk-1\n", "sk-original"]);
    }

    #[test]
    fn what_does_not_open_is_named_and_the_rest_goes_on() {
        let mut changed = seal(b"sk-1");
        *changed.last_mut().unwrap() ^= 1;
        let secrets = [
            sealed("CHANGED", changed),
            sealed("SHORT", vec![1, 2]),
            sealed("BYTES", seal(b"\xff")),
            sealed("NONE", seal(b"")),
            sealed("a b", seal(b"x")),
            sealed("GOOD", seal(b"x")),
        ];
        let (values, problems) = open(&key(), &secrets);
        assert_eq!(values.len(), 1);
        let words: Vec<_> = problems.iter().map(Problem::words).collect();
        for (found, begin) in words.iter().zip([
            "the value of the secret CHANGED does not open with master.key",
            "the value of the secret SHORT does not open with master.key",
            "the secret BYTES cannot be kept here: the value is not UTF-8",
            "the secret NONE cannot be kept here: the value is empty",
            "a secret cannot be kept here: 'a b' is not the name",
        ]) {
            assert!(found.starts_with(begin), "{found}");
        }
        assert_eq!(words.len(), 5);
    }

    #[test]
    fn a_key_has_its_length_or_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        assert!(matches!(read(&path), Err(OriginalError::NoKey(_))));
        fs::write(&path, [1; 31]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, OriginalError::KeyLength { length: 31, .. }));
        fs::write(&path, key()).unwrap();
        assert_eq!(*read(&path).unwrap(), key());
    }
}
