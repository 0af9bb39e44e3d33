//! `chat`: a conversation with the program in an instance's guest.
//!
//! ```text
//!  lines of stdin ──► send ──► aegisd ──► guest
//!  screen ◄── Conversation ◄── frames ◄── aegisd
//! ```
//!
//! On a terminal the line is edited with the usual keys, and answers are shown piece by
//! piece. Elsewhere each line is a message, and the next goes when the one before is
//! answered.

mod conversation;
mod prompt;

use std::io::{self, BufRead};

use aegis_bus::tether::ReadOptions;
use aegis_core::tether::{CANCEL, DONE, Frame, USER_MESSAGE};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::cli::Context;
use crate::client::{Client, Followed};
use crate::exit_code;
use crate::failure::Failure;
use crate::session::{Signals, Terminal};
use crate::ui::{Tone, Ui};
use conversation::{Conversation, Show};
use prompt::{Prompt, Typed};

/// Talk with the program in an instance's guest
///
/// What was said before is shown first. A line is a message, and Alt-Enter begins a new
/// line in it; /new begins afresh, /cancel or Ctrl-C ends the answer under way, /quit or
/// Ctrl-D leaves. The instance is woken when it is needed, and goes to sleep again by
/// itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// The conversation; one that is not there begins
    #[arg(long, value_name = "ID", default_value = "default")]
    session: String,
    /// The channel of the conversation
    #[arg(long, default_value = "host")]
    channel: String,
    /// So many messages of before are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    history: u32,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let mut signals = Signals::catch()?;
    let progress = context
        .ui
        .progress(&format!("Opening the chat with '{}'", args.name));
    let open = async {
        let client = context.aegisd().await?;
        let channel = Some(args.channel.clone());
        let followed = client.follow_messages(&args.name, None, channel).await?;
        let before = history(&client, &args).await?;
        Ok::<_, Failure>((client, followed, before))
    };
    let (client, followed, before) = progress.during(open).await?;
    drop(progress);
    let mut chat = Chat {
        ui: context.ui,
        client,
        followed,
        conversation: Conversation::new(&args.channel, &args.session),
        args,
    };
    if Terminal::of_both().is_some() {
        return chat.talk(&before, &mut signals).await;
    }
    let mut lines = lines_of_stdin();
    tokio::select! {
        biased;
        signal = signals.next_end() => Ok(exit_code::of_signal(signal as i32)),
        ended = chat.ask_each(&mut lines) => ended,
    }
}

/// The last whole messages of the conversation.
async fn history(client: &Client, args: &Args) -> Result<Vec<Frame>, Failure> {
    if args.history == 0 {
        return Ok(Vec::new());
    }
    let options = ReadOptions {
        channel: Some(args.channel.clone()),
        session: Some(args.session.clone()),
        types: vec![USER_MESSAGE.to_owned(), DONE.to_owned()],
        limit: Some(args.history),
        newest: true,
        ..ReadOptions::default()
    };
    client.some_messages(&args.name, &options).await
}

struct Chat {
    ui: Ui,
    client: Client,
    followed: Followed,
    conversation: Conversation,
    args: Args,
}

const HELP: &str = "a line is a message, Alt-Enter begins a new line in it; /new begins \
    afresh; /cancel or Ctrl-C ends the answer; /quit or Ctrl-D leaves";

