//! The one credential of every VM and daemon unit: the secrets of its instance, and for
//! the VM the key that its snapshots are sealed with.
//!
//! The service manager asks aegisd for it at each start of a unit and puts it into
//! memory that only the unit sees (systemd.exec(5), `LoadCredential=`); where it does not
//! do that, as launchd, the unit's own program asks. aegisd
//! ends the connection after it; so a text that is not whole is one that aegisd
//! did not live to finish.

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::secret::SecretEnv;
use crate::snapshot::SnapshotKey;

/// The credential's name, the same for every unit.
pub const NAME: &str = "aegis";

/// What aegisd answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Variables for the instance's command, its exec sessions and its daemons.
    #[serde(default)]
    pub env: SecretEnv,
    /// What the VM's snapshots are sealed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_key: Option<SnapshotKey>,
    /// Why there are none, though there should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// Why a credential cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The text is not repeated: it may hold parts of values.
    #[error(
        "the credential '{NAME}' is not whole; the service manager asks for it anew at the next start"
    )]
    Broken,
    #[error("the secrets of the instance cannot be had: {0}")]
    Fault(Fault),
}

impl Credential {
    /// Reads the text of a credential.
    ///
    /// # Errors
    /// It is not whole.
    pub fn read(text: &[u8]) -> Result<Self, CredentialError> {
        serde_json::from_slice(text).map_err(|_| CredentialError::Broken)
    }

    /// The variables.
    ///
    /// # Errors
    /// aegisd said why there are none.
    pub fn into_env(self) -> Result<SecretEnv, CredentialError> {
        match self.fault {
            Some(fault) => Err(CredentialError::Fault(fault)),
            None => Ok(self.env),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Symbol;

    #[test]
    fn a_credential_is_read_whole_or_not_at_all() {
        let credential = Credential {
            env: [("A".to_owned(), "b".to_owned().into())].into(),
            snapshot_key: Some(SnapshotKey::new([7; SnapshotKey::LENGTH])),
            fault: None,
        };
        let text = serde_json::to_vec(&credential).unwrap();
        assert_eq!(Credential::read(&text).unwrap(), credential);
        for length in 0..text.len() {
            let broken = Credential::read(&text[..length]);
            assert!(matches!(broken, Err(CredentialError::Broken)));
        }
    }

    #[test]
    fn a_fault_is_told() {
        let credential = Credential {
            fault: Some(Fault::new(Symbol::SecretNotFound, "there is no secret 'A'")),
            ..Default::default()
        };
        let text = serde_json::to_vec(&credential).unwrap();
        let error = Credential::read(&text).unwrap().into_env().unwrap_err();
        assert!(error.to_string().ends_with("there is no secret 'A'"));
    }
}
