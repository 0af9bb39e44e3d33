//! `logs`: what the instance's command wrote.
//!
//! aegisd opens the files and is not needed while they are followed; after a
//! rotation it is asked for the new one.

use aegis_bus::dict::Dict;
use aegis_core::fault::Symbol;

use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::session::Signals;

mod follow;
mod record;

use follow::Follower;
use record::Printer;

/// Show what the command of an instance wrote
///
/// What it wrote to stderr goes to stderr. With --json every line is a record.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// Go on with what it writes from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let client = progress.during(context.aegisd()).await?;
    let mut follower = Follower::default();
    let printer = Printer::new(context.ui);
    let opened = progress.during(open(&client, &args.name)).await?;
    drop(progress);
    follower.open(opened)?;
    follower.print(&printer)?;
    if !args.follow {
        return Ok(exit_code::OK);
    }
    let mut signals = Signals::catch()?;
    let follow = async {
        loop {
            if follower.is_at_end_of_file() {
                match open(&client, &args.name).await {
                    Ok(opened) => follower.open(opened)?,
                    // The instance is gone, and with it its log.
                    Err(failure) if failure.is(Symbol::NotFound) => return Ok(()),
                    Err(failure) => return Err(failure),
                }
            }
            follower.print(&printer)?;
            follower.changed().await?;
        }
    };
    tokio::select! {
        biased;
        _ = signals.next_end() => Ok(exit_code::OK),
        end = follow => end.map(|()| exit_code::OK),
    }
}

async fn open(client: &Client, name: &str) -> Result<Vec<zbus::OwnedFd>, Failure> {
    let what = format!("read the log of '{name}'");
    let instance = client.instance(name, &what).await?;
    let opened = instance.open_logs(&Dict::new()).await;
    opened.map_err(Failure::call(what))
}
