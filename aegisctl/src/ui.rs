//! What the user sees: where it goes, in what colour, and whether at all.
//!
//! Command code says what a text is ([`Tone`]); only this module knows how that
//! looks.

use std::io::{self, IsTerminal, Write};

use serde_json::{Value, json};

use crate::failure::Failure;

mod bytes;
mod lines;
mod progress;
mod table;
mod template;
mod time;

pub(crate) use bytes::bytes;
pub(crate) use lines::Lines;
pub(crate) use progress::{Bar, Progress};
pub(crate) use table::Table;
pub(crate) use template::{Template, TemplateError};
pub(crate) use time::{age, ahead, local, moment, span_words};

/// The version of every `--json` output. It grows when a field changes its
/// meaning or goes; fields may be added at any time.
pub(crate) const JSON_VERSION: u32 = 1;

/// How a text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Waiting,
    Bad,
    Faint,
}

/// The way to the user's eyes.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts about the surroundings, not a state"
)]
pub(crate) struct Ui {
    json: bool,
    quiet: bool,
    out_colour: bool,
    err_terminal: bool,
    /// Whether a line that moves may be on the terminal.
    progress: bool,
}

impl Ui {
    /// Looks at the terminal once. Colour needs one, and no `NO_COLOR`
    /// (no-color.org).
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            quiet,
            out_colour: io::stdout().is_terminal() && !plain,
            err_terminal: io::stderr().is_terminal() && !plain,
            progress: !quiet,
        }
    }

    /// The same where somebody else asks on the terminal meanwhile, and is not to be
    /// written over.
    pub(crate) fn without_progress(self) -> Self {
        Self {
            progress: false,
            ..self
        }
    }

    /// The same for who asked for JSON in another way than by `--json`.
    pub(crate) fn with_json(self) -> Self {
        Self { json: true, ..self }
    }

    /// Whether as little as possible is to be printed.
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Whether stdout is a terminal that takes colour and the cursor's movements.
    pub(crate) fn is_terminal(self) -> bool {
        self.out_colour
    }

    /// Whether data is wanted as JSON.
    pub(crate) fn wants_json(self) -> bool {
        self.json
    }

    /// Prints data: `text` makes it for people, `json` for programs.
    pub(crate) fn data(
        self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            return self.document(json());
        }
        let mut output = text();
        if !output.is_empty() && !output.ends_with('\n') {
            output.push('\n');
        }
        self.text(&output)
    }

    /// Prints a document for programs, with its version in it.
    pub(crate) fn document(self, mut value: Value) -> Result<(), Failure> {
        if let Some(object) = value.as_object_mut() {
            object.insert("version".to_owned(), JSON_VERSION.into());
        }
        self.text(&format!("{value}\n"))
    }

    /// Prints text as it is.
    #[allow(clippy::unused_self, reason = "who prints has looked at the terminal")]
    pub(crate) fn text(self, output: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(output.as_bytes());
        written
            .and_then(|()| stdout.flush())
            .map_err(Failure::output)
    }

    /// Says something on stderr that is not data, e.g. advice.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            Self::to_stderr(&format!("{text}\n"));
        }
    }

    /// Asks for something on the terminal; the answer is read elsewhere.
    pub(crate) fn prompt(text: &str) {
        Self::to_stderr(text);
    }

    /// Says why a command failed: `error: what: why (Symbol)` and `hint:`.
    pub(crate) fn failure(self, failure: &Failure) {
        if self.json {
            let value = json!({"version": JSON_VERSION, "error": failure.to_json()});
            return Self::to_stderr(&format!("{value}\n"));
        }
        let (bold, end) = if self.err_terminal {
            ("\x1b[1;31m", "\x1b[0m")
        } else {
            ("", "")
        };
        let mut text = format!(
            "{bold}error:{end} {} ({})\n",
            clean(&failure.message()),
            failure.symbol()
        );
        for hint in failure.hint().iter().flat_map(|hint| hint.lines()) {
            text.push_str(&format!("hint: {}\n", clean(hint)));
        }
        Self::to_stderr(&text);
    }

    /// Shows that something is under way, from half a second on.
    pub(crate) fn progress(self, text: &str) -> Progress {
        Progress::new(self.err_terminal && self.progress, text)
    }

    /// The text in the colour of its tone.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        // ECMA-48 SGR
        let code = match tone {
            _ if !self.out_colour => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => 32,
            Tone::Waiting => 33,
            Tone::Bad => 31,
            Tone::Faint => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    fn to_stderr(text: &str) {
        // There is nobody to tell that stderr is closed.
        io::stderr().lock().write_all(text.as_bytes()).ok();
    }
}

/// Text of others (kits, guests) without what a terminal would act on.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// A command line as it could be typed into a shell.
pub(crate) fn shell_words(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", clean(word).replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The tone of an instance's or a daemon's state.
pub(crate) fn tone_of(state: &str) -> Tone {
    match state {
        "running" | "ok" => Tone::Good,
        "starting" | "stopping" | "restarting" | "paused" | "hibernating" | "hibernated"
        | "waiting-for-config" | "warn" => Tone::Waiting,
        "failed" | "broken" | "fail" => Tone::Bad,
        "disabled" | "exited" | "shadowed" => Tone::Faint,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_reaches_the_terminal_raw() {
        assert_eq!(clean("a\x1b[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }

    #[test]
    fn command_lines_can_be_typed_again() {
        let words = ["sh", "-c", "echo 'a b'", ""].map(str::to_owned);
        assert_eq!(shell_words(&words), r"sh -c 'echo '\''a b'\''' ''");
    }

    #[test]
    fn without_colour_text_stays_as_it_is() {
        let ui = Ui {
            json: false,
            quiet: false,
            out_colour: false,
            err_terminal: false,
            progress: false,
        };
        assert_eq!(ui.paint(Tone::Bad, "failed"), "failed");
    }
}
