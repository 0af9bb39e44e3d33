//! `instance hibernate`: its machine goes to the disk.

use aegis_bus::dict::Dict;
use aegis_bus::job::JobState;

use super::{outcome_of, report};
use crate::cli::Context;
use crate::failure::Failure;
use crate::job;

/// Write the machine of an instance to the disk and end its processes
///
/// The next use of it lets the same programs run on where they were: a connection to a
/// port, an exec, `attach`, `instance wake`. One that somebody uses is not hibernated.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let progress = context.ui.progress(&format!("Hibernating '{name}'"));
    let hibernate = async {
        let what = format!("hibernate '{name}'");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let call = async || instance.hibernate(&Dict::new()).await;
        let state = job::perform(&client, &what, &progress, call).await?;
        Ok::<_, Failure>((state, client.view(&instance).await?.handle))
    };
    let (state, handle) = progress.during(hibernate).await?;
    report(context, &handle, outcome_of(state), || {
        let verb = match state {
            JobState::Unchanged => "is hibernated already",
            _ => "hibernated; its next use wakes it",
        };
        format!("Instance {handle} {verb}")
    })
}
