//! `import`: what the original AegisVM keeps becomes instances and secrets of ours.
//!
//! Everything is looked at before the first change: what is in the old folder (`original`)
//! and what is here (`here`). Then come, in this order, images, secrets, and instances with
//! their messages (`steps`), so that each step finds what it needs and a second call finds what is done.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use aegis_core::layout::{Layout, Surroundings};
use aegis_core::secret::SecretName;

use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::flags::RegistryFlags;
use crate::original::{
    Choice, Contents, Messages, OldInstance, Original, OriginalError, Plan, Problem, Secrets,
    Values, Wish,
};
use here::Here;
use report::Report;
use steps::Steps;

mod here;
mod report;
mod steps;

/// Take over the instances and secrets of the original AegisVM
///
/// Its folder is only read, and its daemon must not run. Instances are made but not
/// started; what is here already is left as it is, so it can be called again. Either
/// nothing stands in the way, or all that does is told and nothing is made.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of the original, usually ~/.aegis
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Say what would be made, and make nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave out this instance
    #[arg(long, value_name = "NAME|ID")]
    skip: Vec<String>,
    /// Give an instance another name here
    #[arg(long, value_name = "NAME|ID=NAME", value_parser = parse_rename)]
    rename: Vec<(String, String)>,
    /// Set secrets that are here already to the values they have there
    #[arg(long)]
    replace_secrets: bool,
    /// Leave the values of secrets there; those that instances need must be here
    #[arg(long, conflicts_with = "replace_secrets")]
    without_secrets: bool,
    #[command(flatten)]
    registry: RegistryFlags,
}

/// What is to be had of the old folder.
struct Found {
    plan: Plan,
    /// `None` where they stay there.
    values: Option<Values>,
    problems: Vec<Problem>,
    contents: Contents,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let folder = std::path::absolute(&args.from).map_err(|source| Failure::Path {
        path: args.from.clone(),
        source,
    })?;
    let original = Original::new(folder);
    let mut found = args.find(&original).map_err(refused(&original))?;
    let progress = context.ui.progress("Looking at what is here");
    let looking = async {
        let client = context.aegisd().await?;
        here::name_images(&mut found.plan, &mut found.problems);
        let here = Here::ask(&client, &found.plan).await?;
        let config = config_folder(context, &client).await?;
        Ok::<_, Failure>((client, here, config))
    };
    let (client, here, config) = progress.during(looking).await?;
    let Found {
        plan,
        values,
        mut problems,
        contents,
    } = found;
    let (steps, more) = Steps::plan(
        plan.wishes,
        values,
        &contents.messages,
        &here,
        args.replace_secrets,
    );
    problems.extend(more);
    if !problems.is_empty() {
        let words = problems.iter().map(Problem::words);
        return Err(Failure::ImportRefused(words.collect()));
    }
    let mut notes = plan.notes;
    let taken = steps.instances.iter().map(|(wish, _)| &wish.old_id);
    let left = left(&contents.messages, &taken.collect());
    notes.extend(left_behind(&original, &contents, left));
    notes.extend(
        steps
            .made()
            .filter_map(|wish| daemons(&original, wish, &config)),
    );
    if !args.dry_run {
        // It may have been started meanwhile.
        original.is_at_rest().map_err(refused(&original))?;
        let taking = steps.take(&client, &args.registry, &progress);
        progress.during(taking).await?;
    }
    let report = Report {
        from: original.folder(),
        dry_run: args.dry_run,
        steps: &steps,
        messages_left: left,
        notes: &notes,
    };
    report.print(context)?;
    Ok(exit_code::OK)
}

impl Args {
    fn find(&self, original: &Original) -> Result<Found, OriginalError> {
        original.is_at_rest()?;
        let contents = original.read()?;
        let (values, mut problems) = match self.without_secrets {
            true => (None, Vec::new()),
            false => {
                let (values, problems) = original.open(&contents)?;
                (Some(values), problems)
            }
        };
        let mut instances = Vec::new();
        let choice = Choice {
            skip: self.skip.clone(),
            renames: self.rename.iter().cloned().collect(),
        };
        let (rows, unknown) = choice.among(&contents.rows);
        problems.extend(unknown);
        for row in rows {
            match OldInstance::try_from(row) {
                Ok(instance) => instances.push(instance),
                Err(problem) => problems.push(problem),
            }
        }
        let names = contents.secrets.iter();
        let names: BTreeSet<SecretName> = names.filter_map(|one| one.name.parse().ok()).collect();
        let none = Values::new();
        let secrets = Secrets {
            names: &names,
            values: values.as_ref().unwrap_or(&none),
        };
        let (plan, more) = Plan::of(&instances, secrets, &choice);
        problems.extend(more);
        Ok(Found {
            plan,
            values,
            problems,
            contents,
        })
    }
}

fn refused(original: &Original) -> impl FnOnce(OriginalError) -> Failure {
    let folder = original.folder().to_owned();
    |source| Failure::Original { folder, source }
}

fn parse_rename(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("it is not NAME=NAME".to_owned()),
    }
}

/// Where instances' daemons have their config here.
async fn config_folder(context: &Context, client: &Client) -> Result<PathBuf, Failure> {
    let (mode, manager) = (context.mode, client.manager().await?);
    let folder = async {
        let surroundings = Surroundings {
            aegis_home: Some(manager.home().await?.into()),
            runtime: Some(manager.runtime_directory().await?.into()),
            ..Surroundings::default()
        };
        Ok(Layout::new(mode, &surroundings).map(|layout| layout.kits()))
    };
    let folder = folder
        .await
        .map_err(Failure::call("ask aegisd for its folders"))?;
    // aegisd itself made its layout so.
    Ok(folder.unwrap_or_default())
}

/// How many messages are of instances that do not come over, or are none.
fn left(messages: &Messages, taken: &BTreeSet<&String>) -> usize {
    let of_others = messages.of.iter().filter(|(id, _)| !taken.contains(id));
    let of_others: usize = of_others.map(|(_, frames)| frames.len()).sum();
    of_others + messages.odd
}

/// What is not taken over, in words.
fn left_behind(original: &Original, contents: &Contents, messages: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if messages > 0 {
        notes.push(format!(
            "messages of other instances, and what cannot be read as one, are not taken over: \
             {messages} stay in {}, table tether_frames",
            original.database().display()
        ));
    }
    let disks = original.disks();
    if fs::read_dir(&disks).is_ok_and(|mut entries| entries.next().is_some()) {
        notes.push(format!(
            "what guests wrote outside their workspaces is not taken over: it stays in {}",
            disks.display()
        ));
    }
    if !contents.unknown.is_empty() {
        notes.push(format!(
            "settings that nothing here knows are left out: {}",
            contents.unknown.join(", ")
        ));
    }
    notes
}

/// What is to be done about the config of an instance's daemons, if anything is.
fn daemons(original: &Original, wish: &Wish, config: &Path) -> Option<String> {
    let there = original.daemon_config(&wish.old_name);
    let here = config.join(wish.handle.as_str());
    let is_needed = wish.spec.kit.is_some() && there.is_dir();
    let is_same = || match (there.canonicalize(), here.canonicalize()) {
        (Ok(there), Ok(here)) => there == here,
        _ => there == here,
    };
    (is_needed && !is_same()).then(|| {
        format!(
            "the daemons of '{}' read {}; what they had is in {}",
            wish.handle,
            here.display(),
            there.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_is_read() {
        assert_eq!(parse_rename("a=b").unwrap(), ("a".into(), "b".into()));
        assert!(parse_rename("a").is_err() && parse_rename("=b").is_err());
    }
}
