//! `volume`: named volumes, which instances share and which outlive them.

use aegis_bus::volumes::VolumeEntry;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::failure::Failure;

mod create;
mod inspect;
mod list;
mod prune;
mod remove;

/// Keep folders that instances share and that outlive them
///
/// --volume NAME:TARGET gives an instance or a run the volume NAME, which is made if
/// there is none.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Command {
    Create(create::Args),
    List(list::Args),
    Inspect(inspect::Args),
    Remove(remove::Args),
    Prune(prune::Args),
}

impl Command {
    pub(super) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Create(args) => create::execute(context, args).await,
            Self::List(args) => list::execute(context, args).await,
            Self::Inspect(args) => inspect::execute(context, args).await,
            Self::Remove(args) => remove::execute(context, args).await,
            Self::Prune(args) => prune::execute(context, args).await,
        }
    }
}

/// A volume for programs.
fn to_json(volume: &VolumeEntry) -> Value {
    json!({
        "name": volume.name,
        "path": volume.path,
        "created_at_us": volume.created_at_us,
        "used_by": volume.used_by,
    })
}
