//! The record that the journal has of every use of a secret: aegisd writes it,
//! `secret log` reads it. It never has a value.

/// Marks the record (systemd.journal-fields(7), `MESSAGE_ID`).
pub const USED: &str = "f3831fd1489b49b0919a74638d9d57fd";

/// The target of the log that these records have, and nothing else.
pub const TARGET: &str = "aegis::audit";

/// The secret's name; of an instance's own value the variable's.
pub const SECRET: &str = "AEGIS_SECRET";
/// The instance whose own the value is. Missing of a named secret.
pub const OWNER: &str = "AEGIS_SECRET_OWNER";
/// The variable that was given the value.
pub const VARIABLE: &str = "AEGIS_VARIABLE";
/// The instance that the value was for.
pub const INSTANCE: &str = "AEGIS_INSTANCE";
/// The unit that was given it.
pub const UNIT: &str = "AEGIS_UNIT";
/// What for: [`Purpose::word`].
pub const PURPOSE: &str = "AEGIS_PURPOSE";
/// The user who asked for it, where the bus tells.
pub const CALLER: &str = "AEGIS_CALLER_UID";

/// What a secret was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The start of a unit.
    Start,
    /// A command in the guest.
    Exec,
}

impl Purpose {
    /// The word of a record.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Exec => "exec",
        }
    }
}
