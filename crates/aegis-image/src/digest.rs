//! Checking bytes against the digest and size that somebody promised.

use std::fmt;

use oci_spec::image::{Descriptor, Digest, DigestAlgorithm, Sha256Digest};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::Corruption;

/// Bytes on their way, counted and hashed.
pub(crate) struct Verifier {
    expected: Digest,
    size: u64,
    received: u64,
    hash: Hash,
}

#[derive(Clone)]
enum Hash {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hash {
    fn of(digest: &Digest) -> Result<Self, Corruption> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Ok(Self::Sha256(Sha256::new())),
            DigestAlgorithm::Sha512 => Ok(Self::Sha512(Sha512::new())),
            _ => Err(Corruption::Algorithm(digest.to_string())),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha256(hash) => format!("sha256:{}", hex(&hash.finalize())),
            Self::Sha512(hash) => format!("sha512:{}", hex(&hash.finalize())),
        }
    }
}

impl Verifier {
    /// # Errors
    /// The digest is of an algorithm that nobody here computes.
    pub(crate) fn new(descriptor: &Descriptor) -> Result<Self, Corruption> {
        Ok(Self {
            expected: descriptor.digest().clone(),
            size: descriptor.size(),
            received: 0,
            hash: Hash::of(descriptor.digest())?,
        })
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Forgets all bytes so far.
    pub(crate) fn restart(&mut self) -> Result<(), Corruption> {
        self.hash = Hash::of(&self.expected)?;
        self.received = 0;
        Ok(())
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// There are more than were promised. None of these bytes count.
    pub(crate) fn update(&mut self, bytes: &[u8]) -> Result<(), Corruption> {
        let received = self.received + bytes.len() as u64;
        if received > self.size {
            return Err(Corruption::Longer(self.size));
        }
        self.hash.update(bytes);
        self.received = received;
        Ok(())
    }

    /// Whether no byte is missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.received == self.size
    }

    /// # Errors
    /// The bytes are not those that were promised.
    pub(crate) fn finish(&self) -> Result<(), Corruption> {
        if !self.is_whole() {
            return Err(Corruption::Shorter {
                expected: self.size,
                found: self.received,
            });
        }
        let found = self.hash.clone().finish();
        match found == self.expected.as_ref() {
            true => Ok(()),
            false => Err(Corruption::Digest {
                expected: self.expected.to_string(),
                found,
            }),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("expected", &self.expected)
            .field("size", &self.size)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

/// Checks bytes that are whole in memory.
pub(crate) fn check(bytes: &[u8], expected: &Digest) -> Result<(), Corruption> {
    let mut hash = Hash::of(expected)?;
    hash.update(bytes);
    let found = hash.finish();
    match found == expected.as_ref() {
        true => Ok(()),
        false => Err(Corruption::Digest {
            expected: expected.to_string(),
            found,
        }),
    }
}

/// The SHA-256 digest of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    from_sha256(Sha256::new_with_prefix(bytes))
}

/// The digest that a finished hash gives.
pub(crate) fn from_sha256(hash: Sha256) -> Digest {
    let text = hex(&hash.finalize());
    text.parse::<Sha256Digest>()
        .expect("a SHA-256 hash is 64 hexadecimal digits")
        .into()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let pairs = bytes.iter();
    pairs
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::MediaType;

    fn verifier(bytes: &[u8]) -> Verifier {
        let descriptor = Descriptor::new(MediaType::ImageLayer, bytes.len() as u64, sha256(bytes));
        Verifier::new(&descriptor).unwrap()
    }

    #[test]
    fn only_the_promised_bytes_are_good() {
        let mut good = verifier(b"abcd");
        good.update(b"ab").unwrap();
        assert!(matches!(good.update(b"cde"), Err(Corruption::Longer(4))));
        good.update(b"cd").unwrap();
        good.finish().unwrap();

        let mut short = verifier(b"abcd");
        short.update(b"abc").unwrap();
        assert!(matches!(short.finish(), Err(Corruption::Shorter { .. })));

        let mut other = verifier(b"abcd");
        other.update(b"abce").unwrap();
        assert!(matches!(other.finish(), Err(Corruption::Digest { .. })));
    }

    #[test]
    fn a_restart_forgets() {
        let mut verifier = verifier(b"abcd");
        verifier.update(b"xx").unwrap();
        verifier.restart().unwrap();
        verifier.update(b"abcd").unwrap();
        verifier.finish().unwrap();
    }

    #[test]
    fn weak_algorithms_are_not_taken() {
        let digest: Digest = "md5:0123456789abcdef0123456789abcdef".parse().unwrap();
        assert!(matches!(check(b"", &digest), Err(Corruption::Algorithm(_))));
    }
}
