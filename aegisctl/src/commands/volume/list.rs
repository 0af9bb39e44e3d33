//! `volume list`.

use super::to_json;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::listing::{FormatFlags, Listing};
use crate::ui::{Table, Tone, age};

/// List the named volumes
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls")]
pub(crate) struct Args {
    #[command(flatten)]
    format: FormatFlags,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let list = async { context.aegisd().await?.volumes().await };
    let volumes = progress.during(list).await?;
    let listing = Listing {
        key: "volumes",
        rows: volumes.iter().map(to_json).collect(),
        name: "name",
    };
    listing.print(context.ui, &args.format, || {
        let mut table = Table::new(&["NAME", "CREATED", "USED BY"]);
        for volume in &volumes {
            let created = match volume.created_at_us {
                0 => "-".to_owned(),
                at => age(at),
            };
            let cells = [volume.name.clone(), created, volume.used_by.join(", ")];
            table.row(cells.map(|cell| (Tone::Plain, cell)).into());
        }
        table.render(context.ui)
    })?;
    Ok(exit_code::OK)
}
