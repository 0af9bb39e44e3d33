//! `down`: the control plane stops, alone or with everything.

use aegis_bus::dict::Dict;
use serde_json::json;

use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::job;
use crate::launchd::Launchd;
use crate::systemd::{Systemd, Unit};
use crate::ui::{Progress, clean};

/// Stop aegisd; instances and their daemons keep running
///
/// The next command that needs aegisd starts it again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stop all instances, their daemons and ports first
    #[arg(long)]
    all: bool,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Stopping");
    let (was_running, units) = progress.during(stop(context, args.all, &progress)).await?;
    context.ui.data(
        || {
            json!({
                "outcome": if was_running { "changed" } else { "unchanged" },
                "units": units.iter().map(|unit| &unit.name).collect::<Vec<_>>(),
            })
        },
        || render(was_running, &units, args.all),
    )?;
    Ok(exit_code::OK)
}

/// Says whether aegisd ran and which units are left. Nothing here may call aegisd
/// after its end: the bus would start it again.
async fn stop(
    context: &Context,
    all: bool,
    progress: &Progress,
) -> Result<(bool, Vec<Unit>), Failure> {
    let client = context.client().await?;
    if let Some(launchd) = Launchd::of(context.mode) {
        return stop_job(&client, &launchd, all, progress).await;
    }
    let systemd = Systemd::of(&client).await?;
    let was_running = client.is_running().await?;
    let instances_up = !systemd.active_units().await?.is_empty();
    if all && (was_running || instances_up) {
        let manager = client.manager().await?;
        let options = Dict::new();
        let stop_all = async || manager.stop_all(&options).await;
        job::perform(&client, "stop all instances", progress, stop_all).await?;
    }
    systemd.stop_aegisd().await?;
    Ok((
        was_running || (all && instances_up),
        systemd.active_units().await?,
    ))
}

/// The same where aegisd is a job of launchd's. What goes on without it cannot be listed:
/// who could has ended.
async fn stop_job(
    client: &Client,
    launchd: &Launchd,
    all: bool,
    progress: &Progress,
) -> Result<(bool, Vec<Unit>), Failure> {
    if all && launchd.has_aegisd()? {
        client.start_aegisd().await?;
        let manager = client.manager().await?;
        let options = Dict::new();
        let stop_all = async || manager.stop_all(&options).await;
        job::perform(client, "stop all instances", progress, stop_all).await?;
    }
    Ok((launchd.stop_aegisd()?, Vec::new()))
}

fn render(was_running: bool, units: &[Unit], all: bool) -> String {
    let mut text = if was_running {
        "aegisd: stopped\n".to_owned()
    } else {
        "aegisd: not running\n".to_owned()
    };
    if units.is_empty() {
        text.push_str("Nothing of AegisVM is running.\n");
        return text;
    }
    text.push_str("Still running:\n");
    for unit in units {
        text.push_str(&format!(
            "  {}  {}\n",
            clean(&unit.name),
            clean(&unit.description)
        ));
    }
    if !all {
        text.push_str("`aegisctl down --all` stops these too.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_running_is_named() {
        let unit = Unit {
            name: "aegis-vm-web.socket".into(),
            description: "Ports of web".into(),
        };
        assert_eq!(
            render(true, &[unit], false),
            "aegisd: stopped\nStill running:\n  aegis-vm-web.socket  Ports of web\n\
             `aegisctl down --all` stops these too.\n"
        );
        assert_eq!(
            render(false, &[], true),
            "aegisd: not running\nNothing of AegisVM is running.\n"
        );
    }
}
