//! What an instance is to have and nobody gives: all of it in one message.

use std::fmt;

use aegis_core::fault::{Fault, Symbol};

/// Secrets that are not there, and variables that a kit needs and that have no value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanting {
    pub secrets: Vec<String>,
    pub variables: Vec<String>,
}

impl Wanting {
    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.variables.is_empty()
    }

    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        let sets = self.secrets.iter();
        let sets = sets.map(|name| format!("aegisctl secret set {name}"));
        let gives = self.variables.iter().map(|name| format!("--env {name}"));
        let (sets, gives): (Vec<String>, Vec<String>) = (sets.collect(), gives.collect());
        let them = |names: &[String]| if names.len() == 1 { "it" } else { "them" };
        let mut hints = Vec::new();
        if !sets.is_empty() {
            hints.push(format!("set {}: {}", them(&sets), sets.join(", ")));
        }
        if !gives.is_empty() {
            hints.push(format!("give {}: {}", them(&gives), gives.join(" ")));
        }
        Fault::from_error(Symbol::SecretNotFound, self).with_hint(hints.join("; "))
    }
}

impl fmt::Display for Wanting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.secrets.as_slice() {
            [] => {}
            [name] => write!(f, "there is no secret '{name}'")?,
            names => write!(f, "there are no secrets '{}'", names.join("', '"))?,
        }
        if !self.secrets.is_empty() && !self.variables.is_empty() {
            f.write_str(", and ")?;
        }
        match self.variables.as_slice() {
            [] => Ok(()),
            [name] => write!(f, "the kit needs the variable '{name}'"),
            names => write!(f, "the kit needs the variables '{}'", names.join("', '")),
        }
    }
}

impl std::error::Error for Wanting {}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanting(secrets: &[&str], variables: &[&str]) -> Wanting {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Wanting {
            secrets: owned(secrets),
            variables: owned(variables),
        }
    }

    #[test]
    fn all_of_it_is_told_with_what_to_do() {
        assert!(wanting(&[], &[]).is_empty());
        for (wanting, words, hint) in [
            (
                wanting(&["A"], &[]),
                "there is no secret 'A'",
                "set it: aegisctl secret set A",
            ),
            (
                wanting(&["A", "B"], &["C"]),
                "there are no secrets 'A', 'B', and the kit needs the variable 'C'",
                "set them: aegisctl secret set A, aegisctl secret set B; give it: --env C",
            ),
            (
                wanting(&[], &["C", "D"]),
                "the kit needs the variables 'C', 'D'",
                "give them: --env C --env D",
            ),
        ] {
            let fault = wanting.fault();
            assert_eq!(fault.message, words);
            assert_eq!(fault.hint.as_deref(), Some(hint));
        }
    }
}
