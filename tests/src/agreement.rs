//! Whether registry, units, folders and processes tell the same story: what must
//! be so again after any accident.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use crate::instance::DEADLINE;
use crate::machine::User;
use crate::seat::Seat;
use crate::wait::wait_until;

/// Waits until there is no unit, folder, socket, file half written or QEMU but
/// those of recorded instances, and gives their handles.
///
/// # Errors
/// It does not come to that; the text says what is there.
pub fn wait_for_agreement(seat: Seat<'_>) -> Result<BTreeSet<String>> {
    let mut story = String::new();
    let mut records = BTreeSet::new();
    wait_until(DEADLINE, "units, folders and records to agree", || {
        match recorded(seat) {
            Ok(recorded) => records = recorded.into_keys().collect(),
            Err(error) => {
                // An aegisd that met an accident may need a moment to be of use.
                story = format!("{error:#}");
                return Ok(false);
            }
        }
        let found = found(seat)?;
        story = format!("records {records:?}\n{found:?}");
        Ok(found.folders == records
            && found.unfinished.is_empty()
            && found.sockets.is_subset(&records)
            && found.units.is_subset(&records)
            && found.machines == found.vms)
    })
    .with_context(|| story.clone())?;
    Ok(records)
}

/// Handles in the registry and whether they are enabled, as aegisd tells them.
///
/// # Errors
/// aegisd does not answer.
pub fn recorded(seat: Seat<'_>) -> Result<BTreeMap<String, bool>> {
    let json = seat.aegis_ok("instance list --json")?;
    let listed: serde_json::Value = serde_json::from_str(&json).context("reading the list")?;
    let instances = listed["instances"].as_array().context("a list")?;
    instances
        .iter()
        .map(|instance| {
            let handle = instance["handle"].as_str().context("a handle")?;
            let enabled = instance["enabled"].as_bool().context("enabled")?;
            Ok((handle.to_owned(), enabled))
        })
        .collect()
}

/// What is there outside of the registry.
#[derive(Debug, Default)]
struct Found {
    folders: BTreeSet<String>,
    sockets: BTreeSet<String>,
    units: BTreeSet<String>,
    /// Files that a crash interrupted the writing of.
    unfinished: BTreeSet<String>,
    /// QEMU processes.
    machines: usize,
    /// Services of VMs that have a main process.
    vms: usize,
}

fn found(seat: Seat<'_>) -> Result<Found> {
    // One line, since a walk asks hundreds of times.
    let line = format!(
        "cd {home}/instances 2>/dev/null && ls | sed 's/^/folder /'
         find . -name '*.new' | sed 's/^/unfinished /'
         ls {runtime}/vm 2>/dev/null | sed 's/^/socket /'
         pgrep qemu-system | sed 's/^/machine /'; true",
        home = seat.home(),
        runtime = seat.runtime()
    );
    let listed = seat.machine().run(User::Root, &line)?.success()?;
    let mut found = Found::default();
    for line in listed.lines() {
        let (kind, name) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "folder" => drop(found.folders.insert(name.to_owned())),
            "socket" => drop(found.sockets.insert(name.to_owned())),
            "machine" => found.machines += 1,
            _ => drop(found.unfinished.insert(name.to_owned())),
        }
    }
    let units = seat
        .systemctl("list-units --all --no-legend --plain 'aegis-*'")?
        .success()?;
    for line in units.lines() {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        found.units.extend(handle_of_unit(name));
        let is_vm = name.starts_with("aegis-vm-") && name.ends_with(".service");
        found.vms += usize::from(is_vm && words.nth(1) == Some("active"));
    }
    Ok(found)
}

/// What a unit's name says of its handle.
fn handle_of_unit(unit: &str) -> Option<String> {
    let middle = unit
        .strip_prefix("aegis-vm-")
        .map(|rest| {
            rest.trim_end_matches(".socket")
                .trim_end_matches(".service")
        })
        .or_else(|| {
            let of_kit = unit.strip_prefix("aegis-kit-");
            let rest = of_kit.or_else(|| unit.strip_prefix("aegis-port-"));
            rest?.split(':').next()
        })
        .map(str::to_owned);
    middle.or_else(|| {
        let escaped = unit.strip_prefix("aegis-")?.strip_suffix(".slice")?;
        Some(escaped.replace("\\x2d", "-"))
    })
}
