//! `instance restart`: a fresh VM.

use aegis_bus::instance::StopOptions;

use super::report;
use crate::cli::Context;
use crate::failure::Failure;
use crate::job;

/// Stop an instance and start it again, or start it if it is stopped
///
/// Changes made with `instance update` that wait for a start apply.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// Seconds the processes in the guest get to end by themselves
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u32>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let options = StopOptions {
        grace_secs: args.grace,
    };
    let options = options.to_dict();
    let progress = context.ui.progress(&format!("Restarting '{name}'"));
    let restart = async {
        let what = format!("restart '{name}'");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let call = async || instance.restart(&options).await;
        job::perform(&client, &what, &progress, call).await
    };
    progress.during(restart).await?;
    report(context, name, "changed", || {
        format!("Instance {name} restarted")
    })
}
