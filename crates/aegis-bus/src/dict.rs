//! Reading and writing `a{sv}`, with errors that name the key.
//!
//! A request is read strictly: an unknown key is an error, since a client that
//! asked for something must not be left to believe it got it. A property is read
//! tolerantly: a newer aegisd may have more to tell.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use aegis_core::fault::{Fault, Symbol};
use zbus::{Fd, OwnedVariant, Structure, Type, Variant};

/// An `a{sv}`.
pub type Dict = HashMap<String, OwnedVariant>;

/// Why a dictionary is refused.
#[derive(Debug, thiserror::Error)]
pub enum DictError {
    #[error("there is no {what} '{key}'; known are {known}")]
    UnknownKey {
        what: &'static str,
        key: String,
        known: String,
    },
    #[error("the {what} '{key}' must be of the D-Bus type '{expected}', not '{found}'")]
    WrongType {
        what: &'static str,
        key: &'static str,
        expected: String,
        found: String,
    },
    #[error("the {what} '{key}' is missing")]
    Missing {
        what: &'static str,
        key: &'static str,
    },
    #[error("the {what} '{key}' is not acceptable")]
    Value {
        what: &'static str,
        key: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<DictError> for Fault {
    fn from(error: DictError) -> Self {
        Fault::from_error(Symbol::InvalidArgument, &error)
    }
}

/// Takes a descriptor out of a dictionary, before the rest of it is read.
///
/// # Errors
/// [`DictError::WrongType`].
pub fn take_descriptor(
    what: &'static str,
    entries: &mut Dict,
    key: &'static str,
) -> Result<Option<OwnedFd>, DictError> {
    let Some(value) = entries.remove(key) else {
        return Ok(None);
    };
    let found = value.value_signature().to_string();
    let descriptor = Fd::try_from(value).ok().and_then(|fd| match fd {
        Fd::Owned(fd) => Some(fd),
        Fd::Borrowed(fd) => fd.try_clone_to_owned().ok(),
    });
    descriptor.map(Some).ok_or_else(|| DictError::WrongType {
        what,
        key,
        expected: Fd::SIGNATURE.to_string(),
        found,
    })
}

/// Puts a descriptor into a dictionary.
///
/// # Errors
/// It cannot be duplicated.
pub fn put_descriptor(dict: &mut Dict, key: &str, descriptor: impl AsFd) -> zbus::Result<()> {
    let value = Variant::from(Fd::from(descriptor.as_fd())).try_into_owned()?;
    dict.insert(key.to_owned(), value);
    Ok(())
}

/// Takes the entries out of a dictionary one by one.
#[derive(Debug)]
pub struct DictReader {
    /// What an entry is called in messages, e.g. "spec key".
    what: &'static str,
    entries: Dict,
    asked: Vec<&'static str>,
}

impl DictReader {
    /// A reader; `what` names an entry in error messages.
    pub fn new(what: &'static str, entries: Dict) -> Self {
        Self {
            what,
            entries,
            asked: Vec::new(),
        }
    }

    /// The value of a key, if it is there.
    ///
    /// # Errors
    /// [`DictError::WrongType`].
    pub fn take<T>(&mut self, key: &'static str) -> Result<Option<T>, DictError>
    where
        T: Type + TryFrom<OwnedVariant>,
    {
        self.asked.push(key);
        let Some(value) = self.entries.remove(key) else {
            return Ok(None);
        };
        let found = value.value_signature().to_string();
        match T::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(DictError::WrongType {
                what: self.what,
                key,
                expected: T::SIGNATURE.to_string(),
                found,
            }),
        }
    }

    /// A pair of numbers, `(uu)`, if the key is there.
    ///
    /// # Errors
    /// [`DictError::WrongType`].
    pub fn take_pair(&mut self, key: &'static str) -> Result<Option<(u32, u32)>, DictError> {
        let what = self.what;
        self.asked.push(key);
        let Some(value) = self.entries.remove(key) else {
            return Ok(None);
        };
        let found = value.value_signature().to_string();
        let pair = Structure::try_from(value).and_then(<(u32, u32)>::try_from);
        pair.map(Some).map_err(|_| DictError::WrongType {
            what,
            key,
            expected: <(u32, u32)>::SIGNATURE.to_string(),
            found,
        })
    }

    /// The descriptor of a key, if it is there.
    ///
    /// # Errors
    /// [`DictError::WrongType`].
    pub fn take_descriptor(&mut self, key: &'static str) -> Result<Option<OwnedFd>, DictError> {
        self.asked.push(key);
        take_descriptor(self.what, &mut self.entries, key)
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    /// [`DictError::Missing`] or [`DictError::WrongType`].
    pub fn require<T>(&mut self, key: &'static str) -> Result<T, DictError>
    where
        T: Type + TryFrom<OwnedVariant>,
    {
        let what = self.what;
        self.take(key)?.ok_or(DictError::Missing { what, key })
    }

    /// The value of a key, parsed from a string.
    ///
    /// # Errors
    /// [`DictError::WrongType`], or [`DictError::Value`] with the parser's reason.
    pub fn parse<T>(&mut self, key: &'static str) -> Result<Option<T>, DictError>
    where
        T: std::str::FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let what = self.what;
        self.take::<String>(key)?
            .map(|text| text.parse())
            .transpose()
            .map_err(|source: T::Err| DictError::Value {
                what,
                key,
                source: source.into(),
            })
    }

    /// The values of a key, each parsed from a string; none if it is absent.
    ///
    /// # Errors
    /// [`DictError::WrongType`], or [`DictError::Value`] with the parser's reason.
    pub fn parse_all<T>(&mut self, key: &'static str) -> Result<Vec<T>, DictError>
    where
        T: std::str::FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let what = self.what;
        let texts: Vec<String> = self.take(key)?.unwrap_or_default();
        texts
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, T::Err>>()
            .map_err(|source| DictError::Value {
                what,
                key,
                source: source.into(),
            })
    }

    /// Ends a strict reading.
    ///
    /// # Errors
    /// [`DictError::UnknownKey`] if an entry was not asked for.
    pub fn finish(self) -> Result<(), DictError> {
        let Some(key) = self.entries.into_keys().min() else {
            return Ok(());
        };
        Err(DictError::UnknownKey {
            what: self.what,
            key,
            known: if self.asked.is_empty() {
                "none".to_owned()
            } else {
                self.asked.join(", ")
            },
        })
    }
}

/// Puts a value into a dictionary.
pub fn put<'a>(dict: &mut Dict, key: &str, value: impl Into<Variant<'a>>) {
    let value = value
        .into()
        .try_into_owned()
        // Only duplicating a descriptor can fail, and no dictionary of ours holds one.
        .expect("a value without descriptors can be owned");
    dict.insert(key.to_owned(), value);
}

/// Puts a value that is there into a dictionary.
pub fn put_some<'a, T: Into<Variant<'a>>>(dict: &mut Dict, key: &str, value: Option<T>) {
    if let Some(value) = value {
        put(dict, key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(pairs: &[(&str, Variant<'_>)]) -> DictReader {
        let mut dict = Dict::new();
        for (key, value) in pairs {
            put(&mut dict, key, value.try_clone().unwrap());
        }
        DictReader::new("option", dict)
    }

    #[test]
    fn wrong_types_are_named() {
        let mut reader = reader(&[("grace", Variant::from("5"))]);
        assert_eq!(
            reader.take::<u32>("grace").unwrap_err().to_string(),
            "the option 'grace' must be of the D-Bus type 'u', not 's'"
        );
    }

    #[test]
    fn unknown_keys_are_named_beside_the_known() {
        let mut reader = reader(&[("graze", Variant::from(5u32))]);
        assert_eq!(reader.take::<u32>("grace").unwrap(), None);
        let fault = Fault::from(reader.finish().unwrap_err());
        assert_eq!(fault.symbol, Symbol::InvalidArgument);
        assert_eq!(fault.message, "there is no option 'graze'; known are grace");
    }

    #[test]
    fn parsed_values_say_why_they_are_refused() {
        let mut reader = reader(&[("accel", Variant::from("warp"))]);
        let fault = Fault::from(
            reader
                .parse::<aegis_core::spec::Accel>("accel")
                .unwrap_err(),
        );
        assert_eq!(
            fault.message,
            "the option 'accel' is not acceptable: 'warp' is not an accelerator; known are auto, kvm, hvf and tcg"
        );
    }
}
