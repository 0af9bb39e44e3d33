//! Documents as what their reader does: the blocks of a Markdown file in order, as steps
//! that [`reader::Reader`] takes in a machine.
//!
//! | block | step |
//! |---|---|
//! | `bash` | each of its commands is run; comments are for people |
//! | `console` | what was printed last has these lines, in this order; `...` stands for anything. A line `$ COMMAND` is a command |
//! | `json` | data to look at, which must be JSON |
//! | `text` | a picture, or words to look at |
//!
//! What only a person or another place can do is said by marks, which a reader does not see:
//!
//! | `<!-- try: ... -->` | |
//! |---|---|
//! | `type TEXT for COMMAND` | typed at the next block's command that begins so |
//! | `save FILE` | the next block is what a person writes into that file |
//! | `leave REASON` | the next block is not run |
//! | `see TEXT` | what was printed last has this in it |
//! | `act WORDS` | something a person does elsewhere; the test knows how |
//!
//! Any other block or mark, and a mark without its block, is an error: no command of a
//! document is passed over in silence.

pub mod reader;
pub mod services;

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cache;

/// A document of the repository.
#[derive(Debug)]
pub struct Document {
    /// Its path from the top of the repository.
    pub path: String,
    /// In the order of the text.
    pub steps: Vec<Step>,
}

/// What a reader comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// The line it begins on, the first being 1.
    pub line: usize,
    /// The heading that it is under.
    pub heading: String,
    /// What is to be done there.
    pub deed: Deed,
}

/// What a reader does.
#[derive(Debug, PartialEq, Eq)]
pub enum Deed {
    /// Runs a command, and types this at it.
    Run { command: String, typed: String },
    /// Compares what was printed last with these lines.
    Compare(Vec<String>),
    /// Looks for this text in what was printed last.
    See(String),
    /// Writes a file.
    Save { file: String, content: String },
    /// Does something elsewhere.
    Act(String),
    /// Leaves commands alone, for a reason.
    Leave { commands: usize, reason: String },
}

impl Document {
    /// Reads a document of the repository.
    ///
    /// # Errors
    /// It cannot be read, or has a block or mark that means nothing.
    pub fn read(path: &str) -> Result<Self> {
        let file = cache::repository().join(path);
        let text = fs::read_to_string(&file).with_context(|| format!("reading {path}"))?;
        let steps = steps(&text).with_context(|| format!("in {path}"))?;
        Ok(Self {
            path: path.to_owned(),
            steps,
        })
    }

    /// What is before a heading, and the rest.
    ///
    /// # Errors
    /// There is nothing under it.
    pub fn apart_at(mut self, heading: &str) -> Result<(Self, Self)> {
        let at = self.steps.iter().position(|step| step.heading == heading);
        let at = at.with_context(|| format!("{} has nothing under {heading:?}", self.path))?;
        let rest = Self {
            path: format!("{}, {heading}", self.path),
            steps: self.steps.split_off(at),
        };
        Ok((self, rest))
    }
}

impl Step {
    fn at(line: usize, deed: Deed) -> Self {
        Self {
            line,
            heading: String::new(),
            deed,
        }
    }

    fn run(line: usize, command: &str) -> Self {
        let (command, typed) = (command.to_owned(), String::new());
        Self::at(line, Deed::Run { command, typed })
    }
}

/// The steps of a text.
fn steps(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut marks = Vec::new();
    let mut heading = String::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let words = line.trim_start();
        let before = steps.len();
        if line.starts_with('#') {
            line.trim_start_matches('#').trim().clone_into(&mut heading);
        }
        if let Some(mark) = words.strip_prefix("<!-- try:") {
            let mark = mark.strip_suffix("-->").context("a mark is one line");
            let mark = mark.and_then(|mark| Mark::read(mark.trim()));
            match mark.with_context(|| format!("line {number}"))? {
                Mark::Now(deed) => steps.push(Step::at(number, deed)),
                Mark::Next(mark) => marks.push(mark),
            }
        } else if let Some(language) = words.strip_prefix("```") {
            let indent = line.len() - words.len();
            let mut content = Vec::new();
            loop {
                let (_, line) = lines
                    .next()
                    .with_context(|| format!("line {number}: a block without an end"))?;
                if line.trim() == "```" {
                    break;
                }
                content.push(line.get(indent..).unwrap_or_default());
            }
            let block = Block {
                line: number,
                language,
                content,
            };
            let deeds = block.steps(std::mem::take(&mut marks));
            steps.extend(deeds.with_context(|| format!("line {number}"))?);
        } else {
            ensure!(
                marks.is_empty() || words.is_empty(),
                "line {number}: {marks:?} have no block below them"
            );
        }
        for step in &mut steps[before..] {
            step.heading.clone_from(&heading);
        }
    }
    ensure!(marks.is_empty(), "{marks:?} have no block below them");
    Ok(steps)
}

