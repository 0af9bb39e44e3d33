//! `login` and `logout`: the credentials for a registry, kept where podman and its
//! relatives keep them (containers-auth.json(5)).

use std::path::Path;

use aegis_image::auth::{LoggedOut, login, logout};
use aegis_image::environment::Environment;
use aegis_image::name::DEFAULT_REGISTRY;
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::flags::RegistryFlags;
use crate::session::Signals;
use crate::typed;

/// Keep the credentials for a registry, once it has accepted them
///
/// The password is asked for on a terminal, else read from stdin. Whoever may read your
/// files can read it: a credential helper keeps it better.
#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// The registry
    #[arg(default_value = DEFAULT_REGISTRY, value_name = "HOST[:PORT]")]
    host: String,
    /// The user's name there
    #[arg(short, long)]
    username: String,
    /// Read the password from stdin, also where that is a terminal
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    registry: RegistryFlags,
}

/// Forget the credentials for a registry
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// The registry
    #[arg(default_value = DEFAULT_REGISTRY, value_name = "HOST[:PORT]")]
    host: String,
}

pub(super) async fn log_in(context: &Context, args: LoginArgs) -> Result<u8, Failure> {
    let prompt = format!("Password of {} at {}: ", args.username, args.host);
    let file = args.password_stdin.then_some(Path::new("-"));
    let mut signals = Signals::catch()?;
    let password = tokio::select! {
        biased;
        signal = signals.next_end() => return Ok(exit_code::of_signal(signal as i32)),
        password = typed::value(&prompt, file) => password?,
    };
    let progress = context.ui.progress("Asking the registry");
    let environment = Environment::of_process();
    let insecure = &args.registry.insecure_registry;
    let kept = login(&args.host, &args.username, password, &environment, insecure);
    let path = progress.during(kept).await;
    let path = path.map_err(|error| Failure::Said(error.into()))?;
    context.ui.data(
        || json!({"outcome": "logged-in", "registry": args.host, "file": path}),
        || format!("Logged in at {}, kept in {}\n", args.host, path.display()),
    )?;
    Ok(exit_code::OK)
}

pub(super) fn log_out(context: &Context, args: &LogoutArgs) -> Result<u8, Failure> {
    let outcome = logout(&args.host, &Environment::of_process());
    let (outcome, words) = match outcome.map_err(|error| Failure::Said(error.into()))? {
        LoggedOut::Removed => ("logged-out", "Logged out at"),
        LoggedOut::NotLoggedIn => ("unchanged", "There were no credentials for"),
    };
    context.ui.data(
        || json!({"outcome": outcome, "registry": args.host}),
        || format!("{words} {}\n", args.host),
    )?;
    Ok(exit_code::OK)
}
