//! `kit remove`.

use aegis_bus::kit::RemoveOptions;
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;

/// Remove a kit that was installed from a folder
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm")]
pub(crate) struct Args {
    /// The kit
    name: String,
    /// Also while instances use it: they keep their programs until they are deleted
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let options = RemoveOptions { force: args.force }.to_dict();
    let progress = context.ui.progress("Removing the kit");
    let remove = async {
        let manager = context.aegisd().await?.manager().await?;
        let removed = manager.remove_kit(name, &options).await;
        removed.map_err(Failure::call(format!("remove the kit '{name}'")))
    };
    progress.during(remove).await?;
    context.ui.data(
        || json!({"kit": name, "outcome": "removed"}),
        || format!("Kit {name} removed\n"),
    )?;
    Ok(exit_code::OK)
}
