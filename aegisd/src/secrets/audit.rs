//! The record of every use of a secret, for the journal: who was given which one.
//!
//! It is written before the value goes out, so that no use is without one, and with
//! fields of its own ([`aegis_core::audit`]), whatever of the log is filtered out.

use std::collections::BTreeMap;

use aegis_core::audit::{Purpose, TARGET, USED};
use aegis_core::handle::Handle;
use aegis_core::secret::SecretSource;

/// Who is given secrets.
#[derive(Clone, Debug)]
pub struct User<'a> {
    pub purpose: Purpose,
    pub instance: &'a Handle,
    pub unit: &'a str,
    /// Who asked for it, where the bus tells.
    pub caller: Option<u32>,
}

impl User<'_> {
    /// Records that each of these is used. A value that the caller passed for a command
    /// is no secret of ours.
    pub fn is_given(&self, sources: &BTreeMap<String, SecretSource>) {
        let instance = self.instance.as_str();
        for (variable, source) in sources {
            let (name, owner) = match source {
                SecretSource::Named(name) => (name.as_str(), None),
                SecretSource::Own if self.purpose == Purpose::Exec => continue,
                SecretSource::Own => (variable.as_str(), Some(instance)),
            };
            let what = match self.purpose {
                Purpose::Start => "at its start",
                Purpose::Exec => "for a command",
            };
            tracing::info!(
                target: TARGET,
                message_id = USED,
                aegis_secret = name,
                aegis_secret_owner = owner,
                aegis_variable = variable.as_str(),
                aegis_instance = instance,
                aegis_unit = self.unit,
                aegis_purpose = self.purpose.word(),
                aegis_caller_uid = self.caller,
                "{} was given the secret '{name}' {what}",
                self.unit
            );
        }
    }
}
