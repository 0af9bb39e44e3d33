//! `version`: of this program, and of aegisd where it runs.

use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;

/// The version of this program.
pub(super) const OWN: &str = env!("CARGO_PKG_VERSION");

/// Show the versions of aegisctl and, if it runs, aegisd
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) async fn execute(context: &Context, Args {}: Args) -> Result<u8, Failure> {
    // A machine without a bus or a service manager can still be asked for this.
    let aegisd = of_aegisd(context).await.unwrap_or_default();
    context.ui.data(
        || json!({"aegisctl": OWN, "aegisd": aegisd}),
        || match &aegisd {
            Some(aegisd) => format!("aegisctl {OWN}\naegisd {aegisd}"),
            None => format!("aegisctl {OWN}\naegisd is not running"),
        },
    )?;
    Ok(exit_code::OK)
}

async fn of_aegisd(context: &Context) -> Result<Option<String>, Failure> {
    let client = context.client().await?;
    if !client.is_running().await? {
        return Ok(None);
    }
    let version = client.manager().await?.version().await;
    version
        .map(Some)
        .map_err(Failure::call("ask aegisd for its version"))
}
