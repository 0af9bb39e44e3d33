//! `kit list`.

use super::{status_words, to_json, trouble};
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::listing::{FormatFlags, Listing};
use crate::ui::{Table, Tone, clean, tone_of};

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
            table.row(vec![
                plain(&kit.name),
                plain(&kit.version),
                (tone_of(&kit.status), status_words(kit)),
                // What is wrong matters more than what it would be good for.
                plain(trouble(kit).unwrap_or(&kit.description)),
            ]);
        }
        table.render(context.ui)
    })?;
    for kit in &kits {
        for warning in &kit.warnings {
            let (path, warning) = (clean(&kit.path), clean(warning));
            context.ui.note(&format!("warning: {path}: {warning}"));
        }
    }
    Ok(exit_code::OK)
}
