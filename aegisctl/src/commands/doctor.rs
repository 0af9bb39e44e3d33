//! `doctor`: whether this host can do what is needed. What lies before aegisd is
//! checked here, the rest by aegisd; what can be repaired is, with `--fix`.

mod remedy;
mod repair;

use aegis_bus::manager::{CheckRow, CheckStatus};
use serde_json::{Value, json};

use super::version;
use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::launchd::Launchd;
use crate::systemd::Systemd;
use crate::ui::{Table, Tone, clean, tone_of};
use remedy::remedy;
use repair::Outcome;

/// Check whether this host has what AegisVM needs
///
/// Exits with 1 if a check failed. With --fix, what an installation can get wrong is
/// repaired: missing packages, the group of /dev/kvm, lingering, unit files that the service
/// manager has not read, an aegisd that is older than its files. Each command is shown
/// before it is run; what takes root is run by sudo.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Repair what can be repaired, then check again
    #[arg(long)]
    fix: bool,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let looking = |what| async move {
        let progress = context.ui.progress(what);
        progress.during(check(context)).await
    };
    let mut rows = looking("Checking").await;
    let mut repairs = Vec::new();
    if args.fix {
        repairs = repair_all(context, &rows);
        if !repairs.is_empty() {
            rows = looking("Checking again").await;
        }
    }
    context.ui.data(
        || {
            json!({
                "checks": rows.iter().map(to_json).collect::<Vec<_>>(),
                "repairs": repairs.iter().map(Repair::to_json).collect::<Vec<_>>(),
            })
        },
        || render(context, &rows),
    )?;
    let host = repair::host(context.mode);
    let more = rows.iter().filter(|row| remedy(row, &host).is_some());
    if !args.fix && more.count() > 0 {
        context
            .ui
            .note("hint: aegisctl doctor --fix repairs what it can");
    }
    let failed = rows
        .iter()
        .any(|row| row.status == CheckStatus::Fail.as_str());
    Ok(if failed {
        exit_code::FAILED
    } else {
        exit_code::OK
    })
}

/// A command that was run to repair a check.
struct Repair {
    id: String,
    command: String,
    outcome: Outcome,
}

impl Repair {
    fn to_json(&self) -> Value {
        let (outcome, why) = match &self.outcome {
            Outcome::Done => ("done", ""),
            Outcome::NeedsRoot => ("needs-root", ""),
            Outcome::Failed(why) => ("failed", why.as_str()),
        };
        json!({"id": self.id, "command": self.command, "outcome": outcome, "why": why})
    }
}

/// Repairs one check after the other; none is a reason to leave out the rest.
fn repair_all(context: &Context, rows: &[CheckRow]) -> Vec<Repair> {
    let host = repair::host(context.mode);
    let mut repairs: Vec<Repair> = Vec::new();
    for row in rows {
        let Some(remedy) = remedy(row, &host) else {
            continue;
        };
        let command = remedy.command.join(" ");
        // Two checks may need the same.
        if repairs.iter().any(|repair| repair.command == command) {
            continue;
        }
        context.ui.note(&format!("repairing {}: {command}", row.id));
        let outcome = repair::run(&remedy);
        match &outcome {
            Outcome::Done if remedy.afterwards.is_empty() => {}
            Outcome::Done => context.ui.note(&format!("now {}", remedy.afterwards)),
            Outcome::NeedsRoot => {
                context
                    .ui
                    .note(&format!("that takes root, who can run: {command}"));
            }
            Outcome::Failed(why) => context.ui.note(&format!("not repaired: {why}")),
        }
        repairs.push(Repair {
            id: row.id.clone(),
            command,
            outcome,
        });
    }
    repairs
}

