//! `volume inspect`: everything about volumes, as JSON.

use aegis_core::fault::{Fault, Symbol};
use serde_json::{Value, json};

use super::to_json;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;

/// Show everything about volumes, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Their names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let list = async { context.aegisd().await?.volumes().await };
    let volumes = progress.during(list).await?;
    let of = |name: &String| -> Result<Value, Failure> {
        let found = volumes.iter().find(|volume| volume.name == *name);
        found.map(to_json).ok_or_else(|| {
            let words = format!("there is no volume '{name}'");
            let hint = "'aegisctl volume list' shows all of them";
            Failure::Said(Fault::new(Symbol::VolumeNotFound, words).with_hint(hint))
        })
    };
    let found = args.names.iter().map(of).collect::<Result<Vec<_>, _>>()?;
    context.ui.document(json!({"volumes": found}))?;
    Ok(exit_code::OK)
}
