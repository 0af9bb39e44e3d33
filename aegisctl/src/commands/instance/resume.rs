//! `instance resume`.

use aegis_bus::dict::Dict;

use super::report;
use crate::cli::Context;
use crate::failure::Failure;

/// Let a paused instance run on
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let progress = context.ui.progress(&format!("Resuming '{name}'"));
    let resume = async {
        let what = format!("resume '{name}'");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let outcome = instance.resume(&Dict::new()).await;
        outcome.map_err(Failure::call(what))
    };
    let outcome = progress.during(resume).await?;
    report(context, name, &outcome, || {
        let verb = if outcome == "unchanged" {
            "runs already"
        } else {
            "resumed"
        };
        format!("Instance {name} {verb}")
    })
}
