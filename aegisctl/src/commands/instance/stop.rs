//! `instance stop`: the VM ends, its ports go on listening.

use aegis_bus::instance::StopOptions;
use aegis_bus::job::JobState;

use super::{outcome_of, report};
use crate::cli::Context;
use crate::failure::Failure;
use crate::job;

/// Stop an instance until its next use
///
/// Its ports and its control socket go on listening, and its daemons go on
/// running. `instance disable` closes and stops them as well.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// Seconds the processes in the guest get to end by themselves
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u32>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let options = StopOptions {
        grace_secs: args.grace,
    };
    let options = options.to_dict();
    let progress = context.ui.progress(&format!("Stopping '{name}'"));
    let stop = async {
        let what = format!("stop '{name}'");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let call = async || instance.stop(&options).await;
        let state = job::perform(&client, &what, &progress, call).await?;
        Ok::<_, Failure>((state, client.view(&instance).await?))
    };
    let (state, view) = progress.during(stop).await?;
    report(context, &view.handle, outcome_of(state), || {
        let handle = &view.handle;
        if !view.enabled {
            return format!("Instance {handle} is disabled: nothing runs and nothing listens");
        }
        let verb = if state == JobState::Unchanged {
            "is stopped already"
        } else {
            "stopped"
        };
        let listening = match view.ports.as_slice() {
            [] => "its control socket keeps listening".to_owned(),
            ports => format!("{} and its control socket keep listening", ports.join(", ")),
        };
        format!(
            "Instance {handle} {verb}; {listening}, and the next use wakes it\n\
             To keep it off: aegisctl instance disable {handle}"
        )
    })
}
