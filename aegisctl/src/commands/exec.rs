//! `exec`: a command in the guest of an instance.

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::flags::{ProcessFlags, StreamFlags};
use crate::session::{self, Session, Signals};

/// Run a command in an instance, which is started or woken if need be
///
/// stdin is passed on, as ssh does. Signals (Ctrl-C) go to the command in the
/// guest; the third one ends aegisctl whatever the guest does.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    #[command(flatten)]
    process: ProcessFlags,
    #[command(flatten)]
    streams: StreamFlags,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let wiring = args.streams.wiring()?;
    let (_, options) = args.process.exec_options(context, wiring.size()).await?;
    let mut signals = Signals::catch()?;
    let progress = context.ui.progress(&format!("Waking '{}'", args.name));
    let open = async {
        let what = format!("run a command in '{}'", args.name);
        let client = context.aegisd().await?;
        let instance = client.instance(&args.name, &what).await?;
        let argv: Vec<_> = args.command.iter().map(String::as_str).collect();
        let descriptors = instance.exec(&argv, &options).await;
        // The connection to the bus is closed here: a session needs none.
        Ok::<Session, Failure>(descriptors.map_err(Failure::call(what))?.into())
    };
    let session = tokio::select! {
        biased;
        signal = signals.next_end() => return Ok(exit_code::of_signal(signal as i32)),
        session = progress.during(open) => session?,
    };
    drop(progress);
    let carried = session::carry(session, wiring, &mut signals).await?;
    Ok(carried.code())
}
