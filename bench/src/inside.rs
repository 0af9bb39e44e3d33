//! What runs in the machine: every measurement, as the user alice.

mod agent;
mod cold;
mod crowd;
mod daemon;
mod egress;
mod fleet;
mod images;
mod kits;
mod link;
mod session;
mod sleep;
mod supervisors;
mod tools;
mod virtme;
mod witness;

use anyhow::{Context, Result};

use crate::row::Row;

pub(crate) use agent::STAND_INS;
pub(crate) use egress::{BYTES, SOURCE};
pub(crate) use images::{REGISTRY, REPOSITORY};
pub(crate) use sleep::answer;

/// The group that needs another host.
pub(crate) const EGRESS: &str = "egress";

/// The group that needs a registry.
pub(crate) const IMAGES: &str = "images";

/// The group that needs the Agent Kit and what stands in for its services.
pub(crate) const AGENT: &str = "agent";

/// A group of measurements, by the name `--only` takes.
type Group = (&'static str, fn() -> Result<Vec<Row>>);

const GROUPS: [Group; 10] = [
    ("cold", cold::measure),
    ("session", session::measure),
    ("link", link::measure),
    ("sleep", sleep::measure),
    (EGRESS, egress::measure),
    ("daemon", daemon::measure),
    ("kits", kits::measure),
    ("fleet", fleet::measure),
    (IMAGES, images::measure),
    (AGENT, agent::measure),
];

/// Measures and writes each row as a line of JSON to standard output.
///
/// # Errors
/// A measurement that cannot be made; those before it are written.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    for (name, measure) in GROUPS.iter().filter(|(name, _)| wanted(name)) {
        eprintln!("measuring: {name}");
        let rows = measure().with_context(|| format!("measuring {name}"))?;
        for row in rows {
            println!("{}", serde_json::to_string(&row).context("writing a row")?);
        }
    }
    Ok(())
}
