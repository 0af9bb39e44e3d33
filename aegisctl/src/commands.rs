//! The commands, one file each: its flags, its call, its output.

use clap::Subcommand;

use crate::cli::Context;
use crate::failure::Failure;

mod attach;
mod chat;
mod console;
mod cp;
mod doctor;
mod down;
mod events;
mod everyday;
mod exec;
mod image;
mod import;
mod instance;
mod kill;
mod kit;
mod login;
mod logs;
mod run;
mod secret;
mod stats;
mod status;
mod tether;
mod top;
mod up;
mod version;
mod volume;
mod wait;

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Command {
    Run(Box<run::Args>),
    #[command(subcommand)]
    Instance(instance::Command),
    #[command(flatten)]
    Everyday(everyday::Command),
    #[command(subcommand)]
    Image(image::Command),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    #[command(subcommand)]
    Volume(volume::Command),
    #[command(subcommand)]
    Kit(kit::Command),
    #[command(subcommand)]
    Secret(secret::Command),
    #[command(subcommand)]
    Tether(tether::Command),
    Chat(chat::Args),
    Import(import::Args),
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
            Self::Run(_) => true,
            Self::Instance(command) => command.is_session(),
            Self::Everyday(command) => command.is_session(),
            _ => false,
        }
    }

    /// Runs the command; the value is the exit code.
    pub(crate) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Run(args) => run::execute(context, *args).await,
            Self::Instance(command) => command.execute(context).await,
            Self::Everyday(command) => command.execute(context).await,
            Self::Image(command) => command.execute(context).await,
            Self::Login(args) => login::log_in(context, args).await,
            Self::Logout(args) => login::log_out(context, &args),
            Self::Volume(command) => command.execute(context).await,
            Self::Tether(command) => command.execute(context).await,
            Self::Chat(args) => chat::execute(context, args).await,
            Self::Kit(command) => command.execute(context).await,
            Self::Secret(command) => command.execute(context).await,
            Self::Import(args) => import::execute(context, args).await,
            Self::Status(args) => status::execute(context, args).await,
            Self::Doctor(args) => doctor::execute(context, args).await,
            Self::Up(args) => up::execute(context, args).await,
            Self::Down(args) => down::execute(context, args).await,
            Self::Version(args) => version::execute(context, args).await,
        }
    }
}
