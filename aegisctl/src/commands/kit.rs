//! `kit`: what is installed.

use aegis_bus::kit::{KitDaemon, KitView};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::failure::Failure;

mod info;
mod install;
mod list;
mod remove;
mod validate;

/// Show, check, install and remove kits
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Command {
    List(list::Args),
    Info(info::Args),
    Validate(validate::Args),
    Install(install::Args),
    Remove(remove::Args),
}

impl Command {
    pub(super) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::List(args) => list::execute(context, args).await,
            Self::Info(args) => info::execute(context, args).await,
            Self::Validate(args) => validate::execute(context, &args),
            Self::Install(args) => install::execute(context, args).await,
            Self::Remove(args) => remove::execute(context, args).await,
        }
    }
}

/// A kit for programs.
fn to_json(kit: &KitView) -> Value {
    json!({
        "name": kit.name,
        "version": kit.version,
        "description": kit.description,
        "usage": kit.usage,
        "status": kit.status,
        "status_reason": kit.status_reason,
        "warnings": kit.warnings,
        "path": kit.path,
        "installed": kit.installed,
        "image": kit.image,
        "command": kit.command,
        "daemons": kit.daemons.iter().map(|daemon| daemon.name.as_str()).collect::<Vec<_>>(),
        "daemon_entries": kit.daemons.iter().map(daemon_json).collect::<Vec<_>>(),
        "inject": kit.inject,
        "files": kit.files,
        "variables": kit.variables,
        "programs": kit.programs,
    })
}

fn daemon_json(daemon: &KitDaemon) -> Value {
    json!({
        "name": daemon.name,
        "label": daemon.label,
        "binary": daemon.binary,
        "config": daemon.config,
        "reload": daemon.reload,
        "restart": daemon.restart,
        "restart_max_delay_ms": daemon.restart_max_delay_ms,
        "ready": daemon.ready,
        "memory_mib": daemon.memory_mib,
        "cpu_percent": daemon.cpu_percent,
        "tasks": daemon.tasks,
        "network": daemon.network,
        "read": daemon.read,
        "write": daemon.write,
    })
}

/// A kit's status in words: `ok`, `broken (missing: a)`, `shadowed by PATH`. What is
/// wrong with a manifest is too long for it.
fn status_words(kit: &KitView) -> String {
    match (kit.status.as_str(), kit.status_reason.as_str()) {
        ("shadowed", reason) => format!("shadowed {reason}"),
        ("broken", reason) if reason.starts_with("missing: ") => format!("broken ({reason})"),
        (status, _) => status.to_owned(),
    }
}

/// What is wrong with a kit where its status words do not say it.
fn trouble(kit: &KitView) -> Option<&str> {
    let told = status_words(kit) != kit.status || kit.status_reason.is_empty();
    (!told).then_some(kit.status_reason.as_str())
}
