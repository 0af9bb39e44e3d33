//! `instance pause`.

use aegis_bus::dict::Dict;

use super::report;
use crate::cli::Context;
use crate::failure::Failure;

/// Stop the virtual CPUs of an instance; memory is kept
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let progress = context.ui.progress(&format!("Pausing '{name}'"));
    let pause = async {
        let what = format!("pause '{name}'");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let outcome = instance.pause(&Dict::new()).await;
        outcome.map_err(Failure::call(what))
    };
    let outcome = progress.during(pause).await?;
    report(context, name, &outcome, || {
        let verb = if outcome == "unchanged" {
            "is paused already"
        } else {
            "paused"
        };
        format!("Instance {name} {verb}")
    })
}
