//! `instance disable`: off until it is enabled.

use aegis_bus::job::JobState;

use super::{outcome_of, report};
use crate::cli::Context;
use crate::failure::Failure;
use crate::job;

/// Turn an instance off until it is enabled again
///
/// Its VM and its daemons end, its ports and its control socket are closed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let progress = context.ui.progress(&format!("Disabling '{name}'"));
    let disable = async {
        let what = format!("disable '{name}'");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let call = async || instance.disable().await;
        job::perform(&client, &what, &progress, call).await
    };
    let state = progress.during(disable).await?;
    report(context, name, outcome_of(state), || {
        if state == JobState::Unchanged {
            format!("Instance {name} is disabled already")
        } else {
            format!(
                "Instance {name} disabled: it stays off until `aegisctl instance enable {name}`"
            )
        }
    })
}
