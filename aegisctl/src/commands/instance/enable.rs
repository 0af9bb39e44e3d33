//! `instance enable`: the ports listen and the daemons run.

use aegis_bus::job::JobState;

use super::{outcome_of, report};
use crate::cli::Context;
use crate::failure::Failure;
use crate::job;

/// Let an instance listen on its ports and run its daemons again
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let progress = context.ui.progress(&format!("Enabling '{name}'"));
    let enable = async {
        let what = format!("enable '{name}'");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let call = async || instance.enable().await;
        job::perform(&client, &what, &progress, call).await
    };
    let state = progress.during(enable).await?;
    report(context, name, outcome_of(state), || {
        if state == JobState::Unchanged {
            format!("Instance {name} is enabled already")
        } else {
            format!("Instance {name} enabled: its ports listen and the next use wakes it")
        }
    })
}
