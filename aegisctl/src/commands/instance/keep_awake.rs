//! `instance keep-awake`: leases.

use aegis_bus::instance::LetSleepOptions;
use aegis_bus::job::JobState;
use aegis_core::duration::Span;

use super::{outcome_of, report};
use crate::cli::Context;
use crate::failure::Failure;
use crate::job;
use crate::ui::clean;

/// What a lease is for where nobody said it.
const BY_HAND: &str = "by hand";

/// Keep an instance awake for a time
///
/// One that sleeps is woken. It stays awake until then whatever is restarted meanwhile,
/// unless it is stopped or disabled. A later one for the same reason takes the place of
/// the earlier.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// For so long from now, e.g. 10m
    #[arg(long = "for", value_name = "TIME", required_unless_present = "end")]
    time: Option<Span>,
    /// What for; 'by hand' unless given
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Let it sleep again, as far as this reason goes; without --reason, all of them
    #[arg(long, conflicts_with = "time")]
    end: bool,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let progress = context.ui.progress(&format!("Asking for '{name}'"));
    let keep = async {
        let what = format!("keep '{name}' awake");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let options = LetSleepOptions {
            reason: args.reason.clone(),
        };
        let options = options.to_dict();
        let call = async || match args.time {
            Some(Span(time)) => {
                let reason = args.reason.as_deref().unwrap_or(BY_HAND);
                let none = aegis_bus::dict::Dict::new();
                instance.keep_awake(reason, time.as_secs(), &none).await
            }
            None => instance.let_sleep(&options).await,
        };
        let state = job::perform(&client, &what, &progress, call).await?;
        Ok::<_, Failure>((state, client.view(&instance).await?.handle))
    };
    let (state, handle) = progress.during(keep).await?;
    report(context, &handle, outcome_of(state), || {
        match (args.time, state) {
            (Some(time), _) => format!("Instance {handle} is kept awake for {time}"),
            (None, JobState::Unchanged) => {
                let reason = args.reason.as_deref().map(clean);
                let of_reason = reason.map(|reason| format!(" for {reason:?}"));
                format!(
                    "Instance {handle} is not kept awake{}",
                    of_reason.unwrap_or_default()
                )
            }
            (None, _) => format!("Instance {handle} may sleep again"),
        }
    })
}
