//! `secret delete`.

use aegis_bus::secrets::DeleteSecretOptions;
use aegis_core::secret::SecretName;
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;

/// Forget a secret
///
/// One that an instance uses stays, unless forced.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm")]
pub(crate) struct Args {
    /// The secret
    name: SecretName,
    /// Even if instances use it; their next start fails
    #[arg(short, long)]
    force: bool,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = args.name.as_str();
    let progress = context.ui.progress("Deleting the secret");
    let delete = async {
        let client = context.aegisd().await?;
        let options = DeleteSecretOptions { force: args.force };
        let secrets = client.secrets_proxy().await?;
        let deleted = secrets.delete(name, &options.to_dict()).await;
        deleted.map_err(Failure::call(format!("delete the secret '{name}'")))
    };
    let users = progress.during(delete).await?;
    context.ui.data(
        || json!({"outcome": "deleted", "name": name, "used_by": users}),
        || format!("Secret deleted: {name}\n"),
    )?;
    if !users.is_empty() {
        let users = users.join(", ");
        context
            .ui
            .note(&format!("note: these cannot start without it: {users}"));
    }
    Ok(exit_code::OK)
}
