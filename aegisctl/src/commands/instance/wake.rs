//! `instance wake`.

use aegis_bus::dict::Dict;
use aegis_bus::job::JobState;

use super::{outcome_of, report};
use crate::cli::Context;
use crate::failure::Failure;
use crate::job;

/// Let an instance run, be it paused, hibernated or stopped
///
/// One that is disabled stays so: `instance start` enables it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let progress = context.ui.progress(&format!("Waking '{name}'"));
    let wake = async {
        let what = format!("wake '{name}'");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let call = async || instance.wake(&Dict::new()).await;
        let state = job::perform(&client, &what, &progress, call).await?;
        Ok::<_, Failure>((state, client.view(&instance).await?.handle))
    };
    let (state, handle) = progress.during(wake).await?;
    report(context, &handle, outcome_of(state), || {
        let verb = match state {
            JobState::Unchanged => "runs already",
            _ => "woken",
        };
        format!("Instance {handle} {verb}")
    })
}