/// What a line of the user is.
enum Line {
    Message(String),
    Control(&'static str),
    Help,
    Quit,
    Nothing,
}

fn read_line(line: &str) -> Line {
    match line.trim() {
        "" => Line::Nothing,
        "/quit" | "/exit" => Line::Quit,
        "/help" => Line::Help,
        "/cancel" => Line::Control(CANCEL),
        "/new" => Line::Control("control.new"),
        text => Line::Message(text.to_owned()),
    }
}

impl Chat {
    /// On a terminal: lines, frames and signals as they come.
    async fn talk(&mut self, before: &[Frame], signals: &mut Signals) -> Result<u8, Failure> {
        let said = before.iter().filter(|frame| frame.kind() == USER_MESSAGE);
        let mut prompt = Prompt::new(said.map(conversation::text))?;
        for frame in before {
            let shown = self.conversation.past(frame);
            self.show(&mut prompt, shown)?;
        }
        let Args { name, session, .. } = &self.args;
        self.ui.note(&format!(
            "chat with {name}, session {session}: /help shows what can be said, Ctrl-D leaves"
        ));
        let mut interrupted = false;
        loop {
            if !self.conversation.is_answering() {
                interrupted = false;
                prompt.ask();
            }
            tokio::select! {
                biased;
                signal = signals.next_end() => {
                    if signal != Signal::SIGINT || !self.conversation.is_answering() {
                        self.ui.text("\n")?;
                        return Ok(exit_code::of_signal(signal as i32));
                    }
                    // Who does not want to wait for its end either presses again.
                    match interrupted {
                        true => self.conversation.forget(),
                        false => self.control(CANCEL).await?,
                    }
                    prompt.show(self.ui, "\n")?;
                    interrupted = true;
                }
                frame = self.followed.next() => {
                    let shown = self.conversation.hear(&frame?);
                    self.show(&mut prompt, shown)?;
                }
                typed = prompt.typed(), if prompt.is_asking() => {
                    let line = match typed? {
                        Typed::Line(line) => read_line(&line),
                        Typed::Interrupted => Line::Nothing,
                        Typed::End => Line::Quit,
                    };
                    match line {
                        Line::Quit => return Ok(exit_code::OK),
                        Line::Nothing => {}
                        Line::Help => self.ui.note(HELP),
                        Line::Control(kind) => self.control(kind).await?,
                        Line::Message(text) => self.send(&text).await?,
                    }
                }
            }
        }
    }

    /// Elsewhere: a message a line, each with its answer.
    async fn ask_each(&mut self, lines: &mut Lines) -> Result<u8, Failure> {
        while let Some(line) = lines.recv().await.transpose().map_err(stdin)? {
            match read_line(&line) {
                Line::Quit => break,
                Line::Nothing | Line::Help => {}
                Line::Control(kind) => self.control(kind).await?,
                Line::Message(text) => {
                    self.send(&text).await?;
                    while self.conversation.is_answering() {
                        let frame = self.followed.next().await?;
                        for show in self.conversation.hear(&frame) {
                            if let Show::Answer(text) = show {
                                self.ui.text(&text)?;
                            }
                        }
                    }
                }
            }
        }
        Ok(exit_code::OK)
    }

    async fn send(&mut self, text: &str) -> Result<(), Failure> {
        let frame = self.frame(USER_MESSAGE, &json!({"text": text}))?;
        // Named here, so that its echo is known however fast it comes.
        if let Some(msg_id) = frame.msg_id() {
            self.conversation.asked(msg_id);
        }
        self.client.send_message(&self.args.name, &frame).await?;
        Ok(())
    }

    async fn control(&mut self, kind: &str) -> Result<(), Failure> {
        let frame = self.frame(kind, &Value::Null)?;
        self.client.send_message(&self.args.name, &frame).await?;
        Ok(())
    }

    fn frame(&mut self, kind: &str, payload: &Value) -> Result<Frame, Failure> {
        let Args {
            channel, session, ..
        } = &self.args;
        let mut frame = Frame::new(kind, channel, session, payload).map_err(Failure::Frame)?;
        let msg_id = self.conversation.next_name();
        frame.name_it(|| msg_id);
        Ok(frame)
    }

    fn show(&self, prompt: &mut Prompt, shown: Vec<Show>) -> Result<(), Failure> {
        for show in shown {
            let text = match show {
                Show::Answer(text) => text,
                Show::Faint(text) => {
                    let line = text.trim_end_matches('\n');
                    let end = &text[line.len()..];
                    self.ui.paint(Tone::Faint, line) + end
                }
            };
            prompt.show(self.ui, &text)?;
        }
        Ok(())
    }
}

/// Lines of stdin.
type Lines = mpsc::Receiver<io::Result<String>>;

/// Reads lines in a thread of its own, which a read that never ends does not keep this
/// process from ending.
fn lines_of_stdin() -> Lines {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn stdin(source: io::Error) -> Failure {
    Failure::Io {
        what: "read from stdin",
        source,
    }
}
