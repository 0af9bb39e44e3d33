//! `secret list`.

use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::ui::{Table, Tone, age};

/// List the secrets, without their values
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls")]
pub(crate) struct Args {}

pub(super) async fn execute(context: &Context, Args {}: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let list = async { context.aegisd().await?.secrets().await };
    let secrets = progress.during(list).await?;
    context.ui.data(
        || {
            let entries = secrets.iter().map(|secret| {
                json!({
                    "name": secret.name,
                    "readable": secret.readable,
                    "updated_at_us": secret.updated_at_us,
                    "used_by": secret.used_by,
                })
            });
            json!({"secrets": entries.collect::<Vec<_>>()})
        },
        || {
            let mut table = Table::new(&["NAME", "VALUE", "SET", "USED BY"]);
            for secret in &secrets {
                let plain = |text: &str| (Tone::Plain, text.to_owned());
                let value = match secret.readable {
                    true => (Tone::Good, "kept".to_owned()),
                    false => (Tone::Bad, "lost, set it again".to_owned()),
                };
                table.row(vec![
                    plain(&secret.name),
                    value,
                    plain(&age(secret.updated_at_us)),
                    plain(&secret.used_by.join(", ")),
                ]);
            }
            table.render(context.ui)
        },
    )?;
    Ok(exit_code::OK)
}
