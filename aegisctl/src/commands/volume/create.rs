//! `volume create`.

use aegis_bus::dict::Dict;
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;

/// Make an empty volume
///
/// One of that name that is there stays as it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Its name
    name: String,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = args.name.as_str();
    let progress = context.ui.progress("Making the volume");
    let create = async {
        let volumes = context.aegisd().await?.volumes_proxy().await?;
        let made = volumes.create(name, &Dict::new()).await;
        made.map_err(Failure::call(format!("make the volume '{name}'")))
    };
    let made = progress.during(create).await?;
    let outcome = if made { "created" } else { "unchanged" };
    context.ui.data(
        || json!({"outcome": outcome, "name": name}),
        || match made {
            true => format!("Volume created: {name}\n"),
            false => format!("Volume {name} is there already\n"),
        },
    )?;
    Ok(exit_code::OK)
}
