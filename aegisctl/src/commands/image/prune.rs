//! `image prune`.

use aegis_bus::image::PruneImagesOptions;
use serde_json::json;

use super::short_id;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::ui::bytes;

/// Remove the images without a name that no instance uses, and layers that nothing needs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those with a name too
    #[arg(short, long)]
    all: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let options = PruneImagesOptions {
        all: args.all,
        dry_run: args.dry_run,
    };
    let progress = context.ui.progress("Looking for images that nothing uses");
    let prune = async {
        let manager = context.aegisd().await?.manager().await?;
        let pruned = manager.prune_images(&options.to_dict()).await;
        pruned.map_err(Failure::call("prune the images"))
    };
    let (images, size) = progress.during(prune).await?;
    context.ui.data(
        || json!({"images": images, "size": size, "dry_run": args.dry_run}),
        || {
            let mut text: String = images
                .iter()
                .map(|id| format!("{}\n", short_id(id)))
                .collect();
            let verb = if args.dry_run { "would be" } else { "are" };
            text.push_str(&format!("{} {verb} free\n", bytes(size)));
            text
        },
    )?;
    Ok(exit_code::OK)
}
