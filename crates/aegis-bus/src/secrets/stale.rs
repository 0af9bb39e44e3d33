//! Who still uses the older value of a secret.

use crate::dict::{Dict, DictError, DictReader, put};
use crate::instance::StaleSecret;

/// An instance of which somebody has older values than there are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaleUser {
    pub instance: String,
    pub secrets: Vec<StaleSecret>,
    /// Its guest is no VM at this moment but a machine on the disk.
    pub hibernated: bool,
    /// It lives for one command, and nothing of it is started anew.
    pub ephemeral: bool,
}

impl StaleUser {
    /// The answer as it travels.
    pub fn to_dict(&self) -> Dict {
        let secrets: Vec<Dict> = self.secrets.iter().map(StaleSecret::to_dict).collect();
        let mut dict = Dict::new();
        put(&mut dict, "instance", self.instance.as_str());
        put(&mut dict, "secrets", secrets);
        put(&mut dict, "hibernated", self.hibernated);
        put(&mut dict, "ephemeral", self.ephemeral);
        dict
    }

    /// Reads an answer; what a newer aegisd adds is left out.
    ///
    /// # Errors
    /// A field is missing or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("field of a stale user", dict);
        let secrets: Vec<Dict> = reader.require("secrets")?;
        Ok(Self {
            instance: reader.require("instance")?,
            secrets: secrets
                .into_iter()
                .map(StaleSecret::from_dict)
                .collect::<Result<_, _>>()?,
            hibernated: reader.require("hibernated")?,
            ephemeral: reader.require("ephemeral")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_travel_whole() {
        let user = StaleUser {
            instance: "web".into(),
            secrets: vec![StaleSecret {
                name: "KEY".into(),
                guest: true,
                ..StaleSecret::default()
            }],
            hibernated: true,
            ephemeral: false,
        };
        assert_eq!(StaleUser::from_dict(user.to_dict()).unwrap(), user);
    }
}
