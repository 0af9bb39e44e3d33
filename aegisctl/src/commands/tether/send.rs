//! `tether send`.

use std::time::Duration;

use aegis_core::duration::Span;
use aegis_core::tether::{ACK, DONE, Frame, USER_MESSAGE};
use serde_json::json;
use tokio::time::timeout;

use crate::cli::Context;
use crate::client::Followed;
use crate::exit_code;
use crate::failure::Failure;
use crate::ui::clean;

/// Send a message to the program in an instance's guest, which is woken for it
///
/// The message is kept when the command returns, and brought to the program as soon as
/// it takes messages, whatever happens to the VM or to AegisVM meanwhile.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// The message; '-' reads it from stdin
    #[arg(required_unless_present = "frame", conflicts_with = "frame")]
    text: Option<String>,
    /// The channel
    #[arg(long, default_value = "host", conflicts_with = "frame")]
    channel: String,
    /// The session of the channel
    #[arg(
        long,
        value_name = "ID",
        default_value = "default",
        conflicts_with = "frame"
    )]
    session: String,
    /// What the message is called: of a session each name is taken once
    #[arg(long, value_name = "ID", conflicts_with = "frame")]
    msg_id: Option<String>,
    /// Send this frame, a JSON object
    #[arg(long, value_name = "JSON")]
    frame: Option<String>,
    /// Wait for the answer and print it
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "wait")]
    timeout: Span,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let frame = frame(&args)?;
    let progress = context.ui.progress("Sending the message");
    let sent = async {
        let client = context.aegisd().await?;
        // From before it is sent, so that no answer is too early.
        let followed = match args.wait {
            true => Some(client.follow_messages(&args.name, None, None).await?),
            false => None,
        };
        let sent = client.send_message(&args.name, &frame).await?;
        Ok::<_, Failure>((followed, sent))
    };
    let (followed, (msg_id, seq)) = progress.during(sent).await?;
    let answer = match followed {
        None => None,
        Some(followed) => {
            let progress = context.ui.progress("Waiting for the answer");
            Some(
                progress
                    .during(wait(followed, &frame, &msg_id, &args))
                    .await?,
            )
        }
    };
    let of_answer = answer.clone();
    context.ui.data(
        || {
            let mut value = json!({"instance": args.name, "msg_id": msg_id, "seq": seq});
            if let Some(answer) = of_answer {
                value["answer"] = answer.into_value();
            }
            value
        },
        || match &answer {
            None => format!("{msg_id}\n"),
            Some(answer) => {
                let text = answer
                    .payload()
                    .and_then(|payload| payload["text"].as_str());
                let lines = text.unwrap_or_default().lines().map(clean);
                lines.map(|line| line + "\n").collect()
            }
        },
    )?;
    Ok(exit_code::OK)
}

fn frame(args: &Args) -> Result<Frame, Failure> {
    let frame = match (&args.frame, args.text.as_deref()) {
        (Some(frame), _) => Frame::parse(frame),
        (None, Some("-")) => {
            let text = std::io::read_to_string(std::io::stdin());
            let text = text.map_err(|source| Failure::Io {
                what: "read the message from stdin",
                source,
            })?;
            of_text(args, text.trim_end_matches('\n'))
        }
        (None, text) => of_text(args, text.unwrap_or_default()),
    };
    let mut frame = frame.map_err(Failure::Frame)?;
    if let Some(msg_id) = &args.msg_id {
        frame.name_it(|| msg_id.clone());
        frame = Frame::parse(&frame.to_text()).map_err(Failure::Frame)?;
    }
    Ok(frame)
}

fn of_text(args: &Args, text: &str) -> Result<Frame, aegis_core::tether::FrameError> {
    let payload = json!({"text": text});
    Frame::new(USER_MESSAGE, &args.channel, &args.session, &payload)
}

async fn wait(
    mut followed: Followed,
    sent: &Frame,
    msg_id: &str,
    args: &Args,
) -> Result<Frame, Failure> {
    let answered = async {
        loop {
            let frame = followed.next().await?;
            if let Some(why) = refusal(&frame, msg_id) {
                return Err(Failure::Refused(why));
            }
            if answers(&frame, sent, msg_id) {
                return Ok(frame);
            }
        }
    };
    let time: Duration = args.timeout.0;
    match timeout(time, answered).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::NoAnswer(args.timeout)),
    }
}

/// Whether a frame is the whole answer to a message. A program that does not say what
/// it answers answers the last one of its session.
fn answers(frame: &Frame, sent: &Frame, msg_id: &str) -> bool {
    let same_session = frame.channel() == sent.channel() && frame.session() == sent.session();
    frame.kind() == DONE && same_session && frame.reply_to().is_none_or(|to| to == msg_id)
}

/// Why the guest refuses a message, if this frame says so.
fn refusal(frame: &Frame, msg_id: &str) -> Option<String> {
    let is_about = frame.kind() == ACK && frame.msg_id() == Some(msg_id);
    let payload = frame.payload().filter(|_| is_about)?;
    payload["error"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn frame(kind: &str, session: &str, reply_to: Option<&str>) -> Frame {
        let mut value = json!({
            "v": 1, "type": kind, "session": {"channel": "host", "id": session},
        });
        if let Some(reply_to) = reply_to {
            value["reply_to_msg_id"] = Value::from(reply_to);
        }
        Frame::parse(&value.to_string()).unwrap()
    }

    #[test]
    fn the_answer_is_that_of_the_message_or_of_its_session() {
        let sent = frame(USER_MESSAGE, "a", None);
        assert!(answers(&frame(DONE, "a", Some("m")), &sent, "m"));
        assert!(answers(&frame(DONE, "a", None), &sent, "m"));
        assert!(!answers(&frame(DONE, "a", Some("other")), &sent, "m"));
        assert!(!answers(&frame(DONE, "b", None), &sent, "m"));
        assert!(!answers(&frame("assistant.delta", "a", None), &sent, "m"));
        let mut taken = sent.clone();
        taken.name_it(|| "m".to_owned());
        assert_eq!(refusal(&taken.acknowledged(None), "m"), None);
        let no = taken.acknowledged(Some("no"));
        assert_eq!(refusal(&no, "m").as_deref(), Some("no"));
        assert_eq!(refusal(&no, "other"), None);
    }
}
