//! `up`: the control plane starts now and at every login (or boot).

use aegis_core::layout::Mode;
use serde_json::json;

use super::version;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::launchd::Launchd;
use crate::systemd::Systemd;

/// Start aegisd, now and at every login (in system mode: at boot)
///
/// Instances that are enabled listen again. Any other command starts aegisd
/// too; `up` makes it last.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) async fn execute(context: &Context, Args {}: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Starting aegisd");
    let start = async {
        let client = context.client().await?;
        let was_running = client.is_running().await?;
        let newly_enabled = match Launchd::of(context.mode) {
            // Its property list is where launchd looks at each login.
            Some(_) => {
                client.start_aegisd().await?;
                false
            }
            None => {
                let systemd = Systemd::of(&client).await?;
                let newly_enabled = systemd.enable_aegisd().await?;
                systemd.start_aegisd().await?;
                newly_enabled
            }
        };
        let lingering = client.manager().await?.lingering().await;
        let lingering = lingering.map_err(Failure::call("ask aegisd for its status"))?;
        Ok::<_, Failure>((was_running, newly_enabled, lingering))
    };
    let (was_running, newly_enabled, lingering) = progress.during(start).await?;
    let when = match context.mode {
        Mode::User => "login",
        Mode::System => "boot",
    };
    context.ui.data(
        || {
            json!({
                "outcome": if was_running && !newly_enabled { "unchanged" } else { "changed" },
                "lingering": lingering,
            })
        },
        || {
            let state = if was_running {
                "already running"
            } else {
                "started"
            };
            let enabled = if newly_enabled {
                format!(", and starts at every {when} from now on")
            } else {
                format!(", and starts at every {when}")
            };
            format!("aegis {}\naegisd: {state}{enabled}", version::OWN)
        },
    )?;
    if cfg!(target_os = "macos") && context.mode == Mode::User {
        context
            .ui
            .note("note: aegisd and your instances end when you log out");
    } else if context.mode == Mode::User && !lingering {
        context.ui.note(
            "note: lingering is off, so aegisd and your instances end when you log out\n\
             hint: loginctl enable-linger",
        );
    }
    Ok(exit_code::OK)
}
