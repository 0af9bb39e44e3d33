//! `tether`: messages between the host and an instance's guest.

use clap::Subcommand;

use crate::cli::Context;
use crate::failure::Failure;

mod follow;
mod read;
mod send;

/// Talk to the program in an instance's guest, and read what was said
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Command {
    Send(send::Args),
    Read(read::Args),
    Follow(follow::Args),
}

impl Command {
    pub(super) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Send(args) => send::execute(context, args).await,
            Self::Read(args) => read::execute(context, args).await,
            Self::Follow(args) => follow::execute(context, args).await,
        }
    }
}
