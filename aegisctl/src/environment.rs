//! The variables of `--env`: given here, or secrets that aegisd knows or keeps.
//!
//! | typed | meaning |
//! |---|---|
//! | `KEY=VALUE` | this value, for everybody to see |
//! | `KEY=secret.NAME` | the secret NAME |
//! | `KEY` | the secret KEY; where there is none, the value of this environment |
//! | `*` | every secret, in the variable of its name |
//!
//! A value of this environment travels behind a descriptor, never in a message.

use std::collections::{BTreeMap, BTreeSet};
use std::env::VarError;
use std::io::{self, PipeReader, Write};

use aegis_bus::dict::Dict;
use aegis_bus::secrets::put_values;
use aegis_core::secret::{SecretEnv, SecretName, SecretSource};
use zeroize::Zeroizing;

use crate::cli::Context;
use crate::failure::Failure;

/// How a value says that it is the name of a secret.
const REFERENCE: &str = "secret.";

/// How a text says that it is about all secrets.
pub(crate) const ALL: &str = "*";

/// The variables of a command, by where their values come from.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) plain: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, SecretSource>,
    /// The values of those secrets that come from here.
    values: SecretEnv,
}

/// One `--env`.
#[derive(Debug, PartialEq, Eq)]
enum Variable {
    Plain(String),
    Named(SecretName),
    /// The secret of the variable's name, or else the value here.
    Found,
}

impl Environment {
    /// Finds out what the texts of `--env` mean. aegisd is asked only where it is
    /// about secrets that may or may not be there.
    pub(crate) async fn resolve(context: &Context, texts: &[String]) -> Result<Self, Failure> {
        let asks = |text: &String| text == ALL || !text.contains('=');
        let known = match texts.iter().any(asks) {
            true => names(context).await?,
            false => BTreeSet::new(),
        };
        Self::choose(texts, &known, |name| std::env::var(name))
    }

    fn choose(
        texts: &[String],
        known: &BTreeSet<String>,
        here: impl Fn(&str) -> Result<String, VarError>,
    ) -> Result<Self, Failure> {
        let mut environment = Self::default();
        // The last one of a name counts.
        let mut variables = BTreeMap::new();
        for text in texts {
            match text.as_str() {
                ALL => variables.extend(all(known)),
                text => variables.extend([parse(text)?]),
            }
        }
        let mut missing = Vec::new();
        for (key, variable) in variables {
            let source = match variable {
                Variable::Plain(value) => {
                    environment.plain.insert(key, value);
                    continue;
                }
                Variable::Named(name) => SecretSource::Named(name),
                Variable::Found => match key.parse::<SecretName>() {
                    Ok(name) if known.contains(name.as_str()) => SecretSource::Named(name),
                    _ => match here(&key) {
                        // An empty value hides nothing, and no secret is empty.
                        Ok(value) if value.is_empty() => {
                            environment.plain.insert(key, value);
                            continue;
                        }
                        Ok(value) => {
                            environment.values.insert(key.clone(), value.into());
                            SecretSource::Own
                        }
                        Err(VarError::NotPresent) => {
                            missing.push(key);
                            continue;
                        }
                        Err(VarError::NotUnicode(_)) => return Err(Failure::EnvEncoding(key)),
                    },
                },
            };
            environment.secrets.insert(key, source);
        }
        match missing.is_empty() {
            true => Ok(environment),
            false => Err(Failure::EnvMissing(missing)),
        }
    }

    /// Says which values were taken from this environment; `fate` says what becomes
    /// of them.
    pub(crate) fn note_values(&self, context: &Context, fate: &str) {
        let names: Vec<&str> = self.values.keys().map(String::as_str).collect();
        if names.is_empty() {
            return;
        }
        let (is, value) = match names.len() {
            1 => ("is no secret", "its value"),
            _ => ("are no secrets", "their values"),
        };
        let names = names.join(", ");
        context.ui.note(&format!(
            "note: {names} {is}: {value} of this environment {fate}"
        ));
    }

    /// Adds the values that come from here to what is sent.
    pub(crate) fn pass(&self, dict: &mut Dict) -> Result<(), Failure> {
        if self.values.is_empty() {
            return Ok(());
        }
        // All keys are strings, so this is JSON.
        let text = serde_json::to_vec(&self.values).unwrap_or_default();
        let passed = passed(Zeroizing::new(text))?;
        put_values(dict, passed).map_err(Failure::call("pass the values of the variables"))
    }
}

/// Variables that are to have the values typed for them.
///
/// # Errors
/// One is a secret, or may be.
pub(crate) fn plain(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let value = |text: &String| match parse(text)? {
        (key, Variable::Plain(value)) => Ok((key, value)),
        (key, _) => Err(Failure::SecretLater(key)),
    };
    texts.iter().map(value).collect()
}

/// Whether a value says the name of a secret.
pub(crate) fn is_reference(value: &str) -> bool {
    value.starts_with(REFERENCE)
}

