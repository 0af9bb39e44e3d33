//! `status`: the whole at a glance. It starts nothing.

use std::collections::BTreeMap;

use serde_json::json;

use super::version;
use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::systemd::{Systemd, Unit};
use crate::ui::{Tone, clean};

/// Show whether AegisVM runs, and what it runs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) async fn execute(context: &Context, Args {}: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let status = progress.during(Status::ask(context)).await?;
    context
        .ui
        .data(|| status.to_json(context), || status.render(context))?;
    Ok(exit_code::OK)
}

/// What there is to say.
struct Status {
    /// The version of systemd and what it runs of ours; `None` where no bus leads to it.
    systemd: Option<(String, Vec<Unit>)>,
    aegisd: Aegisd,
}

enum Aegisd {
    Running {
        version: String,
        /// The service manager, in aegisd's words.
        manager: String,
        /// The number of instances in each state.
        instances: BTreeMap<String, usize>,
        lingering: bool,
        quarantined: Vec<String>,
    },
    /// It starts at the next use.
    Idle,
    /// There is no bus that starts it.
    Stopped,
    NotInstalled,
}

impl Status {
    async fn ask(context: &Context) -> Result<Self, Failure> {
        let client = context.client().await?;
        let systemd = match client.is_peer() {
            true => None,
            false => {
                let systemd = Systemd::of(&client).await?;
                Some((systemd.version().await?, systemd.active_units().await?))
            }
        };
        Ok(Self {
            systemd,
            aegisd: Aegisd::ask(&client).await?,
        })
    }

    fn render(&self, context: &Context) -> String {
        let ui = context.ui;
        let manager = match (&self.systemd, &self.aegisd) {
            (Some((version, _)), _) => format!("systemd {version}"),
            (None, Aegisd::Running { manager, .. }) => manager.clone(),
            (None, _) => "there is no bus that leads to it".to_owned(),
        };
        let mut text = format!(
            "Version:     {}\nMode:        {}\nManager:     {}\n",
            version::OWN,
            context.mode,
            clean(&manager)
        );
        match &self.aegisd {
            Aegisd::Running {
                version,
                instances,
                lingering,
                quarantined,
                ..
            } => {
                let running = ui.paint(Tone::Good, "running");
                text.push_str(&format!("aegisd:      {running} ({})\n", clean(version)));
                let total: usize = instances.values().sum();
                let parts: Vec<_> = instances
                    .iter()
                    .map(|(state, count)| format!("{count} {}", clean(state)))
                    .collect();
                let parts = if parts.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", parts.join(", "))
                };
                text.push_str(&format!("Instances:   {total}{parts}\n"));
                if context.mode == aegis_core::layout::Mode::User {
                    let lingering = if *lingering {
                        "on"
                    } else {
                        "off: instances end at logout (loginctl enable-linger changes that)"
                    };
                    text.push_str(&format!("Lingering:   {lingering}\n"));
                }
                for record in quarantined {
                    text.push_str(&format!("Quarantined: {}\n", clean(record)));
                }
            }
            Aegisd::Idle => text.push_str("aegisd:      not running; it starts at the next use\n"),
            Aegisd::Stopped => text.push_str("aegisd:      not running; no bus starts it\n"),
            Aegisd::NotInstalled => text.push_str(&format!(
                "aegisd:      {}: the bus cannot start it\n",
                ui.paint(Tone::Bad, "not installed")
            )),
        }
        if let Some((_, units)) = &self.systemd {
            text.push_str(&format!("Units:       {} active\n", units.len()));
        }
        text
    }

    fn to_json(&self, context: &Context) -> serde_json::Value {
        let aegisd = match &self.aegisd {
            Aegisd::Running {
                version,
                instances,
                lingering,
                quarantined,
                ..
            } => json!({
                "state": "running",
                "version": version,
                "instances": instances,
                "lingering": lingering,
                "quarantined": quarantined,
            }),
            Aegisd::Idle => json!({"state": "activatable"}),
            Aegisd::Stopped => json!({"state": "stopped"}),
            Aegisd::NotInstalled => json!({"state": "not-installed"}),
        };
        let (systemd, units) = match &self.systemd {
            Some((version, units)) => (version.as_str(), units.as_slice()),
            None => ("", [].as_slice()),
        };
        json!({
            "aegisctl": version::OWN,
            "mode": context.mode.to_string(),
            "systemd": systemd,
            "aegisd": aegisd,
            "units": units.iter().map(|unit| &unit.name).collect::<Vec<_>>(),
        })
    }
}

impl Aegisd {
    async fn ask(client: &Client) -> Result<Self, Failure> {
        if !client.is_running().await? {
            return Ok(match client.is_peer() {
                true => Self::Stopped,
                false if client.is_activatable().await? => Self::Idle,
                false => Self::NotInstalled,
            });
        }
        let manager = client.manager().await?;
        let ask = async {
            Ok((
                manager.version().await?,
                manager.supervisor().await?,
                manager.lingering().await?,
                manager.quarantined().await?,
            ))
        };
        let (version, manager, lingering, quarantined) = ask
            .await
            .map_err(Failure::call("ask aegisd for its status"))?;
        let mut instances = BTreeMap::new();
        for view in client.instances().await? {
            *instances.entry(view.state).or_default() += 1;
        }
        Ok(Self::Running {
            version,
            manager,
            instances,
            lingering,
            quarantined,
        })
    }
}