enum Mark {
    /// A step of its own.
    Now(Deed),
    /// About the next block.
    Next(About),
}

/// What a mark says about a block.
#[derive(Debug)]
enum About {
    Type { typed: String, command: String },
    Save(String),
    Leave(String),
}

impl Mark {
    fn read(text: &str) -> Result<Self> {
        let (kind, rest) = text.split_once(' ').context("a mark says something")?;
        Ok(match kind {
            "see" => Self::Now(Deed::See(rest.to_owned())),
            "act" => Self::Now(Deed::Act(rest.to_owned())),
            "save" => Self::Next(About::Save(rest.to_owned())),
            "leave" => Self::Next(About::Leave(rest.to_owned())),
            "type" => {
                let (typed, command) = rest.split_once(" for ").context("type ... for ...")?;
                Self::Next(About::Type {
                    typed: format!("{typed}\n"),
                    command: command.to_owned(),
                })
            }
            other => bail!("no mark is called {other:?}"),
        })
    }
}

struct Block<'a> {
    /// That of its fence.
    line: usize,
    language: &'a str,
    content: Vec<&'a str>,
}

impl Block<'_> {
    fn steps(&self, marks: Vec<About>) -> Result<Vec<Step>> {
        let mut steps = match self.language {
            "bash" => commands(&self.content, self.line + 1)?,
            "console" => self.screen(),
            "json" => {
                serde_json::from_str::<serde_json::Value>(&self.content.join("\n"))
                    .context("a block of JSON")?;
                Vec::new()
            }
            "text" => Vec::new(),
            other => bail!("a block is bash, console, json or text, not {other:?}"),
        };
        for mark in marks {
            match mark {
                About::Type { typed, command } => {
                    let asks = steps.iter_mut().find_map(|step| match &mut step.deed {
                        Deed::Run {
                            command: run,
                            typed,
                        } if run.starts_with(&command) => Some(typed),
                        _ => None,
                    });
                    let asks = asks.with_context(|| format!("no command begins: {command}"))?;
                    asks.push_str(&typed);
                }
                About::Save(file) => {
                    ensure!(steps.is_empty(), "a file is json or text");
                    let content = format!("{}\n", self.content.join("\n"));
                    steps.push(Step::at(self.line, Deed::Save { file, content }));
                }
                About::Leave(reason) => {
                    let is_command = |step: &&Step| matches!(step.deed, Deed::Run { .. });
                    let commands = steps.iter().filter(is_command).count();
                    ensure!(commands > 0, "there is nothing to leave");
                    steps = vec![Step::at(self.line, Deed::Leave { commands, reason })];
                }
            }
        }
        Ok(steps)
    }

    /// Commands behind `$`, and what was printed.
    fn screen(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for (line, text) in (self.line + 1..).zip(&self.content) {
            if let Some(command) = text.strip_prefix("$ ") {
                steps.push(Step::run(line, command));
            } else if let Some(Deed::Compare(lines)) = steps.last_mut().map(|step| &mut step.deed) {
                lines.push((*text).to_owned());
            } else {
                steps.push(Step::at(line, Deed::Compare(vec![(*text).to_owned()])));
            }
        }
        steps
    }
}

/// The commands of lines for bash, which itself says where each ends.
fn commands(content: &[&str], first: usize) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut command = String::new();
    let mut begin = first;
    for (line, text) in (first..).zip(content) {
        if command.is_empty() {
            begin = line;
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
        } else {
            command.push('\n');
        }
        command.push_str(text);
        if !text.ends_with('\\') && is_whole(&command)? {
            steps.push(Step::run(begin, &std::mem::take(&mut command)));
        }
    }
    ensure!(
        command.is_empty(),
        "line {begin}: bash does not understand {command:?}"
    );
    Ok(steps)
}

