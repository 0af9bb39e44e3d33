//! `instance inspect`: all there is to know, for programs.

use serde_json::json;

use super::to_json;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::listing::{self, Format, FormatFlags};

/// Show everything about instances as JSON
///
/// The document is described by docs/schemas/instance-inspect.json.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instances
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    format: FormatFlags,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let mut rows = Vec::new();
    let ask = async {
        let client = context.aegisd().await?;
        let mut missing = None;
        for name in &args.names {
            match client.instance(name, &format!("inspect '{name}'")).await {
                Ok(instance) => rows.push(to_json(&client.view(&instance).await?)),
                // The others are shown all the same; the first failure is the command's.
                Err(failure) => missing = missing.or(Some(failure)),
            }
        }
        Ok::<_, Failure>(missing)
    };
    let missing = progress.during(ask).await?;
    match &args.format.format {
        Some(Format::Lines(template)) => {
            for row in &rows {
                context.ui.text(&listing::line(template, row)?)?;
            }
        }
        Some(Format::Table(template)) => {
            context
                .ui
                .text(&listing::columns(context.ui, template, &rows)?)?;
        }
        Some(Format::Json) | None => {
            let document = json!({"instances": rows});
            context.ui.document(document)?;
        }
    }
    match missing {
        Some(failure) => Err(failure),
        None => Ok(exit_code::OK),
    }
}
