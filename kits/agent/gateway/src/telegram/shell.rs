//! `/exec`: commands in the guest, where the settings allow it. Those of a chat run one
//! after the other; their output is shown while it comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aegis_core::fault::chain;
use serde::Deserialize;
use tokio::sync::Mutex as Turn;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::delivery::Shared;
use super::incoming::Exec;
use super::outgoing::Outgoing;
use crate::aegis::AegisError;
use crate::lines::Lines;

/// Longest run of a command.
const LONGEST: Duration = Duration::from_secs(3600);
/// Longest line of the answer of `exec` in bytes: 16 KiB of output, escaped, and what is
/// around it.
const MAX_LINE: usize = 256 << 10;
/// Most output that is shown, in bytes: what fits into a message with its marks. Of more
/// the end is shown.
const MAX_SHOWN: usize = 3500;

/// Commands that run, and small tasks beside the chats'.
#[derive(Debug, Default)]
pub struct Shells {
    tasks: Mutex<JoinSet<()>>,
    running: Mutex<HashMap<i64, Vec<AbortHandle>>>,
    turns: Mutex<HashMap<i64, Arc<Turn<()>>>>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    line: Option<String>,
    #[serde(default)]
    partial: bool,
    #[serde(default)]
    exit_code: Option<i64>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    done: bool,
}

impl Shells {
    /// A task that ends with the channel.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task)
    }

    /// Runs a command when those before it have ended.
    pub fn run(&self, shared: Arc<Shared>, outgoing: Arc<Outgoing>, exec: Exec) {
        let chat = exec.chat;
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(chat).or_default())
        };
        let task = self.spawn(async move {
            let _turn = turn.lock().await;
            run(&shared, &outgoing, &exec).await;
        });
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.entry(chat).or_default();
        running.retain(|task| !task.is_finished());
        running.push(task);
    }

    /// Hangs up everything.
    pub fn stop_all(&self) {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
    }

    /// Hangs up the commands of a chat; `false` where none runs.
    pub fn stop(&self, chat: i64) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = running.remove(&chat).unwrap_or_default();
        let mut stopped = false;
        for task in tasks {
            stopped |= !task.is_finished();
            task.abort();
        }
        stopped
    }
}

async fn run(shared: &Shared, outgoing: &Arc<Outgoing>, exec: &Exec) {
    let key = format!("exec-{}", exec.message);
    let run = Run {
        outgoing,
        chat: exec.chat,
        key,
    };
    outgoing.alive(run.chat, &run.key);
    let mut output = Output::default();
    let result = timeout(LONGEST, follow(shared, &run, &exec.command, &mut output)).await;
    let end = match result {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => {
            tracing::warn!("{}", chain(&error));
            match error {
                AegisError::Refused { reason, .. } => {
                    format!("The command could not be run: {reason}")
                }
                _ => "The command was hung up: aegisd has ended.".to_owned(),
            }
        }
        Err(_) => "The command was hung up: it ran for an hour.".to_owned(),
    };
    let reply_to = (run.chat < 0).then_some(exec.message);
    outgoing.say(run.chat, &run.key, &output.to_markdown(&end), reply_to);
}

/// A command and where its output is shown. Dropped before it has said its end, it was
/// stopped.
struct Run<'a> {
    outgoing: &'a Arc<Outgoing>,
    chat: i64,
    key: String,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.outgoing.end(self.chat, &self.key);
    }
}

/// Follows the output; the end in words, empty for a plain success.
async fn follow(
    shared: &Shared,
    run: &Run<'_>,
    command: &str,
    output: &mut Output,
) -> Result<String, AegisError> {
    let mut answer = shared.aegis.exec(&["sh", "-c", command]).await?;
    let mut lines = Lines::new(MAX_LINE);
    loop {
        let chunk = answer
            .chunk()
            .await
            .map_err(|source| AegisError::Unreachable {
                operation: "running a command",
                source: source.without_url(),
            })?;
        let Some(chunk) = chunk else {
            return Ok("The command was hung up: aegisd has ended.".to_owned());
        };
        for line in lines.take(&chunk) {
            let Ok(line) = serde_json::from_slice::<Line>(&line) else {
                continue;
            };
            if line.done {
                return Ok(match (line.exit_code, line.error) {
                    (_, Some(error)) => error,
                    (Some(0), None) => String::new(),
                    (Some(code), None) => format!("exit code {code}"),
                    (None, None) => String::new(),
                });
            }
            if let Some(mut text) = line.line {
                if !line.partial {
                    text.push('\n');
                }
                output.add(&text);
                if !output.is_cut() {
                    run.outgoing
                        .stream(run.chat, &run.key, &text, Instant::now());
                } else {
                    run.outgoing.alive(run.chat, &run.key);
                }
            }
        }
    }
}

/// The end of what a command has written.
#[derive(Debug, Default)]
struct Output {
    text: String,
    left_out: usize,
}

impl Output {
    fn add(&mut self, text: &str) {
        self.text.push_str(text);
        if self.text.len() > MAX_SHOWN {
            let mut start = self.text.len() - MAX_SHOWN;
            while !self.text.is_char_boundary(start) {
                start += 1;
            }
            self.text.drain(..start);
            self.left_out += start;
        }
    }

    fn is_cut(&self) -> bool {
        self.left_out > 0
    }

    fn to_markdown(&self, end: &str) -> String {
        let text = self.text.trim_end();
        // The fence is longer than any in the output.
        let mut longest = 2;
        let mut ticks = 0;
        for character in text.chars() {
            ticks = if character == '`' { ticks + 1 } else { 0 };
            longest = longest.max(ticks);
        }
        let fence = "`".repeat(longest + 1);
        let mut parts = Vec::new();
        if self.left_out > 0 {
            parts.push(format!(
                "({} bytes before this are left out.)",
                self.left_out
            ));
        }
        if !text.is_empty() {
            parts.push(format!("{fence}\n{text}\n{fence}"));
        }
        if !end.is_empty() {
            parts.push(end.to_owned());
        }
        match parts.is_empty() {
            true => "(no output)".to_owned(),
            false => parts.join("\n\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_long_output_is_shown_whole_characters_only() {
        let mut output = Output::default();
        output.add(&"ä".repeat(MAX_SHOWN));
        assert!(output.is_cut());
        let shown = output.to_markdown("exit code 1");
        assert!(
            shown.starts_with(&format!("({} bytes before", output.left_out)),
            "{shown}"
        );
        assert!(shown.ends_with("```\n\nexit code 1"));
    }

    #[test]
    fn output_with_fences_of_its_own_stays_one_block() {
        let mut output = Output::default();
        output.add("```\nx\n```\n");
        assert_eq!(output.to_markdown(""), "````\n```\nx\n```\n````");
        assert_eq!(Output::default().to_markdown(""), "(no output)");
    }
}
