//! The line that is typed on a terminal, and what is shown above it meanwhile.
//!
//! ```text
//!   thread:  readline ──► Typed ──► chat
//!   chat:    above(text) ──► whole lines over the prompt
//! ```
//!
//! The terminal belongs to the prompt from [`Prompt::ask`] until what was typed is taken,
//! else to the answer that is shown; what is typed then waits in the terminal.

use std::fmt;
use std::io;
use std::sync::mpsc as std_mpsc;
use std::thread;

use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Cmd, Config, Editor, ExternalPrinter, KeyCode, KeyEvent, Modifiers};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::session::Before;
use crate::ui::Ui;

/// What stands before the line.
const SIGN: &str = "> ";

/// What came of a prompt.
#[derive(Debug)]
pub(super) enum Typed {
    Line(String),
    /// Ctrl-C: the line is given up.
    Interrupted,
    /// Ctrl-D on an empty line, or the terminal is gone.
    End,
}

/// See the module.
pub(super) struct Prompt {
    ask: std_mpsc::Sender<()>,
    typed: mpsc::Receiver<io::Result<Typed>>,
    printer: Box<dyn ExternalPrinter + Send>,
    asking: bool,
    /// The begin of a line that is shown when it is whole.
    begun: String,
    _before: Before,
}

impl Prompt {
    /// Takes the terminal. `said` is what the up key brings back, the newest last.
    pub(super) fn new<'a>(said: impl Iterator<Item = &'a str>) -> Result<Self, Failure> {
        let before = Before::stdin()?;
        let config = Config::builder()
            .auto_add_history(true)
            .bracketed_paste(true)
            .build();
        let history = MemHistory::with_config(&config);
        let editor = Editor::<(), MemHistory>::with_history(config, history);
        let mut editor = editor.map_err(failed)?;
        // A new line within a message, as other chats have it.
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
        for line in said {
            editor.add_history_entry(line).map_err(failed)?;
        }
        let printer = editor.create_external_printer().map_err(failed)?;
        let (ask, asked) = std_mpsc::channel();
        let (sender, typed) = mpsc::channel(1);
        // A thread of its own, which a read that never ends does not keep this process
        // from ending.
        thread::spawn(move || {
            while asked.recv().is_ok() {
                if sender.blocking_send(read(&mut editor)).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            ask,
            typed,
            printer: Box::new(printer),
            asking: false,
            begun: String::new(),
            _before: before,
        })
    }

    /// Whether a line is being typed.
    pub(super) fn is_asking(&self) -> bool {
        self.asking
    }

    /// Shows the prompt, if it is not there.
    pub(super) fn ask(&mut self) {
        if !self.asking {
            // The thread ends with this value alone.
            self.asking = self.ask.send(()).is_ok();
        }
    }

    /// What is typed, once it was asked for. Can be dropped and called again.
    pub(super) async fn typed(&mut self) -> Result<Typed, Failure> {
        let typed = self.typed.recv().await;
        self.asking = false;
        let typed = typed.unwrap_or(Ok(Typed::End));
        typed.map_err(|source| Failure::Io {
            what: "read from stdin",
            source,
        })
    }

    /// Shows a text: at once where nothing is typed, else its whole lines above the
    /// prompt.
    pub(super) fn show(&mut self, ui: Ui, text: &str) -> Result<(), Failure> {
        self.begun.push_str(text);
        let whole = match self.asking {
            true => self.begun.rfind('\n').map_or(0, |end| end + 1),
            false => self.begun.len(),
        };
        let rest = self.begun.split_off(whole);
        let whole = std::mem::replace(&mut self.begun, rest);
        match self.asking && !whole.is_empty() {
            true => self.printer.print(whole).map_err(failed),
            false => ui.text(&whole),
        }
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Prompt")
            .field("asking", &self.asking)
            .finish_non_exhaustive()
    }
}

fn read(editor: &mut Editor<(), MemHistory>) -> io::Result<Typed> {
    match editor.readline(SIGN) {
        Ok(line) => Ok(Typed::Line(line)),
        Err(ReadlineError::Interrupted) => Ok(Typed::Interrupted),
        Err(ReadlineError::Eof) => Ok(Typed::End),
        Err(error) => Err(of_terminal(error)),
    }
}

fn failed(error: ReadlineError) -> Failure {
    Failure::Io {
        what: "use the terminal",
        source: of_terminal(error),
    }
}

fn of_terminal(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(source) => source,
        other => io::Error::other(other),
    }
}
