//! `volume prune`.

use aegis_bus::volumes::PruneVolumesOptions;
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::typed;

/// Remove the named volumes that no instance uses, with all that is in them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    force: bool,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let only_named = PruneVolumesOptions { dry_run: true }.to_dict();
    let progress = context
        .ui
        .progress("Looking for volumes that no instance uses");
    let ask = async {
        let volumes = context.aegisd().await?.volumes_proxy().await?;
        let unused = volumes.prune(&only_named).await;
        let unused = unused.map_err(Failure::call("find volumes to remove"))?;
        Ok::<_, Failure>((volumes, unused))
    };
    let (volumes, unused) = progress.during(ask).await?;
    let mut removed = unused;
    if !args.dry_run && !removed.is_empty() {
        let listed: String = removed.iter().map(|name| format!("  {name}\n")).collect();
        let question = format!("{listed}Remove {}? [y/N] ", count(removed.len()));
        if !args.force && !typed::confirm(&question)? {
            return Err(Failure::NotConfirmed);
        }
        let all = PruneVolumesOptions::default().to_dict();
        let pruned = volumes.prune(&all).await;
        removed = pruned.map_err(Failure::call("remove the volumes"))?;
    }
    context.ui.data(
        || json!({"removed": removed, "dry_run": args.dry_run}),
        || render(&removed, args.dry_run),
    )?;
    Ok(exit_code::OK)
}

fn render(removed: &[String], dry_run: bool) -> String {
    let verb = if dry_run { "Would remove" } else { "Removed" };
    match removed.len() {
        0 => "Nothing to remove\n".to_owned(),
        number => format!("{verb} {}: {}\n", count(number), removed.join(", ")),
    }
}

fn count(number: usize) -> String {
    match number {
        1 => "1 volume".to_owned(),
        number => format!("{number} volumes"),
    }
}
