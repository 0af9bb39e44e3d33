//! `secret`: values that are kept encrypted.

use clap::Subcommand;

use crate::cli::Context;
use crate::failure::Failure;

mod apply;
mod delete;
mod import;
mod list;
mod log;
mod rotate_key;
mod set;
mod status;

/// Keep values that instances use and nobody sees
///
/// --env NAME gives an instance, a run or an exec the secret NAME.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Command {
    Set(set::Args),
    Import(import::Args),
    List(list::Args),
    Delete(delete::Args),
    Log(log::Args),
    Status(status::Args),
    RotateKey(rotate_key::Args),
}

impl Command {
    pub(super) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Set(args) => set::execute(context, args).await,
            Self::Import(args) => import::execute(context, args).await,
            Self::List(args) => list::execute(context, args).await,
            Self::Delete(args) => delete::execute(context, args).await,
            Self::Log(args) => log::execute(context, &args),
            Self::Status(args) => status::execute(context, args).await,
            Self::RotateKey(args) => rotate_key::execute(context, args).await,
        }
    }
}
