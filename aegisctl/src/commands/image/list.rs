//! `image list`.

use aegis_bus::image::ImageView;

use super::{short_id, short_name, to_json};
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::listing::{FormatFlags, Listing};
use crate::ui::{Table, Tone, age, bytes};

/// List the images that are here
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls")]
pub(crate) struct Args {
    #[command(flatten)]
    format: FormatFlags,
}

pub(crate) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let list = async {
        let client = context.aegisd().await?;
        let images = client.images().await?;
        let users = client.image_users().await?;
        Ok::<_, Failure>((images, users))
    };
    let (images, users) = progress.during(list).await?;
    let used_by = |image: &ImageView| users.get(&image.id).cloned().unwrap_or_default();
    let listing = Listing {
        key: "images",
        rows: images
            .iter()
            .map(|image| to_json(image, &used_by(image)))
            .collect(),
        name: "id",
    };
    listing.print(context.ui, &args.format, || {
        let mut table = Table::new(&["NAME", "ID", "PULLED", "SIZE", "USED BY"]);
        for image in &images {
            let mut names: Vec<String> = image.names.iter().map(|name| short_name(name)).collect();
            if names.is_empty() {
                names.push("<none>".to_owned());
            }
            let pulled = match image.pulled_at_us {
                0 => "-".to_owned(),
                at => age(at),
            };
            for name in names {
                let users = used_by(image).len();
                let cells = [
                    name,
                    short_id(&image.id),
                    pulled.clone(),
                    bytes(image.size),
                    format!("{users} instance{}", if users == 1 { "" } else { "s" }),
                ];
                table.row(cells.map(|cell| (Tone::Plain, cell)).into());
            }
        }
        table.render(context.ui)
    })?;
    Ok(exit_code::OK)
}