/// Every check that can be made. The first that fails hides those behind it.
async fn check(context: &Context) -> Vec<CheckRow> {
    let mut rows = Vec::new();
    let client = match context.client().await {
        Ok(client) => client,
        Err(failure) => {
            rows.push(failed("bus", &failure));
            return rows;
        }
    };
    if client.is_peer() {
        let found = "there is no bus: aegisd is spoken to on a socket of its own";
        rows.push(CheckRow::new("bus", CheckStatus::Ok, found, ""));
        rows.extend(Launchd::of(context.mode).map(|launchd| of_launchd(&launchd)));
    } else {
        let found = format!("the bus of the {} mode answers", context.mode);
        rows.push(CheckRow::new("bus", CheckStatus::Ok, found, ""));
        // That it answers is for aegisd to say; where it does not, aegisd cannot.
        match unit_files(&client).await {
            Ok(row) => rows.push(row),
            Err(failure) => rows.push(failed("service-manager", &failure)),
        }
    }
    match aegisd_checks(&client).await {
        Ok((version, checks)) => {
            rows.push(CheckRow::new("aegisd", CheckStatus::Ok, "it answers", ""));
            rows.push(of_version(&version));
            rows.extend(checks);
        }
        Err(failure) => rows.push(failed("aegisd", &failure)),
    }
    rows
}

/// Whether the service manager knows the unit files of aegisd as they are now.
async fn unit_files(client: &Client) -> Result<CheckRow, Failure> {
    let systemd = Systemd::of(client).await?;
    // Where systemd does not answer, that is what is told.
    systemd.version().await?;
    let stale = systemd.stale_units().await?;
    if stale.is_empty() {
        let found = "the service manager has read the units of aegisd as they are";
        return Ok(CheckRow::new("unit-files", CheckStatus::Ok, found, ""));
    }
    let found = format!(
        "changed since the service manager has read them: {}",
        stale.join(", ")
    );
    let hint = "systemctl daemon-reload, with --user for user mode";
    Ok(CheckRow::new("unit-files", CheckStatus::Warn, found, hint))
}

/// Whether launchd keeps aegisd running.
fn of_launchd(launchd: &Launchd) -> CheckRow {
    match launchd.has_aegisd() {
        Ok(true) => {
            let found = format!("launchd has the job {}", launchd.target());
            CheckRow::new("launchd", CheckStatus::Ok, found, "")
        }
        Ok(false) => {
            let missing = Failure::NotLoaded {
                target: launchd.target().to_owned(),
            };
            failed("launchd", &missing)
        }
        Err(failure) => failed("launchd", &failure),
    }
}

/// Whether the aegisd that runs is the one that belongs to this program.
fn of_version(running: &str) -> CheckRow {
    let own = version::OWN;
    if running == own {
        let found = format!("aegisd and aegisctl are version {own}");
        return CheckRow::new("version", CheckStatus::Ok, found, "");
    }
    let found = format!("aegisd is version {running}, aegisctl is {own}");
    let hint = match cfg!(target_os = "macos") {
        true => "launchctl kickstart -k gui/$(id -u)/org.aegisvm.aegisd; nothing else notices",
        false => {
            "systemctl restart aegisd.service, with --user for user mode; nothing else notices"
        }
    };
    CheckRow::new("version", CheckStatus::Warn, found, hint)
}

async fn aegisd_checks(client: &Client) -> Result<(String, Vec<CheckRow>), Failure> {
    client.start_aegisd().await?;
    let manager = client.manager().await?;
    let asked = Failure::call("ask aegisd for its checks");
    let checks = manager.check().await.map_err(asked)?;
    let asked = Failure::call("ask aegisd for its version");
    Ok((manager.version().await.map_err(asked)?, checks))
}

fn failed(id: &str, failure: &Failure) -> CheckRow {
    let hint = failure.hint().unwrap_or_default();
    CheckRow::new(id, CheckStatus::Fail, failure.message(), hint)
}

fn render(context: &Context, rows: &[CheckRow]) -> String {
    let mut table = Table::new(&["CHECK", "STATUS", "FOUND"]);
    for row in rows {
        table.row(vec![
            (Tone::Plain, row.id.clone()),
            (tone_of(&row.status), row.status.clone()),
            (Tone::Plain, row.summary.clone()),
        ]);
    }
    let mut text = table.render(context.ui);
    for row in rows.iter().filter(|row| !row.hint.is_empty()) {
        text.push_str(&format!("hint: {}: {}\n", clean(&row.id), clean(&row.hint)));
    }
    text
}

fn to_json(row: &CheckRow) -> Value {
    json!({
        "id": row.id,
        "status": row.status,
        "summary": row.summary,
        "hint": row.hint,
    })
}
