//! What a walk looks for on the machine, as a user would.

use anyhow::{Result, ensure};

use super::HANDLE;
use crate::seat::Seat;

/// Whether this greeting is the last that a daemon that runs has read.
pub(super) fn says(seat: Seat<'_>, daemon: &str, greeting: &str) -> Result<bool> {
    let unit = format!("aegis-kit-{HANDLE}:{daemon}.service");
    let id = seat.unit_property(&unit, "InvocationID")?;
    let scope = seat.scope();
    let line = format!("journalctl {scope} --quiet --output=cat _SYSTEMD_INVOCATION_ID={id}");
    let said = seat.run(&line)?.text();
    let read = said.lines().rfind(|line| line.starts_with("config "));
    Ok(read.is_some_and(|line| line.contains(&format!("\"{greeting}\""))))
}

/// Whether the message of the walk is kept; never twice.
pub(super) fn is_told(seat: Seat<'_>) -> Result<bool> {
    let read = seat.aegis_ok(&format!("--json tether read {HANDLE}"))?;
    let kept = read.matches("\"msg_id\":\"walk-message\"").count();
    ensure!(kept <= 1, "the message is kept {kept} times");
    Ok(kept == 1)
}

/// Whether a pull or an import is under way, or has left something.
pub(super) fn is_pulling(seat: Seat<'_>) -> Result<bool> {
    let work = seat.run(&format!("ls -d {}/images/work/pull-*", seat.home()))?;
    Ok(!work.text().is_empty())
}

/// Whether an image is listed, with the files of its layers, which are all there are.
pub(super) fn has_image(seat: Seat<'_>, name: &str, layers: usize) -> Result<bool> {
    let listed = seat.aegis_ok("image list --json")?.contains(name);
    let found = format!("ls {}/images/layers/*.squashfs | wc -l", seat.home());
    let found = seat.run(&found)?.text();
    ensure!(
        !listed || found == layers.to_string(),
        "listed with {found} layers of {layers}"
    );
    Ok(listed)
}

/// Whether the port of the walk is open.
pub(super) fn is_exposed(seat: Seat<'_>) -> Result<bool> {
    let socket = format!("aegis-port-{HANDLE}:127.0.0.1:18141:80.socket");
    Ok(seat.active_state(&socket)? == "active")
}

/// Whether the VM's unit has the volume of the walk.
pub(super) fn is_shown(seat: Seat<'_>) -> Result<bool> {
    let binds = seat.unit_property(&format!("aegis-vm-{HANDLE}.service"), "BindPaths")?;
    Ok(binds.contains("/volumes/walk-more"))
}

/// Whether the key of secrets is the one that was noted, or another one; either way the
/// secret of the walk can be read, and there is no second key.
pub(super) fn has_key(seat: Seat<'_>, noted: bool) -> Result<bool> {
    let line = format!(
        "test -s ~/walk-key && aegisctl secret list | grep -q '^WALK *kept' \
             && test \"$(ls {}/secrets*)\" = {0}/secrets.key \
             && aegisctl secret status | grep '^Key id:'",
        seat.home()
    );
    let key = seat.run(&line)?;
    if key.code() != 0 {
        return Ok(false);
    }
    let before = seat.run("cat ~/walk-key")?.text();
    Ok((key.text() == before) == noted)
}

/// Whether the VM's unit has the limit of the walk.
pub(super) fn is_limited(seat: Seat<'_>) -> Result<bool> {
    let unit = format!("aegis-vm-{HANDLE}.service");
    Ok(seat.unit_property(&unit, "CPUQuotaPerSecUSec")? == "700ms")
}

pub(super) fn is_noted(seat: Seat<'_>, daemon: &str) -> Result<bool> {
    let info = seat.aegis(&format!("instance info {HANDLE}"))?.text();
    let noted = |line: &str| line.starts_with("Stopped:") && line.contains(daemon);
    Ok(info.lines().any(noted))
}

pub(super) fn is_leased(seat: Seat<'_>) -> Result<bool> {
    let info = seat.aegis(&format!("instance info {HANDLE}"))?.text();
    Ok(info.lines().any(|line| line.starts_with("Lease:")))
}

pub(super) fn info_has(seat: Seat<'_>, state: &str) -> Result<bool> {
    let info = seat.aegis(&format!("instance info {HANDLE}"))?.text();
    let found = |line: &str| line.starts_with("State:") && line.contains(state);
    Ok(info.lines().any(found))
}
