//! `doctor`: whether this host can do what is needed. What lies before aegisd is
//! checked here, the rest by aegisd.

use aegis_bus::manager::{CheckRow, CheckStatus};
use serde_json::{Value, json};

use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::systemd::Systemd;
use crate::ui::{Table, Tone, clean, tone_of};

/// Check whether this host has what AegisVM needs
///
/// Exits with 1 if a check failed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) async fn execute(context: &Context, Args {}: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Checking");
    let rows = progress.during(check(context)).await;
    context.ui.data(
        || json!({"checks": rows.iter().map(to_json).collect::<Vec<_>>()}),
        || render(context, &rows),
    )?;
    let failed = rows
        .iter()
        .any(|row| row.status == CheckStatus::Fail.as_str());
    Ok(if failed {
        exit_code::FAILED
    } else {
        exit_code::OK
    })
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
    let found = format!("the bus of the {} mode answers", context.mode);
    rows.push(CheckRow::new("bus", CheckStatus::Ok, found, ""));
    // That it answers is for aegisd to say; where it does not, aegisd cannot.
    if let Err(failure) = systemd_version(&client).await {
        rows.push(failed("service-manager", &failure));
    }
    match aegisd_checks(&client).await {
        Ok(checks) => {
            rows.push(CheckRow::new("aegisd", CheckStatus::Ok, "it answers", ""));
            rows.extend(checks);
        }
        Err(failure) => rows.push(failed("aegisd", &failure)),
    }
    rows
}

async fn systemd_version(client: &Client) -> Result<String, Failure> {
    Systemd::of(client).await?.version().await
}

async fn aegisd_checks(client: &Client) -> Result<Vec<CheckRow>, Failure> {
    client.start_aegisd().await?;
    let checks = client.manager().await?.check().await;
    checks.map_err(Failure::call("ask aegisd for its checks"))
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
