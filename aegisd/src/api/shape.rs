//! An instance, and aegisd, as JSON.

use aegis_bus::instance::{DaemonState, InstanceView};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::ApiError;
use super::http::Asked;
use crate::engine::Engine;
use crate::instance::{now_us, shares};

/// `GET /v1/status`.
pub(super) fn status(engine: &Engine) -> Value {
    json!({
        "status": "running",
        "version": env!("CARGO_PKG_VERSION"),
        "backend": "qemu",
        "supervisor": engine.shared().facts.name,
        "capabilities": {
            "pause_resume": true,
            "persistent_pause": false,
            "boot_from_disk_layers": true,
            "network_backend": "link",
        },
    })
}

/// `GET /v1/instances/NAME`.
pub(super) fn instance(asked: &Asked) -> Result<Value, ApiError> {
    let view = asked.engine.board().instance(asked.instance.handle());
    let view = view.ok_or_else(ApiError::no_instance)?;
    let record = asked.instance.record();
    let status = asked.instance.seen();
    let connections = status.map_or(0, |status| status.connections);
    let mut shown = render(&view, connections, now_us());
    let host = &asked.engine.shared().host;
    let path = shares::workspace_path(host, &record);
    let secrets: Vec<&String> = record.spec.secrets.keys().collect();
    let ports = &record.spec.ports;
    let endpoints: Vec<Value> = ports
        .iter()
        .map(|port| {
            json!({
                "guest_port": port.guest,
                "public_port": port.host.port(),
                "protocol": "tcp",
            })
        })
        .collect();
    let guest_ports: Vec<u16> = ports.iter().map(|port| port.guest).collect();
    for (key, part) in [
        ("workspace", path.map(|path| json!(path))),
        ("secret_keys", (!secrets.is_empty()).then(|| json!(secrets))),
        (
            "expose_ports",
            (!ports.is_empty()).then(|| json!(guest_ports)),
        ),
        ("endpoints", (!ports.is_empty()).then(|| json!(endpoints))),
    ] {
        if let Some(part) = part {
            shown[key] = part;
        }
    }
    Ok(shown)
}

/// The parts that a view tells.
fn render(view: &InstanceView, connections: u32, now: u64) -> Value {
    let is_awake = matches!(view.state.as_str(), "running" | "starting");
    let mut shown = json!({
        "id": view.handle,
        "handle": view.handle,
        "state": state(&view.state),
        "enabled": view.enabled,
        "command": view.command,
        "created_at": time(view.created_at_us),
        "last_active_at": time(if is_awake { now } else { view.state_since_us }),
        "active_connections": connections,
    });
    if state(&view.state) != view.state {
        shown["state_detail"] = json!(view.state);
    }
    if !view.state_reason.is_empty() {
        shown["state_reason"] = json!(view.state_reason);
    }
    if !view.image.is_empty() {
        shown["image_ref"] = json!(view.image);
    }
    if state(&view.state) == "stopped" {
        shown["stopped_at"] = json!(time(view.state_since_us));
    }
    if !view.kit.is_empty() {
        let runs = |daemon: &aegis_bus::instance::DaemonEntry| daemon.state == DaemonState::Running;
        shown["kit"] = json!(view.kit);
        shown["kit_version"] = json!(view.kit_version);
        shown["gateway_running"] = json!(view.daemons.iter().any(runs));
        let daemons = view
            .daemons
            .iter()
            .map(|daemon| (daemon.name.clone(), json!(daemon.state.as_str())));
        shown["daemons"] = Value::Object(daemons.collect());
    }
    shown
}

/// The original knows four states; the others are said as the nearest.
fn state(state: &str) -> &str {
    match state {
        "disabled" | "stopping" | "failed" => "stopped",
        // Nothing of it is lost, as with one that is paused.
        "hibernating" | "hibernated" => "paused",
        other => other,
    }
}

/// RFC 3339, to the microsecond.
pub(super) fn time(micros: u64) -> String {
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(micros)
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_states_are_those_of_the_original() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_500_000), "1970-01-01T00:00:01.5Z");
        for (ours, theirs) in [
            ("running", "running"),
            ("paused", "paused"),
            ("hibernated", "paused"),
            ("failed", "stopped"),
            ("disabled", "stopped"),
        ] {
            assert_eq!(state(ours), theirs);
        }
    }
}
