//! The command line: what was typed becomes a [`Context`] and a command.

use std::ffi::OsString;
use std::path::Path;
use std::sync::OnceLock;

use aegis_bus::connect;
use aegis_core::layout::Mode;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};

use crate::client::{Agent, Client};
use crate::commands::Command;
use crate::exit_code;
use crate::failure::Failure;
use crate::ui::Ui;

/// The flags of the mode have names of their own: `run --user NAME` is the user
/// in the guest.
const MODE_USER: &str = "mode_user";
const MODE_SYSTEM: &str = "mode_system";

/// Run microVMs that your own service manager supervises.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, after_help = exit_code::TABLE)]
struct Cli {
    #[command(flatten)]
    global: GlobalFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
struct GlobalFlags {
    /// Use your own service manager: the default for ordinary users, or AEGIS_MODE=user
    ///
    /// Where --user NAME is a flag of the command, this one goes before the command.
    #[arg(long = "user", id = MODE_USER, conflicts_with = MODE_SYSTEM)]
    user: bool,
    /// Use the system's service manager: the default for root, or AEGIS_MODE=system
    #[arg(long = "system", id = MODE_SYSTEM, global = true)]
    system: bool,
    /// Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS
    ///
    /// A D-Bus address, e.g. unix:path=/run/user/1000/aegis/bus.sock. Where there is no bus
    /// this is done without being asked for.
    #[arg(long, global = true, value_name = "ADDRESS")]
    peer: Option<String>,
    /// Print data, and errors, as JSON
    #[arg(long, global = true)]
    json: bool,
    /// No progress and no notes on stderr; lists print names alone
    #[arg(short, long, global = true)]
    quiet: bool,
}

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) ui: Ui,
    pub(crate) mode: Mode,
    /// Asks for passwords from the first connection to the end of the program.
    agent: OnceLock<Option<Agent>>,
    /// The D-Bus address of aegisd's own socket, where one was named.
    pub(crate) peer: Option<String>,
}

impl Context {
    /// A way to aegisd, which runs or is started.
    pub(crate) async fn aegisd(&self) -> Result<Client, Failure> {
        let client = self.client().await?;
        client.start_aegisd().await?;
        Ok(client)
    }

    /// A connection to the bus of the chosen mode. Calls to aegisd start it.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let client = Client::connect(self.mode, self.peer.as_deref()).await?;
        self.agent.get_or_init(|| Agent::start(self.mode));
        Ok(client)
    }
}

/// Runs the program and returns its exit code.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> u8 {
    let cli = match parse(args.collect()) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() {
                exit_code::USAGE
            } else {
                exit_code::OK
            };
            // Nobody reads it: there is nobody to tell.
            error.print().ok();
            return code;
        }
    };
    let ui = Ui::new(cli.global.json, cli.global.quiet);
    let in_session = cli.command.is_session();
    start(ui, &cli.global, cli.command).unwrap_or_else(|failure| {
        if !matches!(failure, Failure::BrokenPipe) {
            ui.failure(&failure);
        }
        failure.exit_code(in_session)
    })
}

fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let matches = command_named_after(args.first()).try_get_matches_from(args)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    cli.global.user |= is_user_mode(&matches);
    Ok(cli)
}

