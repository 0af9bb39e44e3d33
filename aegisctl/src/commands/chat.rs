//! `chat`: a conversation with the program in an instance's guest.
//!
//! ```text
//!  lines of stdin ──► send ──► aegisd ──► guest
//!  screen ◄── Conversation ◄── frames ◄── aegisd
//! ```
//!
//! On a terminal lines can be sent at any time, and Ctrl-C ends the answer under way.
//! Elsewhere each line is a message, and the next goes when the one before is answered.

mod conversation;

use std::io::{self, BufRead, IsTerminal};

use aegis_bus::tether::ReadOptions;
use aegis_core::tether::{CANCEL, DONE, Frame, USER_MESSAGE};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::cli::Context;
use crate::client::{Client, Followed};
use crate::exit_code;
use crate::failure::Failure;
use crate::session::Signals;
use crate::ui::{Tone, Ui};
use conversation::{Conversation, Show};

/// Talk with the program in an instance's guest
///
/// What was said before is shown first. A line is a message; /new begins afresh,
/// /cancel or Ctrl-C ends the answer under way, /quit or Ctrl-D leaves. The instance is
/// woken when it is needed, and goes to sleep again by itself.
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
    let on_terminal = io::stdin().is_terminal();
    let mut chat = Chat {
        ui: context.ui,
        client,
        followed,
        conversation: Conversation::new(&args.channel, &args.session),
        on_terminal,
        args,
    };
    if on_terminal {
        chat.greet(&before)?;
    }
    let mut lines = lines_of_stdin();
    match on_terminal {
        true => chat.talk(&mut lines, &mut signals).await,
        false => tokio::select! {
            biased;
            signal = signals.next_end() => Ok(exit_code::of_signal(signal as i32)),
            ended = chat.ask_each(&mut lines) => ended,
        },
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
    on_terminal: bool,
    args: Args,
}

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
    fn greet(&mut self, before: &[Frame]) -> Result<(), Failure> {
        for frame in before {
            let shown = self.conversation.past(frame);
            self.show(shown)?;
        }
        let Args { name, session, .. } = &self.args;
        self.ui.note(&format!(
            "chat with {name}, session {session}: /help shows what can be said, Ctrl-D leaves"
        ));
        self.prompt();
        Ok(())
    }

    /// On a terminal: lines, frames and signals as they come.
    async fn talk(&mut self, lines: &mut Typed, signals: &mut Signals) -> Result<u8, Failure> {
        loop {
            tokio::select! {
                biased;
                signal = signals.next_end() => {
                    if signal != Signal::SIGINT || !self.conversation.is_answering() {
                        self.ui.text("\n")?;
                        return Ok(exit_code::OK);
                    }
                    self.control(CANCEL).await?;
                }
                frame = self.followed.next() => {
                    let shown = self.conversation.hear(&frame?);
                    let said = !shown.is_empty();
                    self.show(shown)?;
                    if said && !self.conversation.is_answering() {
                        self.prompt();
                    }
                }
                line = lines.recv() => {
                    let line = line.transpose().map_err(stdin)?;
                    match line.as_deref().map(read_line) {
                        None | Some(Line::Quit) => return Ok(exit_code::OK),
                        Some(Line::Nothing) => self.prompt(),
                        Some(Line::Help) => {
                            self.ui.note("a line is a message; /new begins afresh; /cancel or Ctrl-C ends the answer; /quit leaves");
                            self.prompt();
                        }
                        Some(Line::Control(kind)) => {
                            self.control(kind).await?;
                            self.prompt();
                        }
                        Some(Line::Message(text)) => self.send(&text).await?,
                    }
                }
            }
        }
    }

    /// Elsewhere: a message a line, each with its answer.
    async fn ask_each(&mut self, lines: &mut Typed) -> Result<u8, Failure> {
        while let Some(line) = lines.recv().await.transpose().map_err(stdin)? {
            match read_line(&line) {
                Line::Quit => break,
                Line::Nothing | Line::Help => {}
                Line::Control(kind) => self.control(kind).await?,
                Line::Message(text) => {
                    self.send(&text).await?;
                    while self.conversation.is_answering() {
                        let frame = self.followed.next().await?;
                        let shown = self.conversation.hear(&frame);
                        self.show(shown)?;
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

    fn show(&self, shown: Vec<Show>) -> Result<(), Failure> {
        for show in shown {
            match show {
                Show::Answer(text) => self.ui.text(&text)?,
                Show::Faint(text) if self.on_terminal => {
                    self.ui.text(&self.ui.paint(Tone::Faint, &text))?;
                }
                Show::Faint(_) => {}
            }
        }
        Ok(())
    }

    fn prompt(&self) {
        if self.on_terminal {
            Ui::prompt("> ");
        }
    }
}

/// Lines of stdin as they are typed.
type Typed = mpsc::Receiver<io::Result<String>>;

/// Reads lines in a thread of its own, which a read that never ends does not keep this
/// process from ending.
fn lines_of_stdin() -> Typed {
    let (typed, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if typed.blocking_send(line).is_err() {
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
