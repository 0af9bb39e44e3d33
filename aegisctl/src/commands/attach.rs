//! `attach`: the terminal of an instance's command.

use aegis_bus::instance::{AttachOptions, InstanceProxy};

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::flags::DetachFlags;
use crate::session::{self, Carried, Session, Signals, Wiring};

/// Return to the command of an instance that runs on a terminal
///
/// What it wrote last is shown. Ctrl-P Ctrl-Q detaches and leaves it running; so
/// does losing the terminal. Several may be attached at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    #[command(flatten)]
    detach: DetachFlags,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let wiring = args.detach.wiring();
    let mut signals = Signals::catch()?;
    let progress = context
        .ui
        .progress(&format!("Attaching to '{}'", args.name));
    let open = async {
        let what = format!("attach to '{}'", args.name);
        let client = context.aegisd().await?;
        let instance = client.instance(&args.name, &what).await?;
        // The connection to the bus is closed here: a session needs none.
        open(&instance, &wiring, &what).await
    };
    let session = tokio::select! {
        biased;
        signal = signals.next_end() => return Ok(exit_code::of_signal(signal as i32)),
        session = progress.during(open) => session?,
    };
    drop(progress);
    carry(context, &args.name, session, wiring, &mut signals).await
}

/// Joins the terminal of an instance's command.
pub(super) async fn open(
    instance: &InstanceProxy<'_>,
    wiring: &Wiring,
    what: &str,
) -> Result<Session, Failure> {
    let options = AttachOptions {
        size: wiring.size(),
    };
    let descriptors = instance.attach(&options.to_dict()).await;
    Ok(descriptors.map_err(Failure::call(what))?.into())
}

/// Carries the session to its end and says how to return where it was left.
pub(super) async fn carry(
    context: &Context,
    handle: &str,
    session: Session,
    wiring: Wiring,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    match session::carry(session, wiring, signals).await? {
        Carried::Ended(code) => Ok(code),
        Carried::Detached => {
            let back = format!("\ndetached; it runs on: aegisctl attach {handle}");
            context.ui.note(&back);
            Ok(exit_code::OK)
        }
    }
}
