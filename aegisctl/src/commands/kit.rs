//! `kit`: what is installed.

use clap::Subcommand;

use crate::cli::Context;
use crate::failure::Failure;

mod list;

/// Show kits
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Command {
    List(list::Args),
}

impl Command {
    pub(super) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::List(args) => list::execute(context, args).await,
        }
    }
}
