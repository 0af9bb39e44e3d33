//! `tether follow`.

use aegis_core::tether::Frame;

use super::read::row;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::session::Signals;
use crate::ui::Ui;

/// Show the messages of an instance as they come, until Ctrl-C
///
/// A line for each, with --json a frame. Pieces of answers have no number; what has one
/// comes once, also across a restart of AegisVM.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// Only of this channel, e.g. telegram
    #[arg(long)]
    channel: Option<String>,
    /// Only of this session of a channel
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Begin behind the message of this number; without it, with what comes
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let mut signals = Signals::catch()?;
    let follow = async {
        let client = context.aegisd().await?;
        let channel = args.channel.clone();
        let mut followed = client
            .follow_messages(&args.name, args.after, channel)
            .await?;
        loop {
            let frame = followed.next().await?;
            let is_meant = |session: &String| session == frame.session();
            if args.session.as_ref().is_none_or(is_meant) {
                show(context.ui, &frame)?;
            }
        }
    };
    tokio::select! {
        biased;
        _ = signals.next_end() => Ok(exit_code::OK),
        ended = follow => ended,
    }
}

fn show(ui: Ui, frame: &Frame) -> Result<(), Failure> {
    if ui.wants_json() {
        return ui.text(&(frame.to_text() + "\n"));
    }
    let [number, time, session, kind, words] = row(frame);
    let number = if frame.seq().is_some() {
        number
    } else {
        "-".to_owned()
    };
    ui.text(&format!(
        "{number:>6}  {time}  {session}  {kind}  {words}\n"
    ))
}
