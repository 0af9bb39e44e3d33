//! `tether`: messages between the host and an instance's guest.

use clap::Subcommand;

use crate::cli::Context;
use crate::failure::Failure;

mod read;

/// Read what host and guest of an instance told each other
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Command {
    Read(read::Args),
}

impl Command {
    pub(super) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Read(args) => read::execute(context, args).await,
        }
    }
}
