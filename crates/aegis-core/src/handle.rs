//! Handles: the names of instances.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest handle, in bytes: a host name label (RFC 1123) holds 63, and the
/// handle becomes the guest's host name.
pub const MAX_LEN: usize = 63;

/// The name of an instance: 1 to 63 of `[A-Za-z0-9._-]`, beginning and ending
/// with a letter or digit.
///
/// It appears in unit names, paths and the guest's host name, hence the narrow
/// alphabet; `:` is absent because it separates the handle from a daemon or a
/// port in unit names. Handles keep their case and are unique without regard to
/// it, since file systems may not tell case apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Handle(String);

/// Why a text is not a handle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    #[error("a handle must not be empty")]
    Empty,
    #[error("the handle '{0}' is longer than 63 bytes")]
    TooLong(String),
    #[error(
        "the handle '{handle}' holds {character:?}; letters, digits, '.', '_' and '-' are allowed"
    )]
    Character { handle: String, character: char },
    #[error("the handle '{0}' must begin and end with a letter or a digit")]
    Edge(String),
    #[error("the handle '{0}' ends in '.json', which is how kit manifests are named")]
    Manifest(String),
}

impl Handle {
    /// The handle as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form two handles are compared by: without regard to case.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl FromStr for Handle {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        if text.is_empty() {
            return Err(HandleError::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(HandleError::TooLong(text.to_owned()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(character) = text.chars().find(|&c| !allowed(c)) {
            return Err(HandleError::Character {
                handle: text.to_owned(),
                character,
            });
        }
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        if !edge(text.chars().next()) || !edge(text.chars().next_back()) {
            return Err(HandleError::Edge(text.to_owned()));
        }
        // ~/.aegis/kits holds manifests (NAME.json) beside the config folders of instances.
        if text.to_ascii_lowercase().ends_with(".json") {
            return Err(HandleError::Manifest(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Handle {
    type Error = HandleError;

    fn try_from(text: String) -> Result<Self, HandleError> {
        text.parse()
    }
}

impl From<Handle> for String {
    fn from(handle: Handle) -> Self {
        handle.0
    }
}

impl AsRef<str> for Handle {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_people_use() {
        for text in ["a", "my-agent", "web.1", "A_b", "0", &"x".repeat(63)] {
            assert_eq!(text.parse::<Handle>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        assert_eq!("".parse::<Handle>(), Err(HandleError::Empty));
        assert_eq!(
            "x".repeat(64).parse::<Handle>(),
            Err(HandleError::TooLong("x".repeat(64)))
        );
        for text in ["a:b", "a/b", "a b", "ä", "a\n", "a@b", "a\\b"] {
            assert!(
                matches!(text.parse::<Handle>(), Err(HandleError::Character { .. })),
                "{text:?}"
            );
        }
        for text in ["-a", "a-", ".", "..", ".a", "_"] {
            assert!(
                matches!(text.parse::<Handle>(), Err(HandleError::Edge(_))),
                "{text:?}"
            );
        }
        assert!(matches!(
            "agent.JSON".parse::<Handle>(),
            Err(HandleError::Manifest(_))
        ));
    }

    #[test]
    fn case_is_kept_and_folded_for_comparison() {
        let handle: Handle = "My-Agent".parse().unwrap();
        assert_eq!(handle.as_str(), "My-Agent");
        assert_eq!(handle.folded(), "my-agent");
    }
}
