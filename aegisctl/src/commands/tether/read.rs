//! `tether read`.

use aegis_bus::tether::ReadOptions;
use aegis_core::tether::Frame;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::ui::{Table, Tone, clean};

/// Show the messages that are kept of an instance
///
/// Each has a number, which grows. What is kept is bounded: the oldest go first.
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
    /// Only of this type, e.g. user.message
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only those behind the message of this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    /// Only the last of them
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Reading the messages");
    let frames = progress.during(read(context, &args)).await?;
    context.ui.data(
        || {
            let frames: Vec<Value> = frames.iter().cloned().map(Frame::into_value).collect();
            json!({"instance": args.name, "frames": frames})
        },
        || {
            let mut table = Table::new(&["NUMBER", "TIME", "SESSION", "TYPE", "MESSAGE"]);
            for frame in &frames {
                table.row(row(frame).map(|cell| (Tone::Plain, cell)).into());
            }
            table.render(context.ui)
        },
    )?;
    Ok(exit_code::OK)
}

async fn read(context: &Context, args: &Args) -> Result<Vec<Frame>, Failure> {
    let client = context.aegisd().await?;
    let mut options = ReadOptions {
        channel: args.channel.clone(),
        session: args.session.clone(),
        types: args.types.clone(),
        after: Some(args.after),
        ..ReadOptions::default()
    };
    let Some(mut wanted) = args.tail.map(|wanted| wanted as usize) else {
        return client.messages(&args.name, options).await;
    };
    // From the end, an answer at a time.
    options.newest = true;
    let mut frames: Vec<Frame> = Vec::new();
    while wanted > 0 {
        options.limit = u32::try_from(wanted).ok();
        let mut older = client.some_messages(&args.name, &options).await?;
        let Some(first) = older.first() else {
            break;
        };
        options.before = first.seq();
        wanted = wanted.saturating_sub(older.len());
        older.append(&mut frames);
        frames = older;
    }
    Ok(frames)
}

/// A frame on a line: its text where it has one, else all that it says.
pub(super) fn row(frame: &Frame) -> [String; 5] {
    let payload = frame.payload().unwrap_or(&Value::Null);
    let words = match &payload["text"] {
        Value::String(text) => text.clone(),
        _ if payload.is_null() => String::new(),
        _ => payload.to_string(),
    };
    [
        frame.seq().unwrap_or(0).to_string(),
        clean(frame.time().unwrap_or("-")),
        clean(&format!("{}/{}", frame.channel(), frame.session())),
        clean(frame.kind()),
        clean(&words.replace('\n', " ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_text_or_what_there_is() {
        let row = |payload: &str| {
            let text = format!(
                r#"{{"v":1,"type":"t","seq":4,"ts":"now","session":{{"channel":"a","id":"b"}}{payload}}}"#
            );
            row(&Frame::parse(&text).unwrap()).join("|")
        };
        assert_eq!(
            row(r#","payload":{"text":"two\nlines"}"#),
            "4|now|a/b|t|two lines"
        );
        let state = row(r#","payload":{"state":"thinking"}"#);
        assert_eq!(state, r#"4|now|a/b|t|{"state":"thinking"}"#);
        assert_eq!(row(""), "4|now|a/b|t|");
    }
}
