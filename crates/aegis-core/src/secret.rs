//! Secrets: their names, their values in memory, and where a variable of an
//! instance takes one from.
//!
//! A value is text that never shows itself: `Debug` hides it, it has no
//! `Display`, and its memory is overwritten when it is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Longest name in bytes: it stands in error messages and lists.
const MAX_NAME: usize = 128;
/// Longest value in bytes. Linux takes 128 KiB for one variable with its name
/// (execve(2), `MAX_ARG_STRLEN`); keys and certificates are far below half of it.
pub const MAX_VALUE: usize = 64 * 1024;
/// Most bytes of all secrets of an instance: one message of the guest link and one
/// credential of a unit hold them.
pub const MAX_ALL: usize = 256 * 1024;

/// The file in an instance's folder that is there once an exec brought secrets into its
/// guest. Its owner writes it before it passes them on, and it stays.
pub const GIVEN_MARK: &str = "given-secrets";

/// A value that does not show itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(Zeroizing<String>);

/// Variables with secret values, by name.
pub type SecretEnv = BTreeMap<String, SecretText>;

/// The name of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

/// Where a variable of an instance takes its secret value from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// The secret of that name, as it is at each start.
    Named(SecretName),
    /// A value of the instance's own, kept under the variable's name.
    Own,
}

/// How secret values reach what an instance's guest does with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Delivery {
    /// The guest has them, in the variables of its command.
    #[default]
    Guest,
}

/// Why a way of delivery is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The name is kept for values that stay on the host, which puts them into what the
    /// guest sends. Taken for `guest` it would hand a guest what it must not have.
    #[error("'proxy' cannot deliver secrets yet; 'guest' does, and lets the guest have the values")]
    Proxy,
    #[error("'{0}' is no way to deliver secrets; known are guest and, not to be had yet, proxy")]
    Unknown(String),
}

/// Why a secret is refused. Never holds the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error(
        "'{0}' is not the name of a secret: letters, digits, '_', '.' and '-', not beginning with '.' or '-', at most {MAX_NAME} of them"
    )]
    Name(String),
    #[error("the value is empty")]
    Empty,
    #[error("the value is longer than {MAX_VALUE} bytes")]
    TooLong,
    #[error("the value is not UTF-8 text")]
    Encoding,
    #[error("the value holds a NUL, which no environment variable can")]
    Nul,
}

impl FromStr for Delivery {
    type Err = DeliveryError;

    fn from_str(text: &str) -> Result<Self, DeliveryError> {
        match text {
            "guest" => Ok(Self::Guest),
            "proxy" => Err(DeliveryError::Proxy),
            other => Err(DeliveryError::Unknown(other.to_owned())),
        }
    }
}

impl TryFrom<String> for Delivery {
    type Error = DeliveryError;

    fn try_from(text: String) -> Result<Self, DeliveryError> {
        text.parse()
    }
}

impl From<Delivery> for String {
    fn from(delivery: Delivery) -> Self {
        delivery.to_string()
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest => f.write_str("guest"),
        }
    }
}

impl SecretText {
    /// A value as it came from a user: one newline at its end is not part of it.
    ///
    /// # Errors
    /// It cannot be the value of an environment variable, or is too long.
    pub fn read(bytes: Vec<u8>) -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new(bytes);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::Encoding)?;
        let value = Self(Zeroizing::new(text.to_owned()));
        value.check()?;
        Ok(value)
    }

    /// Checks a value that did not come through [`Self::read`].
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn check(&self) -> Result<(), SecretError> {
        match self.0.as_str() {
            "" => Err(SecretError::Empty),
            text if text.len() > MAX_VALUE => Err(SecretError::TooLong),
            text if text.contains('\0') => Err(SecretError::Nul),
            _ => Ok(()),
        }
    }

    /// The value itself, for who hands it on.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl SecretName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let bad = text.is_empty()
            || text.len() > MAX_NAME
            || text.starts_with(['.', '-'])
            || !text.chars().all(allowed);
        match bad {
            true => Err(SecretError::Name(text.to_owned())),
            false => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for SecretName {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_do_not_show_themselves() {
        let value = SecretText::read(b"hunter2\n".to_vec()).unwrap();
        assert_eq!(value.reveal(), "hunter2");
        assert!(!format!("{value:?}").contains("hunter2"));
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_a_value() {
        let read = |bytes: &[u8]| SecretText::read(bytes.to_vec());
        assert_eq!(read(b"a\r\n").unwrap().reveal(), "a");
        assert_eq!(read(b"a\n\n").unwrap().reveal(), "a\n");
        assert_eq!(read(b"\n"), Err(SecretError::Empty));
        assert_eq!(read(b"a\0b"), Err(SecretError::Nul));
        assert_eq!(read(b"\xff"), Err(SecretError::Encoding));
        assert_eq!(read(&vec![b'a'; MAX_VALUE + 1]), Err(SecretError::TooLong));
    }

    #[test]
    fn a_way_of_delivery_that_is_not_there_is_refused_by_name() {
        assert_eq!("guest".parse(), Ok(Delivery::Guest));
        assert_eq!("proxy".parse::<Delivery>(), Err(DeliveryError::Proxy));
        let stored = serde_json::from_str::<Delivery>(r#""proxy""#).unwrap_err();
        assert!(stored.to_string().contains("'proxy'"), "{stored}");
        let other = "host".parse::<Delivery>().unwrap_err();
        assert!(other.to_string().contains("'host'"), "{other}");
    }

    #[test]
    fn names_are_checked_wherever_they_come_from() {
        for text in ["OPENAI_API_KEY", "a.b-c", "7"] {
            assert_eq!(text.parse::<SecretName>().unwrap().as_str(), text);
        }
        for text in ["", ".a", "-a", "a b", "a/b", "ä", "a=b"] {
            assert!(text.parse::<SecretName>().is_err(), "{text:?}");
        }
        assert!(serde_json::from_str::<SecretSource>(r#"{"named":"../x"}"#).is_err());
    }
}
