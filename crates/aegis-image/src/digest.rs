//! Digests: what they are, and checking bytes against the digest and size that
//! somebody promised.
//!
//! The digests of documents are those of oci-spec, which may name algorithms that
//! nobody here computes; from the store on they are [`Digest`]s.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::Descriptor;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::Corruption;

/// The least digits of an image's identity that are taken for the beginning of one.
const FEWEST_DIGITS: usize = 6;

/// A digest of SHA-256 or SHA-512, `ALGORITHM:DIGITS` (OCI image-spec descriptor.md,
/// "Digests").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// How a digest is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

/// A text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a digest: 'sha256:' and 64, or 'sha512:' and 128, of 0-9 and a-f")]
pub struct DigestError(String);

impl Digest {
    fn split(text: &str) -> Option<(Algorithm, &str)> {
        let (algorithm, digits) = text.split_once(':')?;
        let (algorithm, length) = match algorithm {
            "sha256" => (Algorithm::Sha256, 64),
            "sha512" => (Algorithm::Sha512, 128),
            _ => return None,
        };
        let is_good = digits.len() == length && is_lower_hex(digits);
        is_good.then_some((algorithm, digits))
    }

    fn parts(&self) -> (Algorithm, &str) {
        Self::split(&self.0).expect("it was split when it was made")
    }

    pub fn algorithm(&self) -> Algorithm {
        self.parts().0
    }

    /// The hexadecimal digits.
    pub fn digits(&self) -> &str {
        self.parts().1
    }

    /// The first twelve digits, which people tell images apart by.
    pub fn short(&self) -> &str {
        &self.digits()[..12]
    }

    /// # Errors
    /// It is of an algorithm that nobody here computes.
    pub(crate) fn of(digest: &oci_spec::image::Digest) -> Result<Self, Corruption> {
        let known = digest.as_ref().parse();
        known.map_err(|_| Corruption::Algorithm(digest.to_string()))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match Self::split(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(DigestError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl From<&Digest> for oci_spec::image::Digest {
    fn from(digest: &Digest) -> Self {
        let text = digest.0.parse();
        text.expect("every digest of ours is one of image-spec")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The digits, where a text can be the beginning of an image's identity: at least six
/// hexadecimal digits, with or without `sha256:`.
pub fn beginning(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_one = (FEWEST_DIGITS..=64).contains(&digits.len()) && is_lower_hex(digits);
    is_one.then_some(digits)
}

pub(crate) fn is_lower_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A digest that is being computed.
#[derive(Clone)]
pub(crate) enum Hash {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hash {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(match self {
            Self::Sha256(hash) => format!("sha256:{}", hex(&hash.finalize())),
            Self::Sha512(hash) => format!("sha512:{}", hex(&hash.finalize())),
        })
    }
}

/// Bytes on their way, counted and hashed.
pub(crate) struct Verifier {
    expected: Digest,
    size: u64,
    received: u64,
    hash: Hash,
}

impl Verifier {
    /// # Errors
    /// The digest is of an algorithm that nobody here computes.
    pub(crate) fn new(descriptor: &Descriptor) -> Result<Self, Corruption> {
        let expected = Digest::of(descriptor.digest())?;
        Ok(Self {
            hash: Hash::new(expected.algorithm()),
            expected,
            size: descriptor.size(),
            received: 0,
        })
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Forgets all bytes so far.
    pub(crate) fn restart(&mut self) {
        self.hash = Hash::new(self.expected.algorithm());
        self.received = 0;
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
        compare(self.hash.clone(), &self.expected)
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
    let mut hash = Hash::new(expected.algorithm());
    hash.update(bytes);
    compare(hash, expected)
}

fn compare(hash: Hash, expected: &Digest) -> Result<(), Corruption> {
    let found = hash.finish();
    match found == *expected {
        true => Ok(()),
        false => Err(Corruption::Digest {
            expected: expected.to_string(),
            found: found.to_string(),
        }),
    }
}

/// The SHA-256 digest of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut hash = Hash::new(Algorithm::Sha256);
    hash.update(bytes);
    hash.finish()
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
        let descriptor = Descriptor::new(MediaType::ImageLayer, bytes.len() as u64, &sha256(bytes));
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
        verifier.restart();
        verifier.update(b"abcd").unwrap();
        verifier.finish().unwrap();
    }

    #[test]
    fn weak_algorithms_are_not_taken() {
        let digest: oci_spec::image::Digest =
            "md5:0123456789abcdef0123456789abcdef".parse().unwrap();
        assert!(matches!(Digest::of(&digest), Err(Corruption::Algorithm(_))));
    }

    #[test]
    fn digests_are_whole_and_of_strong_algorithms() {
        let (short, long) = ("a1".repeat(32), "b2".repeat(64));
        let digest: Digest = format!("sha256:{short}").parse().unwrap();
        assert_eq!(digest.algorithm(), Algorithm::Sha256);
        assert_eq!((digest.digits(), digest.short()), (&*short, "a1a1a1a1a1a1"));
        let digest: Digest = format!("sha512:{long}").parse().unwrap();
        assert_eq!(digest.algorithm(), Algorithm::Sha512);
        for text in [
            short.clone(),
            format!("sha256:{long}"),
            format!("sha256:{}", short.to_uppercase()),
            format!("md5:{}", &short[..32]),
            "sha256:".to_owned(),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn six_digits_begin_an_identity() {
        assert_eq!(beginning("abc123"), Some("abc123"));
        assert_eq!(beginning("sha256:abc123"), Some("abc123"));
        for text in ["abc12", "abcxyz", "ABC123", "sha512:abc123", ""] {
            assert_eq!(beginning(text), None, "{text}");
        }
    }
}
