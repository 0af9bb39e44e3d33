//! Faults as D-Bus errors and back.
//!
//! The error's name is [`ERROR_PREFIX`] and the symbol; its message is the
//! fault's message and, on a line of its own, `hint: ` and the hint.

use std::io::ErrorKind;

use aegis_core::fault::{Fault, Symbol};
use zbus::message::Header;
use zbus::names::ErrorName;
use zbus::{DBusError, Message, fdo};

use crate::names::ERROR_PREFIX;

/// A fault as the error of a D-Bus method. Methods of aegisd return it.
#[derive(Debug)]
pub struct BusFault {
    name: String,
    text: String,
}

impl From<Fault> for BusFault {
    fn from(fault: Fault) -> Self {
        Self {
            name: error_name(fault.symbol),
            text: to_text(&fault),
        }
    }
}

impl DBusError for BusFault {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(self.text.as_str(),))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_str_unchecked(&self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

/// Why a call to aegisd brought no answer of its own.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// aegisd answered with a fault.
    #[error(transparent)]
    Fault(Fault),
    #[error("aegisd is not installed: the bus knows no service org.aegisvm.Aegis1")]
    NotInstalled,
    #[error("aegisd could not be started: {0}")]
    NotStarted(String),
    #[error("this user may not talk to aegisd")]
    Denied,
    #[error("aegisd ended before it answered")]
    Vanished,
    /// It runs, or the bus could not say that it does not.
    #[error("aegisd did not answer in time")]
    Silent,
    #[error("the D-Bus call failed")]
    Bus(#[source] zbus::Error),
}

impl From<zbus::Error> for CallError {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) if symbol_of(name.as_str()).is_some() => {
                Self::Fault(to_fault(name.as_str(), &text.unwrap_or_default()))
            }
            zbus::Error::MethodError(name, text, _)
                if name
                    .as_str()
                    .starts_with("org.freedesktop.DBus.Error.Spawn.")
                    || name.as_str().starts_with("org.freedesktop.systemd1.") =>
            {
                Self::NotStarted(text.unwrap_or_else(|| name.to_string()))
            }
            zbus::Error::FDO(error) => Self::from_fdo(*error),
            // The connection's own limit for a call.
            zbus::Error::InputOutput(error) if error.kind() == ErrorKind::TimedOut => Self::Silent,
            other => Self::Bus(other),
        }
    }
}

impl From<fdo::Error> for CallError {
    fn from(error: fdo::Error) -> Self {
        Self::from_fdo(error)
    }
}

impl CallError {
    fn from_fdo(error: fdo::Error) -> Self {
        match error {
            fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) => Self::NotInstalled,
            fdo::Error::SpawnExecFailed(text)
            | fdo::Error::SpawnChildExited(text)
            | fdo::Error::SpawnFailed(text)
            | fdo::Error::SpawnServiceNotFound(text)
            | fdo::Error::TimedOut(text) => Self::NotStarted(text),
            fdo::Error::AccessDenied(_) => Self::Denied,
            fdo::Error::NoReply(_) | fdo::Error::Disconnected(_) => Self::Vanished,
            fdo::Error::UnknownObject(text) => Self::Fault(Fault::new(Symbol::NotFound, text)),
            other => Self::Bus(zbus::Error::FDO(Box::new(other))),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Fault(fault) => fault.hint.as_deref(),
            Self::NotInstalled => {
                Some("install the aegisvm package, or check that its D-Bus service file is there")
            }
            Self::NotStarted(_) => Some("journalctl -u aegisd says why (--user in user mode)"),
            Self::Denied => Some("be root, or be in the group aegis, or use --user"),
            Self::Vanished => Some("the service manager starts it again: try again"),
            Self::Silent => Some("journalctl -u aegisd says what it does (--user in user mode)"),
            Self::Bus(_) => None,
        }
    }
}

/// The D-Bus error name of a symbol.
pub fn error_name(symbol: Symbol) -> String {
    format!("{ERROR_PREFIX}{}", symbol.name())
}

/// The symbol of a D-Bus error name; `None` if it is not ours. A symbol that only
/// a newer aegisd knows is [`Symbol::Internal`].
pub fn symbol_of(name: &str) -> Option<Symbol> {
    let symbol = name.strip_prefix(ERROR_PREFIX)?;
    let known = Symbol::ALL.iter().find(|known| known.name() == symbol);
    Some(known.copied().unwrap_or(Symbol::Internal))
}

/// A fault from an error's name and text.
pub fn to_fault(name: &str, text: &str) -> Fault {
    let symbol = symbol_of(name).unwrap_or(Symbol::Internal);
    match text.split_once("\nhint: ") {
        Some((message, hint)) => Fault::new(symbol, message).with_hint(hint),
        None => Fault::new(symbol, text),
    }
}

fn to_text(fault: &Fault) -> String {
    match &fault.hint {
        Some(hint) => format!("{}\nhint: {hint}", fault.message),
        None => fault.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_crosses_the_bus_whole() {
        for fault in [
            Fault::new(Symbol::NotFound, "there is no instance 'a'"),
            Fault::new(Symbol::NoSpace, "the disk is full").with_hint("delete something"),
        ] {
            let bus = BusFault::from(fault.clone());
            assert_eq!(
                to_fault(bus.name().as_str(), bus.description().unwrap()),
                fault
            );
        }
    }

    #[test]
    fn every_symbol_makes_a_valid_error_name() {
        for &symbol in Symbol::ALL {
            let name = error_name(symbol);
            assert!(ErrorName::try_from(name.as_str()).is_ok(), "{name}");
            assert_eq!(symbol_of(&name), Some(symbol));
        }
    }

    #[test]
    fn symbols_of_tomorrow_are_not_lost() {
        assert_eq!(
            symbol_of("org.aegisvm.Aegis1.Error.Tomorrow"),
            Some(Symbol::Internal)
        );
        assert_eq!(symbol_of("org.freedesktop.DBus.Error.Failed"), None);
    }
}
