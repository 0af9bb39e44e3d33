//! `instance list`.

use aegis_bus::instance::filter;

use super::to_json;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::listing::{FilterFlags, FormatFlags, Listing};
use crate::ui::{Table, Tone, age, tone_of};

/// List instances
///
/// With --quiet only their names.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls")]
pub(crate) struct Args {
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    format: FormatFlags,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let list = async { context.aegisd().await?.instances().await };
    let mut views = progress.during(list).await?;
    views.retain(|view| filter::matches(&args.filter.filter, view));
    let listing = Listing {
        key: "instances",
        rows: views.iter().map(to_json).collect(),
        name: "handle",
    };
    listing.print(context.ui, &args.format, || {
        let mut table = Table::new(&["HANDLE", "KIT", "STATE", "IMAGE", "PORTS", "CREATED"]);
        for view in &views {
            let plain = |text: &str| (Tone::Plain, text.to_owned());
            let image = match view.image.as_str() {
                "" => "base",
                image => image,
            };
            table.row(vec![
                plain(&view.handle),
                match view.kit_installed {
                    true => plain(&view.kit),
                    false => (Tone::Bad, format!("{} (not installed)", view.kit)),
                },
                (tone_of(&view.state), view.state.clone()),
                plain(image),
                plain(&view.ports.join(" ")),
                plain(&age(view.created_at_us)),
            ]);
        }
        table.render(context.ui)
    })?;
    Ok(exit_code::OK)
}
