//! `secret status`.

use aegis_bus::secrets::SecretsStatus;
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::ui::{Lines, Tone, clean};

/// Show how secrets are kept: what seals their key, and whether it opens
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) async fn execute(context: &Context, Args {}: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let ask = async { context.aegisd().await?.secrets_status().await };
    let status = progress.during(ask).await?;
    context.ui.data(
        || {
            json!({
                "key_state": status.key_state,
                "key_id": status.key_id,
                "key_file": status.key_file,
                "sealer": status.sealer,
                "opens_with": status.opens_with,
                "obstacle": status.obstacle,
                "values": status.values,
                "unreadable": status.unreadable,
            })
        },
        || render(context, &status),
    )?;
    Ok(exit_code::OK)
}

fn render(context: &Context, status: &SecretsStatus) -> String {
    let (tone, words) = key_words(status);
    let mut lines = Lines::default();
    lines.add_painted("Key", &context.ui.paint(tone, &clean(&words)));
    lines.detail(&status.obstacle);
    lines.add("Key id", &status.key_id);
    lines.add("Key file", &status.key_file);
    lines.add_painted("Values", &values_words(context, status));
    lines.text()
}

/// How the key is kept, and what comes next where that is not the best.
fn key_words(status: &SecretsStatus) -> (Tone, String) {
    let sealer = &status.sealer;
    match status.key_state.as_str() {
        "sealed" => {
            let with = &status.opens_with;
            (Tone::Good, format!("sealed by {sealer}, opens with {with}"))
        }
        "shut" => (Tone::Bad, format!("sealed by {sealer}, and does not open")),
        "clear" if sealer.is_empty() => (Tone::Waiting, "in clear in its file".to_owned()),
        "clear" => (
            Tone::Waiting,
            format!("in clear in its file; {sealer} seals the next: aegisctl secret rotate-key"),
        ),
        "missing" if sealer.is_empty() => (
            Tone::Plain,
            "made with the first secret, in clear in its file".to_owned(),
        ),
        "missing" => (
            Tone::Plain,
            format!("made with the first secret, sealed by {sealer}"),
        ),
        other => (Tone::Plain, other.to_owned()),
    }
}

fn values_words(context: &Context, status: &SecretsStatus) -> String {
    let SecretsStatus {
        values, unreadable, ..
    } = status;
    match unreadable {
        0 => values.to_string(),
        _ => {
            let lost = format!("{unreadable} cannot be read: aegisctl secret list");
            format!("{values}, {}", context.ui.paint(Tone::Bad, &lost))
        }
    }
}
