//! `instance`: commands about one instance, and the list of all.

use aegis_bus::instance::{InstanceView, StaleSecret};
use aegis_bus::job::JobState;
use clap::Subcommand;
use serde_json::{Value, json};

use super::everyday;
use crate::cli::Context;
use crate::failure::Failure;

mod delete;
mod disable;
mod enable;
mod expose;
mod hibernate;
mod info;
mod inspect;
mod keep_awake;
mod list;
mod pause;
mod prune;
mod restart;
mod resume;
mod start;
mod stop;
mod unexpose;
mod update;
mod wake;

/// Make, change and show instances
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Command {
    Start(Box<start::Args>),
    Stop(stop::Args),
    Restart(restart::Args),
    Update(Box<update::Args>),
    Expose(expose::Args),
    Unexpose(unexpose::Args),
    Pause(pause::Args),
    Resume(resume::Args),
    Hibernate(hibernate::Args),
    Wake(wake::Args),
    KeepAwake(keep_awake::Args),
    Disable(disable::Args),
    Enable(enable::Args),
    Delete(delete::Args),
    Prune(prune::Args),
    List(list::Args),
    Info(info::Args),
    Inspect(inspect::Args),
    #[command(flatten)]
    Everyday(everyday::Command),
}

impl Command {
    /// Whether the exit codes below 125 are those of a command in the guest.
    pub(super) fn is_session(&self) -> bool {
        match self {
            Self::Start(args) => args.attaches(),
            Self::Everyday(command) => command.is_session(),
            _ => false,
        }
    }

    pub(super) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Start(args) => start::execute(context, *args).await,
            Self::Stop(args) => stop::execute(context, args).await,
            Self::Restart(args) => restart::execute(context, args).await,
            Self::Update(args) => update::execute(context, *args).await,
            Self::Expose(args) => expose::execute(context, args).await,
            Self::Unexpose(args) => unexpose::execute(context, args).await,
            Self::Prune(args) => prune::execute(context, args).await,
            Self::Inspect(args) => inspect::execute(context, args).await,
            Self::Pause(args) => pause::execute(context, args).await,
            Self::Resume(args) => resume::execute(context, args).await,
            Self::Hibernate(args) => hibernate::execute(context, args).await,
            Self::Wake(args) => wake::execute(context, args).await,
            Self::KeepAwake(args) => keep_awake::execute(context, args).await,
            Self::Disable(args) => disable::execute(context, args).await,
            Self::Enable(args) => enable::execute(context, args).await,
            Self::Delete(args) => delete::execute(context, args).await,
            Self::List(args) => list::execute(context, args).await,
            Self::Info(args) => info::execute(context, args).await,
            Self::Everyday(command) => command.execute(context).await,
        }
    }
}

/// Prints what became of an operation: its outcome for programs, a sentence for people.
fn report(
    context: &Context,
    handle: &str,
    outcome: &str,
    text: impl FnOnce() -> String,
) -> Result<u8, Failure> {
    context
        .ui
        .data(|| json!({"handle": handle, "outcome": outcome}), text)?;
    Ok(crate::exit_code::OK)
}

/// The outcome of a job or a call as `report` shows it.
fn outcome_of(state: JobState) -> &'static str {
    if state == JobState::Unchanged {
        "unchanged"
    } else {
        "changed"
    }
}

/// An instance for programs, as docs/schemas/instance.json describes it. Times are in microseconds since 1970.
/// A secret of which somebody has an older value, for programs.
pub(super) fn stale_to_json(stale: &StaleSecret) -> Value {
    json!({
        "name": stale.name,
        "own": stale.own,
        "daemons": stale.daemons,
        "guest": stale.guest,
        "set_at_us": stale.set_at_us,
        "removed": stale.set_at_us == 0,
    })
}

pub(super) fn to_json(view: &InstanceView) -> Value {
    let daemon = |daemon: &aegis_bus::instance::DaemonEntry| {
        json!({
            "name": daemon.name,
            "label": daemon.label,
            "unit": daemon.unit,
            "state": daemon.state.as_str(),
            "restarts": daemon.restarts,
            "next_restart_in_us": daemon.next_restart_in_us,
            "last_exit": daemon.last_exit,
            "oom": daemon.oom,
            "since_us": daemon.since_us,
            "pid": daemon.pid,
            "config": daemon.config.as_ref().map(|config| json!({
                "path": config.path,
                "sha256": config.hash,
                "applied_us": config.applied_us,
                "problem": config.problem,
            })),
            "reads": daemon.reads,
            "writes": daemon.writes,
        })
    };
    let exit = view.last_exit.as_ref().map(|exit| {
        json!({
            "code": exit.code,
            "signal": exit.signal,
            "failure": exit.failure,
            "at_us": exit.at_us,
            "oom": exit.oom,
            "oom_host": exit.oom_host,
            "gave_up": exit.gave_up,
        })
    });
    json!({
        "handle": view.handle,
        "state": view.state,
        "state_reason": view.state_reason,
        "state_since_us": view.state_since_us,
        "enabled": view.enabled,
        "owner": view.owner,
        "kit": view.kit,
        "kit_version": view.kit_version,
        "kit_installed": view.kit_installed,
        "notes": view.notes,
        "image": view.image,
        "command": view.command,
        "memory_mib": view.memory_mib,
        "cpus": view.cpus,
        "accel": view.accel,
        "platform": view.platform,
        "kernel": view.kernel,
        "workspace": view.workspace,
        "volumes": view.volumes,
        "network": view.network,
        "allowed_hosts": view.allowed_hosts,
        "network_problem": view.network_problem,
        "ports": view.ports,
        "idle_pause": view.idle_pause,
        "idle_hibernate": view.idle_hibernate,
        "awake_because": view.awake_because,
        "sleeps": view.sleeps.as_ref().map(|sleeps| json!({
            "to": sleeps.to,
            "at_us": sleeps.at_us,
        })),
        "leases": view.leases,
        "cannot_hibernate": view.cannot_hibernate,
        "not_restored": view.not_restored,
        "labels": view.labels,
        "limits": {
            "memory_max_mib": view.limits.memory_max_mib,
            "cpu_quota": view.limits.cpu_quota,
            "tasks_max": view.limits.tasks_max,
        },
        "pending": view.pending,
        "stale": view.stale.iter().map(stale_to_json).collect::<Vec<_>>(),
        "ephemeral": view.ephemeral,
        "created_at_us": view.created_at_us,
        "unit": view.unit,
        "socket_unit": view.socket_unit,
        "slice": view.slice,
        "qemu_pid": view.qemu_pid,
        "execs": view.execs,
        "attached": view.attached,
        "terminal": view.terminal,
        "restart_policy": view.restart_policy,
        "restarts": view.restarts,
        "next_start_us": view.next_start_us,
        "last_exit": exit,
        "daemons": view.daemons.iter().map(daemon).collect::<Vec<_>>(),
        "stopped_by_hand": view.stopped_by_hand,
    })
}
