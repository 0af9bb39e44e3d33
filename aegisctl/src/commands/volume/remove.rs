//! `volume remove`.

use aegis_bus::dict::Dict;
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;

/// Remove volumes that no instance uses, with all that is in them
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm")]
pub(crate) struct Args {
    /// Their names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Removing");
    let remove = async {
        let volumes = context.aegisd().await?.volumes_proxy().await?;
        for name in &args.names {
            let removed = volumes.remove(name, &Dict::new()).await;
            removed.map_err(Failure::call(format!("remove the volume '{name}'")))?;
        }
        Ok::<_, Failure>(())
    };
    progress.during(remove).await?;
    context.ui.data(
        || json!({"removed": args.names, "dry_run": false}),
        || {
            let lines = args.names.iter();
            lines
                .map(|name| format!("Volume removed: {name}\n"))
                .collect()
        },
    )?;
    Ok(exit_code::OK)
}