fn start(ui: Ui, global: &GlobalFlags, command: Command) -> Result<u8, Failure> {
    let mode = choose_mode(
        global,
        std::env::var("AEGIS_MODE").ok(),
        nix::unistd::geteuid().as_raw(),
    )?;
    // Values of secrets pass through this memory: no core file, whatever the shell allows.
    aegis_os::dumps::forbid().map_err(|source| Failure::Io {
        what: "forbid memory dumps",
        source,
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::Io {
            what: "start the event loop",
            source,
        })?;
    let peer = global.peer.clone().or_else(|| {
        let told = std::env::var(connect::PEER_ENV).ok();
        told.filter(|address| !address.is_empty())
    });
    let context = Context {
        ui: match Agent::may_ask(mode) {
            true => ui.without_progress(),
            false => ui,
        },
        mode,
        agent: OnceLock::new(),
        peer,
    };
    let result = runtime.block_on(command.execute(&context));
    // A thread that still reads stdin must not hold the process.
    runtime.shutdown_background();
    result
}

/// The command, called by the name it was started with.
pub(crate) fn command_named_after(program: Option<&OsString>) -> clap::Command {
    let command = Cli::command();
    let command = command.mut_subcommands(accept_user_mode);
    match program.and_then(|program| Path::new(program).file_name()?.to_str()) {
        Some("aegis") => command.name("aegis").bin_name("aegis"),
        _ => command.name("aegisctl").bin_name("aegisctl"),
    }
}

/// Lets `--user` follow a command too, as with systemctl(1), unless the command
/// has a `--user` of its own.
fn accept_user_mode(command: clap::Command) -> clap::Command {
    let taken = command
        .get_arguments()
        .any(|arg| arg.get_long() == Some("user"));
    let command = if taken || command.has_subcommands() {
        command
    } else {
        let flag = Arg::new(MODE_USER)
            .long("user")
            .action(ArgAction::SetTrue)
            .conflicts_with(MODE_SYSTEM)
            .hide(true);
        command.arg(flag)
    };
    command.mut_subcommands(accept_user_mode)
}

/// Whether `--user` was given, before or after the command.
fn is_user_mode(matches: &ArgMatches) -> bool {
    let here = matches.try_get_one(MODE_USER).ok().flatten() == Some(&true);
    here || matches
        .subcommand()
        .is_some_and(|(_, matches)| is_user_mode(matches))
}

fn choose_mode(global: &GlobalFlags, env: Option<String>, uid: u32) -> Result<Mode, Failure> {
    if global.system {
        return Ok(Mode::System);
    }
    if global.user {
        return Ok(Mode::User);
    }
    match env.as_deref() {
        None | Some("") => Ok(Mode::default_for(uid)),
        Some("user") => Ok(Mode::User),
        Some("system") => Ok(Mode::System),
        Some(_) => Err(Failure::Mode(env.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        super::parse(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn the_definition_is_consistent() {
        command_named_after(None).debug_assert();
    }

    #[test]
    fn every_documented_command_is_understood() {
        for line in [
            "aegisctl run -- echo hello",
            "aegisctl run --memory 512 --cpus 2 --workspace . --env A=b --workdir /tmp --user nobody --accel tcg --expose 8080:80 -t -- sh -c true",
            "aegisctl instance start --kit agent --name my-agent --env KEY=v -- sh",
            "aegisctl instance start --name my-agent",
            "aegisctl instance start --name a --restart on-failure:3 --detach --replace -- sh",
            "aegisctl instance start --no-terminal --detach-keys ctrl-a,d -- sh",
            "aegisctl cp a:/etc/hosts .",
            "aegisctl cp -a -L ./tree a:/srv",
            "aegisctl cp - a:/srv",
            "aegisctl attach a",
            "aegisctl attach --detach-keys= a",
            "aegisctl console a --follow --tail 5",
            "aegisctl instance stop a",
            "aegisctl instance pause a",
            "aegisctl instance resume a",
            "aegisctl instance disable a",
            "aegisctl instance enable a",
            "aegisctl instance delete a",
            "aegisctl instance list --json",
            "aegisctl instance info a",
            "aegisctl exec a -it --user nobody -- sh",
            "aegisctl logs a --follow",
            "aegisctl logs a b --since -1h --until 2026-02-28 -n 5 -t",
            "aegisctl logs a --daemon gateway",
            "aegisctl instance restart a --grace 3",
            "aegisctl instance update a --memory 1G --cpu-quota 50 --label k=v --env A=b",
            "aegisctl instance inspect a b --format {{.State}}",
            "aegisctl instance prune --older-than 7d --filter label=k=v --dry-run --force",
            "aegisctl instance list -q --filter state=running --format json",
            "aegisctl run --label k=v --env-file f --memory-max 1G -- true",
            "aegisctl top a",
            "aegisctl stats a b --no-stream --interval 5s",
            "aegisctl instance logs --daemon gateway a",
            "aegisctl instance exec a -it --user nobody -- sh",
            "aegisctl kill -s TERM a b",
            "aegisctl wait a b --condition ready --timeout 5m",
            "aegisctl events --filter type=instance --json",
            "aegisctl --user exec a --user nobody -- id",
            "aegisctl --system status",
            "aegisctl status --peer unix:path=/run/user/1000/aegis/bus.sock",
            "aegisctl doctor",
            "aegisctl up",
            "aegisctl down --all",
            "aegisctl version",
            "aegisctl run -v ./a:/a:ro --volume cache:/c -- true",
            "aegisctl instance update a --volume cache:/c --volume-remove /a",
            "aegisctl volume create cache",
            "aegisctl volume ls --format {{.Name}}",
            "aegisctl volume inspect cache other",
            "aegisctl volume rm cache other",
            "aegisctl volume prune --dry-run --force",
            "aegisctl tether read a --channel ui --session default --type user.message --tail 5",
            "aegisctl import --from /home/a/.aegis --skip a --rename b=c --dry-run --json",
            "aegisctl kit list --json",
            "aegisctl kit info agent",
            "aegisctl kit validate ./agent --name agent",
            "aegisctl kit install ./agent",
            "aegisctl kit remove --force agent",
            "aegisctl instance start --kit agent --image '' --capability spawn=false",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_is_unknown_or_incomplete_is_an_error() {
        for line in [
            "aegisctl",
            "aegisctl frobnicate",
            "aegisctl run",
            "aegisctl run --",
            "aegisctl run --frobnicate -- true",
            "aegisctl exec a",
            "aegisctl instance stop",
            "aegisctl instance start --replace",
            "aegisctl instance start --restart sometimes",
            "aegisctl volume remove",
            "aegisctl instance update a --volume-remove data",
            "aegisctl attach",
            "aegisctl --user --system status",
            "aegisctl status --user --system",
            "aegisctl exec a --user -- true",
            "aegisctl status extra",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_mode_is_flag_then_environment_then_user() {
        let mode = |line: &str, env: Option<&str>, uid| {
            choose_mode(&parse(line).unwrap().global, env.map(str::to_owned), uid)
        };
        assert_eq!(mode("a status", None, 0).unwrap(), Mode::System);
        assert_eq!(mode("a status", None, 1000).unwrap(), Mode::User);
        assert_eq!(mode("a status", Some("user"), 0).unwrap(), Mode::User);
        assert_eq!(
            mode("a --system status", Some("user"), 1).unwrap(),
            Mode::System
        );
        assert_eq!(mode("a status --user", None, 0).unwrap(), Mode::User);
        assert_eq!(mode("a instance list --user", None, 0).unwrap(), Mode::User);
        assert_eq!(mode("a status --system", None, 1).unwrap(), Mode::System);
        assert_eq!(
            mode("a exec b --user nobody -- id", None, 0).unwrap(),
            Mode::System
        );
        assert!(mode("a status", Some("root"), 0).is_err());
    }
}
