//! `secret set`: a value from a prompt, from stdin or from a file; never from the
//! command line, which every user of the host can read.

use std::path::PathBuf;

use aegis_bus::dict::Dict;
use aegis_core::secret::SecretName;
use serde_json::json;
use zbus::Fd;
use zeroize::Zeroizing;

use super::apply;
use crate::cli::Context;
use crate::environment::passed;
use crate::exit_code;
use crate::failure::Failure;
use crate::session::Signals;
use crate::typed;

/// Keep a value under a name
///
/// The value is asked for on a terminal, else read from stdin. One newline at its
/// end is not part of it. Daemons that use it have the new value from their next start
/// on, and so has the guest; with --apply what runs with another value is listed and
/// started anew.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The secret's name, e.g. OPENAI_API_KEY
    name: SecretName,
    /// Read the value from this file; - is stdin
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// List the daemons and guests that have an older value, and start them anew
    #[arg(long)]
    apply: bool,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = args.name.as_str();
    let prompt = format!("Value of {name}: ");
    let mut signals = Signals::catch()?;
    let value = tokio::select! {
        biased;
        signal = signals.next_end() => return Ok(exit_code::of_signal(signal as i32)),
        value = typed::value(&prompt, args.from_file.as_deref()) => value?,
    };
    let progress = context.ui.progress("Keeping the secret");
    let set = async {
        let client = context.aegisd().await?;
        let bytes = Zeroizing::new(value.reveal().as_bytes().to_vec());
        let passed = passed(bytes)?;
        let secrets = client.secrets_proxy().await?;
        secrets
            .set(name, Fd::from(&passed), &Dict::new())
            .await
            .map_err(Failure::call(format!("keep the secret '{name}'")))?;
        let secrets = client.secrets().await?;
        Ok::<_, Failure>((client, secrets))
    };
    let (client, secrets) = progress.during(set).await?;
    let used_by = secrets
        .into_iter()
        .find(|secret| secret.name == name)
        .map(|secret| secret.used_by)
        .unwrap_or_default();
    let names = [name.to_owned()];
    let outcome = apply::apply(context, &client, &names, args.apply).await?;
    context.ui.data(
        || outcome.add_to(json!({"outcome": "set", "name": name, "used_by": used_by})),
        || format!("Secret set: {name}\n"),
    )?;
    outcome.tell(context.ui, &format!("aegisctl secret set {name} --apply"));
    if !used_by.is_empty() && !outcome.is_stale() && !args.apply {
        let users = used_by.join(", ");
        context
            .ui
            .note(&format!("note: used from the next start on by {users}"));
    }
    outcome.into_result()?;
    Ok(exit_code::OK)
}
