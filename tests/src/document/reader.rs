//! Somebody who follows a document in a machine, and does all that it says.
//!
//! ```text
//!  Document ── Run ────► one bash for the whole document ──┐
//!           ── Compare, See ◄── what was printed last ◄────┘
//!           ── Act ────► the test
//! ```
//!
//! As for any reader, a folder or variable that one command has set holds for the next. What
//! a command reads beyond what is typed at it is at its end. `sudo COMMAND` is run by root's
//! bash in the same folder: the machine's alice has no password.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Deed, Document, missing};
use crate::machine::User;
use crate::seat::{Seat, quote};
use crate::session::Session;

/// Where a command, what is typed at it and what it prints lie in the machine.
const COMMAND: &str = "/var/tmp/try.command";
const TYPED: &str = "/var/tmp/try.typed";
const PRINTED: &str = "/var/tmp/try.printed";

/// What [`Reader::shell`] says when a command has ended, before its exit code and folder.
const ENDED: &str = "try-ended";

/// Runs the command of a file as if it stood in the script itself.
const RUN: &str = "\
    . /var/tmp/try.command </var/tmp/try.typed >/var/tmp/try.printed 2>&1; \
    echo try-ended $? \"$PWD\"\n";

/// Commands that only look.
const LOOKS: [&str; 3] = [" info ", " logs ", " list"];
/// How long somebody looks for what a document shows; guests are slow without KVM.
const PATIENCE: Duration = Duration::from_secs(30);
const BETWEEN: Duration = Duration::from_millis(200);

/// Somebody who reads documents at a machine.
#[derive(Debug)]
pub struct Reader<'a> {
    seat: Seat<'a>,
    shell: Session<'a>,
    folder: String,
    /// The last one, and what it printed.
    command: String,
    printed: String,
}

/// How many steps of a document were taken how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The document.
    pub document: String,
    /// Commands that were run as they stand there.
    pub run: usize,
    /// Commands that were run with what a person types.
    pub typed: usize,
    /// Comparisons of what was printed.
    pub compared: usize,
    /// Files that were written as shown.
    pub saved: usize,
    /// What a person does elsewhere.
    pub acted: usize,
    /// Commands that were not run, and why.
    pub left: Vec<(usize, String)>,
}

impl<'a> Reader<'a> {
    /// Sits down in a folder.
    ///
    /// # Errors
    /// No shell runs there.
    pub fn sit(seat: Seat<'a>, folder: &str) -> Result<Self> {
        let shell = Session::start(seat, &format!("env --chdir={} bash", quote(folder)))?;
        Ok(Self {
            seat,
            shell,
            folder: folder.to_owned(),
            command: String::new(),
            printed: String::new(),
        })
    }

    /// Follows a document from top to bottom; `act` does what a person does elsewhere.
    ///
    /// # Errors
    /// A command fails, or what the document shows was not printed: the text names the line.
    pub fn follow(
        &mut self,
        document: &Document,
        act: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Tally> {
        let mut tally = Tally {
            document: document.path.clone(),
            ..Tally::default()
        };
        for step in &document.steps {
            self.take(&step.deed, act, &mut tally)
                .with_context(|| format!("{}:{}", document.path, step.line))?;
        }
        Ok(tally)
    }

    fn take(
        &mut self,
        deed: &Deed,
        act: &mut dyn FnMut(&str) -> Result<()>,
        tally: &mut Tally,
    ) -> Result<()> {
        match deed {
            Deed::Run { command, typed } => {
                self.run(command, typed)?;
                *match typed.is_empty() {
                    true => &mut tally.run,
                    false => &mut tally.typed,
                } += 1;
            }
            Deed::Compare(lines) => {
                self.compare(lines)?;
                tally.compared += 1;
            }
            Deed::See(text) => {
                ensure!(
                    self.printed.contains(text),
                    "{text:?} is not in what was printed:\n{}",
                    self.printed
                );
                tally.compared += 1;
            }
            Deed::Save { file, content } => {
                let path = match file.strip_prefix("~/") {
                    Some(path) => format!("/home/alice/{path}"),
                    None => format!("{}/{file}", self.folder),
                };
                let machine = self.seat.machine();
                machine.write_file(self.seat.user(), &path, content.as_bytes())?;
                tally.saved += 1;
            }
            Deed::Act(words) => {
                act(words).with_context(|| words.clone())?;
                tally.acted += 1;
            }
            Deed::Leave { commands, reason } => tally.left.push((*commands, reason.clone())),
        }
        Ok(())
    }

    /// Who looks at what may still be under way looks again.
    fn compare(&mut self, lines: &[String]) -> Result<()> {
        let begin = Instant::now();
        while let Some(line) = missing(&self.printed, lines) {
            let again = self.command.clone();
            ensure!(
                LOOKS.iter().any(|word| again.contains(word)) && begin.elapsed() < PATIENCE,
                "{line:?} is not in what was printed by `{again}`:\n{}",
                self.printed
            );
            std::thread::sleep(BETWEEN);
            self.run(&again, "")?;
        }
        Ok(())
    }

    fn run(&mut self, command: &str, typed: &str) -> Result<()> {
        let machine = self.seat.machine();
        // Written anew, not over the old ones: those may be the other user's.
        let fresh = "rm -f /var/tmp/try.*";
        machine.run(User::Root, fresh)?.success()?;
        let as_root = command.strip_prefix("sudo ");
        let user = match as_root {
            Some(_) => User::Root,
            None => self.seat.user(),
        };
        let text = as_root.unwrap_or(command);
        machine.write_file(user, COMMAND, format!("{text}\n").as_bytes())?;
        machine.write_file(user, TYPED, typed.as_bytes())?;
        let ended = match as_root {
            Some(_) => {
                let line = format!("cd {}; {RUN}", quote(&self.folder));
                machine
                    .run(User::Root, &format!("bash -c {}", quote(&line)))?
                    .text()
            }
            None => {
                self.shell.write(RUN.as_bytes())?;
                self.shell.line().context(command.to_owned())?
            }
        };
        command.clone_into(&mut self.command);
        self.printed = String::from_utf8_lossy(&machine.read_file(PRINTED)?).into_owned();
        let words: Vec<_> = ended.splitn(3, ' ').collect();
        let [ENDED, code, folder] = words[..] else {
            bail!("`{command}`: {ended:?} is no end of it");
        };
        ensure!(
            code == "0",
            "`{command}` ended with {code}:\n{}",
            self.printed
        );
        if as_root.is_none() {
            folder.clone_into(&mut self.folder);
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left: usize = self.left.iter().map(|(commands, _)| commands).sum();
        write!(
            f,
            "{}: {} commands: {} run as they stand, {} with what a person types, {left} left; \
             {} outputs compared, {} files saved, {} acts elsewhere",
            self.document,
            self.run + self.typed + left,
            self.run,
            self.typed,
            self.compared,
            self.saved,
            self.acted,
        )?;
        for (commands, reason) in &self.left {
            write!(f, "\n  {commands} left: {reason}")?;
        }
        Ok(())
    }
}
