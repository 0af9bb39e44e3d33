//! `secret import`: the lines of a file of variables, as `--env-file` takes them, become
//! secrets.

use std::collections::BTreeMap;
use std::env::VarError;
use std::path::PathBuf;

use aegis_bus::secrets::ImportSecretsOptions;
use aegis_core::secret::{SecretEnv, SecretName, SecretText};
use serde_json::json;
use zbus::Fd;
use zeroize::Zeroizing;

use super::apply;
use crate::cli::Context;
use crate::environment::{self, passed};
use crate::exit_code;
use crate::failure::Failure;
use crate::flags::EnvFile;

/// Keep the values of a file of variables as secrets, all or none
///
/// The file is as --env-file takes it, a line KEY=VALUE or KEY for each; a KEY without a
/// value has the one of this environment. The last line of a name counts. The names are
/// printed, never the values.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file; - is stdin
    file: PathBuf,
    /// Set those too that are there already; instances have the new value from their next start on
    #[arg(long)]
    replace: bool,
    /// List the daemons and guests that have an older value, and start them anew
    #[arg(long)]
    apply: bool,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let file = EnvFile::read(&args.file)?;
    let values = values(&file, |name| std::env::var(name))?;
    let progress = context.ui.progress("Keeping the secrets");
    let import = async {
        let client = context.aegisd().await?;
        // All keys are strings, so this is JSON.
        let text = Zeroizing::new(serde_json::to_vec(&values).unwrap_or_default());
        let passed = passed(text)?;
        let options = ImportSecretsOptions {
            replace: args.replace,
        };
        let secrets = client.secrets_proxy().await?;
        let imported = secrets.import(Fd::from(&passed), &options.to_dict()).await;
        let names = imported.map_err(Failure::call("import the secrets"))?;
        Ok::<_, Failure>((client, names))
    };
    let (client, names) = progress.during(import).await?;
    let outcome = apply::apply(context, &client, &names, args.apply).await?;
    context.ui.data(
        || outcome.add_to(json!({"outcome": "imported", "names": names})),
        || names.iter().map(|name| format!("{name}\n")).collect(),
    )?;
    if names.is_empty() {
        context.ui.note("note: the file has no variables");
    }
    outcome.tell(context.ui, "import it again with --replace --apply");
    outcome.into_result()?;
    Ok(exit_code::OK)
}

/// The values of the lines; an error names the line and does not repeat it.
fn values(
    file: &EnvFile,
    here: impl Fn(&str) -> Result<String, VarError>,
) -> Result<SecretEnv, Failure> {
    let lines = file.variables().map_err(|failure| match failure {
        Failure::EnvLine { line, .. } => file.at(line, Failure::SecretLine),
        other => other,
    });
    let mut values = BTreeMap::new();
    for (line, text) in lines? {
        let (name, value) = value(text, &here).map_err(|failure| file.at(line, failure))?;
        values.insert(name.into(), value);
    }
    Ok(values)
}

fn value(
    text: &str,
    here: impl Fn(&str) -> Result<String, VarError>,
) -> Result<(SecretName, SecretText), Failure> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    let name: SecretName = key.parse().map_err(|_| Failure::SecretLine)?;
    let value: SecretText = match value {
        Some(value) if environment::is_reference(value) => {
            return Err(Failure::SecretReference(key.to_owned()));
        }
        Some(value) => value.to_owned().into(),
        None => here(key).map_err(|_| Failure::SecretUnset)?.into(),
    };
    value.check().map_err(Failure::SecretValue)?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SecretEnv, Failure> {
        let here = |name: &str| match name {
            "HERE" => Ok("from here".to_owned()),
            _ => Err(VarError::NotPresent),
        };
        values(&EnvFile::of("test", text), here)
    }

    #[test]
    fn every_line_is_a_secret_and_the_last_of_a_name_counts() {
        let values = read("# c\nA=1\n\nHERE\nB=x=y z\nA=2\n").unwrap();
        let values: Vec<_> = values
            .iter()
            .map(|(name, value)| (name.as_str(), value.reveal()))
            .collect();
        assert_eq!(values, [("A", "2"), ("B", "x=y z"), ("HERE", "from here")]);
    }

    #[test]
    fn what_cannot_be_a_secret_is_named_by_its_line() {
        for (text, words) in [
            (
                "A=1\nB=",
                "test, line 2: this cannot be a secret: the value is empty",
            ),
            ("TYPED", "test, line 1: there is no variable of this name"),
            (
                "A=secret.B",
                "test, line 1: the value of A is the name of a secret",
            ),
            ("ty/ped=1", "test, line 1: this is no line"),
            ("export TYPED=1", "test, line 1: this is no line"),
        ] {
            let message = read(text).unwrap_err().message();
            assert!(message.starts_with(words), "{message}");
            assert!(!message.to_lowercase().contains("typed"), "{message}");
        }
    }
}
