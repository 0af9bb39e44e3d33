//! `kit list`.

use aegis_bus::kit::KitView;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::listing::{FormatFlags, Listing};
use crate::ui::{Table, Tone, tone_of};

/// List the installed kits
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls")]
pub(crate) struct Args {
    #[command(flatten)]
    format: FormatFlags,
}

pub(crate) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let list = async { context.aegisd().await?.kits().await };
    let kits = progress.during(list).await?;
    let listing = Listing {
        key: "kits",
        rows: kits.iter().map(to_json).collect(),
        name: "name",
    };
    listing.print(context.ui, &args.format, || {
        let mut table = Table::new(&["NAME", "VERSION", "STATUS", "DESCRIPTION"]);
        for kit in &kits {
            let plain = |text: &str| (Tone::Plain, text.to_owned());
            // What is wrong matters more than what it would be good for.
            let description = match kit.status_reason.as_str() {
                "" => &kit.description,
                reason => reason,
            };
            table.row(vec![
                plain(&kit.name),
                plain(&kit.version),
                (tone_of(&kit.status), kit.status.clone()),
                plain(description),
            ]);
        }
        table.render(context.ui)
    })?;
    Ok(exit_code::OK)
}

fn to_json(kit: &KitView) -> Value {
    json!({
        "name": kit.name,
        "version": kit.version,
        "description": kit.description,
        "status": kit.status,
        "status_reason": kit.status_reason,
        "path": kit.path,
        "image": kit.image,
        "command": kit.command,
        "daemons": kit.daemons,
    })
}
