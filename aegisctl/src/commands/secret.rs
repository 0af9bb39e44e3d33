//! `secret`: values that are kept encrypted.

use clap::Subcommand;

use crate::cli::Context;
use crate::failure::Failure;

mod delete;
mod list;
mod set;

/// Keep values that instances use and nobody sees
///
/// --env NAME gives an instance, a run or an exec the secret NAME.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Command {
    Set(set::Args),
    List(list::Args),
    Delete(delete::Args),
}

impl Command {
    pub(super) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Set(args) => set::execute(context, args).await,
            Self::List(args) => list::execute(context, args).await,
            Self::Delete(args) => delete::execute(context, args).await,
        }
    }
}
