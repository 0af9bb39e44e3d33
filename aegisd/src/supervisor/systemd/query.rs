//! Reading the state of a unit from its D-Bus properties.

use std::collections::HashMap;

use aegis_core::units::UnitKind;
use zbus::{Connection, ObjectPath, OwnedVariant};

use super::manager::ListedUnit;
use super::units::MICROS_PER_PERCENT;
use crate::supervisor::state::{Active, ProcessEnd, RunResult, UnitState};
use crate::supervisor::{Limits, UnitId, Usage};

type Properties = HashMap<String, OwnedVariant>;

/// A unit that the manager listed; `None` if it is no more than a name, or gone since.
///
/// # Errors
/// The bus failed.
pub(super) async fn unit_state(
    connection: &Connection,
    unit: UnitId,
    row: &ListedUnit,
) -> zbus::Result<Option<UnitState>> {
    let (_, _, load, state, sub, _, object, job, ..) = row;
    if load != LOADED {
        return Ok(None);
    }
    let (specific, has_processes) = match unit.kind {
        UnitKind::Slice => ("org.freedesktop.systemd1.Slice", false),
        UnitKind::Socket | UnitKind::ApiSocket | UnitKind::PortSocket(_) => {
            ("org.freedesktop.systemd1.Socket", false)
        }
        UnitKind::Vm | UnitKind::Daemon(_) | UnitKind::Door | UnitKind::PortDoor(_) => {
            ("org.freedesktop.systemd1.Service", true)
        }
    };
    let active = active(state);
    if !has_processes && active != Active::Failed {
        // A unit has hundreds of properties, and one without processes has nothing
        // more to tell by them.
        return Ok(Some(UnitState {
            active,
            sub: sub.clone(),
            stopping: *job != 0 && active == Active::Deactivating,
            ..read(unit, &Properties::new(), &Properties::new())
        }));
    }
    let (general, specific) = tokio::try_join!(
        properties(connection, object, "org.freedesktop.systemd1.Unit"),
        properties(connection, object, specific)
    )?;
    let is_loaded = text(&general, "LoadState") == LOADED;
    Ok(is_loaded.then(|| read(unit, &general, &specific)))
}

/// The load state of a unit that has settings and not just a name.
pub(super) const LOADED: &str = "loaded";

#[expect(clippy::disallowed_methods, reason = "reading changes nothing")]
pub(super) async fn properties(
    connection: &Connection,
    object: &ObjectPath<'_>,
    interface: &str,
) -> zbus::Result<Properties> {
    let reply = connection
        .call_method(
            Some("org.freedesktop.systemd1"),
            object,
            Some("org.freedesktop.DBus.Properties"),
            "GetAll",
            &interface,
        )
        .await?;
    reply.body().deserialize()
}

fn read(unit: UnitId, general: &Properties, specific: &Properties) -> UnitState {
    let sub = text(general, "SubState");
    let since = number(general, "StateChangeTimestamp");
    let status = text(specific, "StatusText");
    let next_restart = if sub.starts_with("auto-restart") {
        // Newer managers tell the delay now in force; older ones have only one.
        let delay = specific
            .get("RestartUSecNext")
            .map_or_else(|| number(specific, "RestartUSec"), value_number);
        Some(since.saturating_add(delay))
    } else {
        shim_wait(&status).map(|wait| since.saturating_add(wait))
    };
    UnitState {
        unit,
        active: active(&text(general, "ActiveState")),
        result: run_result(&text(specific, "Result")),
        restarts: u32::try_from(number(specific, "NRestarts")).unwrap_or(u32::MAX),
        next_restart,
        main_pid: u32::try_from(number(specific, "MainPID"))
            .ok()
            .filter(|&pid| pid != 0),
        run: invocation(general),
        last_end: process_end(
            signed(specific, "ExecMainCode"),
            signed(specific, "ExecMainStatus"),
        ),
        started: number(specific, "ExecMainStartTimestamp"),
        since,
        control_group: text(specific, "ControlGroup"),
        stopping: is_stopping(general),
        limits: limits(specific),
        sub,
        status,
    }
}

