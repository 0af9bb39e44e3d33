//! `instance prune`: instances that are left over.

use std::collections::BTreeSet;

use aegis_bus::instance::InstanceView;
use aegis_bus::prune::PruneOptions;
use aegis_core::duration::Span;
use serde_json::json;

use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::job::JobWatch;
use crate::listing::FilterFlags;
use crate::typed;
use crate::ui::{Progress, age};

/// Delete instances that are disabled or have failed
///
/// An instance that is stopped but enabled only sleeps: its next use wakes it.
/// It is deleted only with --stopped. Instances that run are never deleted.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only those that have been so for longer than this, e.g. 24h or 7d
    #[arg(long, value_name = "DURATION")]
    older_than: Option<Span>,
    #[command(flatten)]
    filter: FilterFlags,
    /// Those that are stopped, but would be woken by their next use, too
    #[arg(long)]
    stopped: bool,
    /// Show what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    force: bool,
}

impl Args {
    fn options(&self) -> PruneOptions {
        PruneOptions {
            older_than_secs: self.older_than.map(|span| span.0.as_secs()),
            filters: self.filter.filter.clone(),
            asleep: self.stopped,
        }
    }
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let options = args.options().to_dict();
    let progress = context.ui.progress("Asking aegisd");
    let ask = async {
        let client = context.aegisd().await?;
        let manager = client.manager().await?;
        let found = manager.find_prunable(&options).await;
        let found = found.map_err(Failure::call("find instances to delete"))?;
        let views = client.instances().await?;
        Ok::<_, Failure>((client, found, views))
    };
    let (client, found, views) = progress.during(ask).await?;
    let listed = describe(&found, &views);
    if args.dry_run {
        context.ui.data(
            || json!({"dry_run": true, "deleted": [], "kept": [], "found": found}),
            || match found.len() {
                0 => "Nothing to delete\n".to_owned(),
                count => format!("Would delete {}:\n{listed}", instances(count)),
            },
        )?;
        return Ok(exit_code::OK);
    }
    let question = format!("{listed}Delete {}? [y/N] ", instances(found.len()));
    if !found.is_empty() && !args.force && !typed::confirm(&question)? {
        return Err(Failure::NotConfirmed);
    }
    let progress = context.ui.progress("Deleting");
    let (deleted, kept) = progress.during(delete(&client, &args, &progress)).await?;
    context.ui.data(
        || json!({"dry_run": false, "deleted": deleted, "kept": kept, "found": found}),
        || render(&deleted, &kept),
    )?;
    Ok(exit_code::OK)
}

/// Deletes and says what is gone and what was used meanwhile and stays.
async fn delete(
    client: &Client,
    args: &Args,
    progress: &Progress,
) -> Result<(Vec<String>, Vec<String>), Failure> {
    let what = "delete the instances";
    let mut watch = JobWatch::start(client).await?;
    let manager = client.manager().await?;
    let asked = manager.prune(&args.options().to_dict()).await;
    let (handles, job) = asked.map_err(Failure::call(what))?;
    let ended = watch.wait(&job, what, progress).await;
    let left: BTreeSet<String> = client
        .instances()
        .await?
        .into_iter()
        .map(|view| view.handle)
        .collect();
    let (kept, deleted): (Vec<String>, Vec<String>) = handles
        .into_iter()
        .partition(|handle| left.contains(handle));
    match ended {
        Err(failure) if deleted.is_empty() => Err(failure),
        Err(failure) => Err(Failure::PruneStopped {
            deleted: deleted.len(),
            source: Box::new(failure),
        }),
        Ok(_) => Ok((deleted, kept)),
    }
}

fn describe(handles: &[String], views: &[InstanceView]) -> String {
    let of = |handle: &String| views.iter().find(|view| view.handle == *handle);
    let lines = handles.iter().map(|handle| match of(handle) {
        Some(view) => {
            let since = age(view.state_since_us);
            format!("  {handle}  {}  {since}", view.state)
                .trim_end()
                .to_owned()
                + "\n"
        }
        None => format!("  {handle}\n"),
    });
    lines.collect()
}

fn render(deleted: &[String], kept: &[String]) -> String {
    let mut text = match deleted.len() {
        0 => "Nothing to delete\n".to_owned(),
        count => format!("Deleted {}: {}\n", instances(count), deleted.join(", ")),
    };
    if !kept.is_empty() {
        text.push_str(&format!("Used meanwhile and kept: {}\n", kept.join(", ")));
    }
    text
}

fn instances(count: usize) -> String {
    match count {
        1 => "1 instance".to_owned(),
        count => format!("{count} instances"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_that_of_what_is_gone() {
        let two = ["a".to_owned(), "b".to_owned()];
        assert_eq!(render(&two, &[]), "Deleted 2 instances: a, b\n");
        assert_eq!(
            render(&two[..1], &two[1..]),
            "Deleted 1 instance: a\nUsed meanwhile and kept: b\n"
        );
        assert_eq!(render(&[], &[]), "Nothing to delete\n");
    }
}
