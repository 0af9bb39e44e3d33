//! The commands, one file each: its flags, its call, its output.

use clap::Subcommand;

use crate::cli::Context;
use crate::failure::Failure;

mod attach;
mod console;
mod cp;
mod doctor;
mod down;
mod events;
mod exec;
mod instance;
mod kill;
mod kit;
mod logs;
mod run;
mod secret;
mod stats;
mod status;
mod top;
mod up;
mod version;
mod wait;

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Command {
    Run(run::Args),
    #[command(subcommand)]
    Instance(instance::Command),
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
    #[command(subcommand)]
    Kit(kit::Command),
    #[command(subcommand)]
    Secret(secret::Command),
    Status(status::Args),
    Doctor(doctor::Args),
    Up(up::Args),
    Down(down::Args),
    Version(version::Args),
}

impl Command {
    /// Whether the exit codes below 125 are those of a command in the guest.
    pub(crate) fn is_session(&self) -> bool {
        match self {
            Self::Run(_) | Self::Exec(_) | Self::Attach(_) => true,
            Self::Instance(command) => command.is_session(),
            _ => false,
        }
    }

    /// Runs the command; the value is the exit code.
    pub(crate) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Run(args) => run::execute(context, args).await,
            Self::Instance(command) => command.execute(context).await,
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
            Self::Kit(command) => command.execute(context).await,
            Self::Secret(command) => command.execute(context).await,
            Self::Status(args) => status::execute(context, args).await,
            Self::Doctor(args) => doctor::execute(context, args).await,
            Self::Up(args) => up::execute(context, args).await,
            Self::Down(args) => down::execute(context, args).await,
            Self::Version(args) => version::execute(context, args).await,
        }
    }
}
