//! `instance delete`: the instance and all it had.

use aegis_bus::instance::DeleteOptions;
use aegis_core::fault::Symbol;

use super::report;
use crate::cli::Context;
use crate::failure::Failure;
use crate::job;

/// Delete an instance with its disk and logs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// Delete the configuration of its daemons too
    #[arg(long)]
    purge: bool,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let options = DeleteOptions { purge: args.purge }.to_dict();
    let progress = context.ui.progress(&format!("Deleting '{name}'"));
    let delete = async {
        let what = format!("delete '{name}'");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let call = async || instance.delete(&options).await;
        match job::perform(&client, &what, &progress, call).await {
            // It was found above, so a repeated call comes after the deletion.
            Err(failure) if failure.is(Symbol::NotFound) => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    };
    progress.during(delete).await?;
    report(context, name, "changed", || {
        format!("Instance {name} deleted")
    })
}
