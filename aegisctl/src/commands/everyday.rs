//! Commands that are there twice, as `aegisctl logs` and as `aegisctl instance logs`:
//! what people do every day with an instance that exists.

use clap::Subcommand;

use super::{attach, console, cp, events, exec, kill, logs, stats, top, wait};
use crate::cli::Context;
use crate::failure::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Exec(exec::Args),
    Attach(attach::Args),
    Console(console::Args),
    Cp(cp::Args),
    Logs(logs::Args),
    Top(top::Args),
    Stats(stats::Args),
    Kill(kill::Args),
    Wait(wait::Args),
    Events(events::Args),
}

impl Command {
    /// Whether the exit codes below 125 are those of a command in the guest.
    pub(super) fn is_session(&self) -> bool {
        matches!(self, Self::Exec(_) | Self::Attach(_))
    }

    pub(super) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Exec(args) => exec::execute(context, args).await,
            Self::Attach(args) => attach::execute(context, args).await,
            Self::Console(args) => console::execute(context, args).await,
            Self::Cp(args) => cp::execute(context, args).await,
            Self::Logs(args) => logs::execute(context, args).await,
            Self::Top(args) => top::execute(context, args).await,
            Self::Stats(args) => stats::execute(context, args).await,
            Self::Kill(args) => kill::execute(context, args).await,
            Self::Wait(args) => wait::execute(context, args).await,
            Self::Events(args) => events::execute(context, args).await,
        }
    }
}