/// `InvocationID`, in hexadecimal as systemd writes it elsewhere.
fn invocation(general: &Properties) -> String {
    let id = general.get("InvocationID");
    let id = id.and_then(|id| id.try_clone().ok());
    let id = id.and_then(|id| Vec::<u8>::try_from(id).ok());
    let bytes = id.unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn limits(specific: &Properties) -> Limits {
    let percent = figure(specific, "CPUQuotaPerSecUSec").map(|micros| micros / MICROS_PER_PERCENT);
    Limits {
        memory_max: figure(specific, "MemoryMax"),
        tasks_max: figure(specific, "TasksMax"),
        cpu_percent: percent.map(|percent| u32::try_from(percent).unwrap_or(u32::MAX)),
    }
}

/// What a service uses.
///
/// # Errors
/// The bus failed.
pub(super) async fn usage(connection: &Connection, object: &ObjectPath<'_>) -> zbus::Result<Usage> {
    let service = properties(connection, object, "org.freedesktop.systemd1.Service").await?;
    Ok(Usage {
        memory: figure(&service, "MemoryCurrent"),
        cpu_ns: figure(&service, "CPUUsageNSec"),
        tasks: figure(&service, "TasksCurrent"),
    })
}

/// A figure; systemd writes the largest number where it has none or there is no limit.
fn figure(properties: &Properties, name: &str) -> Option<u64> {
    let number = properties.get(name).map(value_number)?;
    (number != u64::MAX).then_some(number)
}

/// How the main process of a service of any name last ended.
///
/// # Errors
/// The bus failed.
pub(super) async fn last_end(
    connection: &Connection,
    object: &ObjectPath<'_>,
) -> zbus::Result<Option<ProcessEnd>> {
    let service = properties(connection, object, "org.freedesktop.systemd1.Service").await?;
    Ok(process_end(
        signed(&service, "ExecMainCode"),
        signed(&service, "ExecMainStatus"),
    ))
}

/// Whether a stop job is under way. The `Job` property does not tell its type, but a
/// unit that goes down while it has a job is being stopped.
fn is_stopping(general: &Properties) -> bool {
    let job = general.get("Job").and_then(|job| job.try_clone().ok());
    let job = job.and_then(|job| <(u32, zbus::OwnedObjectPath)>::try_from(job).ok());
    job.is_some_and(|(number, _)| number != 0) && text(general, "ActiveState") == "deactivating"
}

/// How long aegis-shim waits before it becomes the daemon, in microseconds, read
/// from what it says: `waiting 3.200 s after 5 failures`.
fn shim_wait(status: &str) -> Option<u64> {
    let (seconds, _) = status.strip_prefix("waiting ")?.split_once(" s after ")?;
    let (whole, millis) = seconds.split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    let millis: u64 = millis.parse().ok().filter(|_| millis.len() == 3)?;
    whole.checked_mul(1_000_000)?.checked_add(millis * 1000)
}

fn active(word: &str) -> Active {
    match word {
        "active" | "refreshing" => Active::Active,
        "reloading" => Active::Reloading,
        "failed" => Active::Failed,
        "activating" => Active::Activating,
        "deactivating" | "maintenance" => Active::Deactivating,
        _ => Active::Inactive,
    }
}

fn run_result(word: &str) -> RunResult {
    match word {
        "success" | "" => RunResult::Success,
        "exit-code" => RunResult::ExitCode,
        "signal" => RunResult::Signal,
        "core-dump" => RunResult::CoreDump,
        "watchdog" => RunResult::Watchdog,
        "timeout" => RunResult::Timeout,
        "oom-kill" => RunResult::OutOfMemory,
        "protocol" => RunResult::Protocol,
        "resources" => RunResult::Resources,
        other => RunResult::Other(other.to_owned()),
    }
}

/// `ExecMainCode` is a `CLD_` value of sigaction(2), 0 while no process ended.
fn process_end(code: i64, status: i64) -> Option<ProcessEnd> {
    const EXITED: i64 = 1;
    const KILLED: i64 = 2;
    const DUMPED: i64 = 3;
    let status = i32::try_from(status).ok()?;
    match code {
        EXITED => Some(ProcessEnd::Code(status)),
        KILLED | DUMPED => Some(ProcessEnd::Signal(status)),
        _ => None,
    }
}

fn text(properties: &Properties, name: &str) -> String {
    properties
        .get(name)
        .and_then(|value| <&str>::try_from(value).ok())
        .unwrap_or_default()
        .to_owned()
}

fn number(properties: &Properties, name: &str) -> u64 {
    properties.get(name).map_or(0, value_number)
}

fn value_number(value: &OwnedVariant) -> u64 {
    u64::try_from(value)
        .or_else(|_| u32::try_from(value).map(u64::from))
        .unwrap_or(0)
}

fn signed(properties: &Properties, name: &str) -> i64 {
    properties
        .get(name)
        .and_then(|value| i32::try_from(value).ok())
        .map_or(0, i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shims_wait_is_read_from_its_words() {
        assert_eq!(
            shim_wait("waiting 3.200 s after 5 failures"),
            Some(3_200_000)
        );
        assert_eq!(
            shim_wait("waiting 60.000 s after 1 failure"),
            Some(60_000_000)
        );
        for status in [
            "",
            "waiting",
            "waiting x s after 1 failure",
            "waiting 1.2 s after",
        ] {
            assert_eq!(shim_wait(status), None, "{status:?}");
        }
        assert_eq!(
            shim_wait("waiting 18446744073709551615.000 s after 1 failure"),
            None
        );
    }

    #[test]
    fn ends_are_codes_or_signals() {
        assert_eq!(process_end(0, 0), None);
        assert_eq!(process_end(1, 78), Some(ProcessEnd::Code(78)));
        assert_eq!(process_end(2, 9), Some(ProcessEnd::Signal(9)));
        assert_eq!(process_end(3, 6), Some(ProcessEnd::Signal(6)));
    }
}