/// Whether bash would run this without waiting for more lines.
fn is_whole(command: &str) -> Result<bool> {
    let checked = Command::new("bash")
        .args(["-n", "-c", command])
        .stdin(Stdio::null())
        .output()
        .context("running bash")?;
    // An unfinished here-document is only a warning.
    Ok(checked.status.success() && checked.stderr.is_empty())
}

/// Whether a text has these lines in this order. In a line `...` stands for anything, and
/// spaces at ends do not count; a line `...` alone is for people: others may stand between
/// any two. Gives the first line that is not there.
#[must_use]
pub fn missing<'a>(text: &str, expected: &'a [String]) -> Option<&'a str> {
    let mut lines = text.lines();
    expected.iter().map(String::as_str).find(|pattern| {
        let anything = matches!(pattern.trim(), "" | "...");
        !anything && !lines.any(|line| fits(line, pattern))
    })
}

fn fits(line: &str, pattern: &str) -> bool {
    let mut rest = line.trim_end();
    let pieces: Vec<_> = pattern.trim_end().split("...").collect();
    for (index, piece) in pieces.iter().enumerate() {
        let at = match index {
            0 => rest.starts_with(piece).then_some(0),
            _ if index + 1 == pieces.len() => {
                rest.ends_with(piece).then(|| rest.len() - piece.len())
            }
            _ => rest.find(piece),
        };
        let Some(at) = at else { return false };
        rest = &rest[at + piece.len()..];
    }
    pieces.len() > 1 || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_split_where_bash_runs_a_command() {
        let text = "Text\n```bash\n# a comment\none   # why\n\ntwo \\\n  more\ncat >f <<'END'\n# kept\nEND\n\
                    for i in 1 2; do\n  echo $i\ndone\n```\n";
        assert_eq!(
            steps(text).unwrap(),
            [
                Step::run(4, "one   # why"),
                Step::run(6, "two \\\n  more"),
                Step::run(8, "cat >f <<'END'\n# kept\nEND"),
                Step::run(11, "for i in 1 2; do\n  echo $i\ndone"),
            ]
        );
    }

    #[test]
    fn marks_say_what_a_person_does() {
        let text = "1. First\n\n   <!-- try: type secret for b -->\n   ```bash\n   a\n   b c\n   ```\n\
                    <!-- try: see done -->\n<!-- try: save ~/f.json -->\n```json\n{}\n```\n\
                    <!-- try: act phone home -->\n<!-- try: leave no moon here -->\n```bash\nfly\n```\n\
                    ```console\n$ ls\none\n...\n```\n";
        let deeds: Vec<_> = steps(text).unwrap().into_iter().map(|s| s.deed).collect();
        let words = |text: &str| text.to_owned();
        assert_eq!(
            deeds,
            [
                Step::run(0, "a").deed,
                Deed::Run {
                    command: words("b c"),
                    typed: words("secret\n"),
                },
                Deed::See(words("done")),
                Deed::Save {
                    file: words("~/f.json"),
                    content: words("{}\n"),
                },
                Deed::Act(words("phone home")),
                Deed::Leave {
                    commands: 1,
                    reason: words("no moon here"),
                },
                Step::run(0, "ls").deed,
                Deed::Compare(vec![words("one"), words("...")]),
            ]
        );
    }

    #[test]
    fn what_means_nothing_is_an_error() {
        for text in [
            "```\nls\n```",
            "```python\n1\n```",
            "```bash\nls\n",
            "```bash\nif true\n```",
            "```json\n{,}\n```",
            "<!-- try: hope -->",
            "<!-- try: wish for luck -->",
            "<!-- try: save file -->\nText\n```json\n{}\n```",
            "<!-- try: save file -->",
            "<!-- try: type x for ls -->\n```bash\npwd\n```",
            "<!-- try: leave it -->\n```text\nls\n```",
        ] {
            assert!(steps(text).is_err(), "{text}");
        }
    }

    #[test]
    fn printed_lines_are_compared_in_order() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let text = "a 1\nState:   running, for 3 s \nb\nc";
        for expected in [
            "a 1",
            "a ...",
            "State:   running...\nc",
            "a 1\n...\nc",
            "b\n  ...\nc",
            "...3 s",
            "S...r...s",
        ] {
            assert_eq!(missing(text, &lines(expected)), None, "{expected}");
        }
        for expected in ["a", "c\nb", "... 4 s", "d", "...rr...", "a 1\na 1"] {
            assert!(missing(text, &lines(expected)).is_some(), "{expected}");
        }
    }
}
