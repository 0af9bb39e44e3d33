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
    systemd: String,
    units: Vec<Unit>,
    aegisd: Aegisd,
}

enum Aegisd {
    Running {
        version: String,
        /// The number of instances in each state.
        instances: BTreeMap<String, usize>,
        lingering: bool,
        quarantined: Vec<String>,
    },
    /// It starts at the next use.
    Idle,
    NotInstalled,
}

impl Status {
    async fn ask(context: &Context) -> Result<Self, Failure> {
        let client = context.client().await?;
        let systemd = Systemd::of(&client).await?;
        Ok(Self {
            systemd: systemd.version().await?,
            units: systemd.active_units().await?,
            aegisd: Aegisd::ask(&client).await?,
        })
    }

    fn render(&self, context: &Context) -> String {
        let ui = context.ui;
        let mut text = format!(
            "Version:     {}\nMode:        {}\nManager:     systemd {}\n",
            version::OWN,
            context.mode,
            clean(&self.systemd)
        );
        match &self.aegisd {
            Aegisd::Running {
                version,
                instances,
                lingering,
                quarantined,
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
            Aegisd::NotInstalled => text.push_str(&format!(
                "aegisd:      {}: the bus cannot start it\n",
                ui.paint(Tone::Bad, "not installed")
            )),
        }
        text.push_str(&format!("Units:       {} active\n", self.units.len()));
        text
    }

    fn to_json(&self, context: &Context) -> serde_json::Value {
        let aegisd = match &self.aegisd {
            Aegisd::Running {
                version,
                instances,
                lingering,
                quarantined,
            } => json!({
                "state": "running",
                "version": version,
                "instances": instances,
                "lingering": lingering,
                "quarantined": quarantined,
            }),
            Aegisd::Idle => json!({"state": "activatable"}),
            Aegisd::NotInstalled => json!({"state": "not-installed"}),
        };
        json!({
            "aegisctl": version::OWN,
            "mode": context.mode.to_string(),
            "systemd": self.systemd,
            "aegisd": aegisd,
            "units": self.units.iter().map(|unit| &unit.name).collect::<Vec<_>>(),
        })
    }
}

impl Aegisd {
    async fn ask(client: &Client) -> Result<Self, Failure> {
        if !client.is_running().await? {
            return Ok(if client.is_activatable().await? {
                Self::Idle
            } else {
                Self::NotInstalled
            });
        }
        let manager = client.manager().await?;
        let ask = async {
            Ok((
                manager.version().await?,
                manager.lingering().await?,
                manager.quarantined().await?,
            ))
        };
        let (version, lingering, quarantined) = ask
            .await
            .map_err(Failure::call("ask aegisd for its status"))?;
        let mut instances = BTreeMap::new();
        for view in client.instances().await? {
            *instances.entry(view.state).or_default() += 1;
        }
        Ok(Self::Running {
            version,
            instances,
            lingering,
            quarantined,
        })
    }
}
