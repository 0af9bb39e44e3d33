//! `image remove`.

use aegis_bus::dict::Dict;
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::images;
use crate::ui::bytes;

/// Remove an image that no instance uses, or one of its names
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm")]
pub(crate) struct Args {
    /// Its name, or the beginning of its digest
    #[arg(value_name = "IMAGE")]
    name: String,
}

pub(crate) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Removing the image");
    let remove = async {
        let client = context.aegisd().await?;
        let name = images::told(&client, &args.name).await?;
        let manager = client.manager().await?;
        let removed = manager.remove_image(&name, &Dict::new()).await;
        removed.map_err(Failure::call(format!("remove the image '{}'", args.name)))
    };
    let (images, size) = progress.during(remove).await?;
    context.ui.data(
        || json!({"images": images, "size": size}),
        || match images.is_empty() {
            true => format!("Name {} removed\n", args.name),
            false => format!("Image {} removed, {} free\n", args.name, bytes(size)),
        },
    )?;
    Ok(exit_code::OK)
}