/// The names of the secrets there are.
async fn names(context: &Context) -> Result<BTreeSet<String>, Failure> {
    let client = context.aegisd().await?;
    let secrets = client.secrets().await?;
    Ok(secrets.into_iter().map(|secret| secret.name).collect())
}

/// A pipe that bytes come out of.
pub(crate) fn passed(bytes: Zeroizing<Vec<u8>>) -> Result<PipeReader, Failure> {
    let failed = |source: io::Error| Failure::Io {
        what: "pass a value on",
        source,
    };
    let (reader, mut writer) = io::pipe().map_err(failed)?;
    // More than a pipe holds waits for its reader; who does not read gets no more.
    std::thread::Builder::new()
        .name("value".to_owned())
        .spawn(move || writer.write_all(&bytes).ok())
        .map_err(failed)?;
    Ok(reader)
}

/// Every secret, as the value of the variable of its name.
fn all(known: &BTreeSet<String>) -> impl Iterator<Item = (String, Variable)> {
    let named = |name: &String| Some((name.clone(), Variable::Named(name.parse().ok()?)));
    known.iter().filter_map(named)
}

fn parse(text: &str) -> Result<(String, Variable), Failure> {
    let Some((key, value)) = text.split_once('=') else {
        return Ok((text.to_owned(), Variable::Found));
    };
    let variable = match value.strip_prefix(REFERENCE) {
        Some(name) => Variable::Named(name.parse().map_err(Failure::SecretName)?),
        None => Variable::Plain(value.to_owned()),
    };
    Ok((key.to_owned(), variable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(
        texts: &[&str],
        known: &[&str],
        here: &[(&str, &str)],
    ) -> Result<Environment, Failure> {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let known = known.iter().map(|&name| name.to_owned()).collect();
        Environment::choose(&texts, &known, |name| {
            let found = here.iter().find(|(key, _)| *key == name);
            found
                .map(|(_, value)| (*value).to_owned())
                .ok_or(VarError::NotPresent)
        })
    }

    fn named(name: &str) -> SecretSource {
        SecretSource::Named(name.parse().unwrap())
    }

    #[test]
    fn a_variable_is_a_secret_before_it_is_one_of_here() {
        let texts = ["A", "B", "C=c", "D=secret.other", "E=", "F=a=b"];
        let found = choose(&texts, &["A"], &[("A", "x"), ("B", "b")]).unwrap();
        let plain = [("C", "c"), ("E", ""), ("F", "a=b")];
        let plain = plain.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(found.plain, plain.into());
        assert_eq!(found.secrets["A"], named("A"));
        assert_eq!(found.secrets["B"], SecretSource::Own);
        assert_eq!(found.secrets["D"], named("other"));
        let values: Vec<_> = found
            .values
            .iter()
            .map(|(key, value)| (key.as_str(), value.reveal()))
            .collect();
        assert_eq!(values, [("B", "b")]);
    }

    #[test]
    fn the_last_one_of_a_name_counts() {
        let found = choose(&["A=1", "A"], &["A"], &[]).unwrap();
        assert!(found.plain.is_empty() && found.secrets.contains_key("A"));
        let found = choose(&["A", "A=1"], &["A"], &[]).unwrap();
        assert!(found.secrets.is_empty() && found.plain.contains_key("A"));
    }

    #[test]
    fn a_star_is_every_secret() {
        let texts = ["B=secret.other", "*", "A=plain"];
        let found = choose(&texts, &["A", "B", "c"], &[]).unwrap();
        let secrets: Vec<_> = found.secrets.into_iter().collect();
        let expected = ["B", "c"].map(|name| (name.to_owned(), named(name)));
        assert_eq!(secrets, expected);
        assert_eq!(found.plain["A"], "plain");
        assert!(choose(&["*"], &[], &[]).unwrap().secrets.is_empty());
    }

    #[test]
    fn all_that_are_missing_are_named_at_once() {
        let failure = choose(&["A", "B", "C", "D=d"], &["B"], &[]).unwrap_err();
        assert_eq!(
            failure.message(),
            "there are no secrets A and C, and no variables of these names in this environment"
        );
        let hint = failure.hint().unwrap();
        assert!(hint.contains("aegisctl secret set A"), "{hint}");
        assert!(hint.contains("aegisctl secret set C"), "{hint}");
    }

    #[test]
    fn a_missing_one_names_the_command_that_sets_it() {
        let failure = choose(&["KEY"], &[], &[]).unwrap_err();
        assert_eq!(failure.exit_code(true), crate::exit_code::USAGE);
        assert_eq!(
            failure.message(),
            "there is no secret KEY, and no variable KEY in this environment"
        );
        let hint = failure.hint().unwrap();
        assert!(hint.contains("aegisctl secret set KEY"), "{hint}");
        let failure = choose(&["KEY=secret."], &[], &[]).unwrap_err();
        assert_eq!(failure.exit_code(false), crate::exit_code::USAGE);
    }
}
