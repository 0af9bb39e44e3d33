//! The tool bash: a command in a process group of its own.
//!
//! The group ends with the call: by its time, by a cancel (the future is dropped), and
//! not by its own end, so that a server may be left running. A process that keeps the
//! output open does not hold the call up.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::ToolOutcome;

/// How long a command may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long output is read on once the command has ended: what it wrote is in the pipe.
const DRAIN: Duration = Duration::from_millis(300);
/// Bytes of the output's start and of its end that are shown; upstream's 10 000 in all.
const HEAD: usize = 6000;
const TAIL: usize = 4000;

/// Ends a process group when it is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, "Cannot end a command, ignoring");
        }
    }
}

/// Runs a command.
pub(crate) async fn bash(workspace: &Path, command: &str) -> ToolOutcome {
    run(workspace, command, TIMEOUT).await
}

async fn run(workspace: &Path, command: &str, timeout: Duration) -> ToolOutcome {
    let spawned = Command::new("sh")
        .arg("-c")
        .arg(command)
        .current_dir(workspace)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return ToolOutcome::failed(format!("Cannot start sh: {error}")),
    };
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id.and_then(Pid::from_raw));
    let mut output = Output::default();
    let waited = tokio::time::timeout(timeout, wait(&mut child, &mut output)).await;
    match waited {
        Ok(Ok(status)) => {
            // Ended by itself: what it left in the background may go on.
            group.0 = None;
            report(&output, status)
        }
        Ok(Err(error)) => ToolOutcome::failed(format!("Cannot wait for the command: {error}")),
        Err(_) => {
            drop(group);
            // Reaped here, so that no zombie is left until the runtime sees it.
            drop(child.wait().await);
            let seconds = timeout.as_secs();
            let text = output.text();
            ToolOutcome::failed(format!("{text}\n[ended after {seconds} seconds]"))
        }
    }
}

/// Reads both streams until the command ends and a little longer.
async fn wait(child: &mut Child, output: &mut Output) -> std::io::Result<ExitStatus> {
    let mut stdout = child.stdout.take();
    let mut stderr = child.stderr.take();
    let (mut one, mut two) = (vec![0; 8192], vec![0; 8192]);
    let mut ended = None;
    let mut until = std::pin::pin!(tokio::time::sleep(Duration::MAX));
    loop {
        if let Some(status) = ended
            && stdout.is_none()
            && stderr.is_none()
        {
            return Ok(status);
        }
        tokio::select! {
            read = read(&mut stdout, &mut one) => match read {
                0 => stdout = None,
                length => output.add(&one[..length]),
            },
            read = read(&mut stderr, &mut two) => match read {
                0 => stderr = None,
                length => output.add(&two[..length]),
            },
            status = child.wait(), if ended.is_none() => {
                ended = Some(status?);
                until.as_mut().reset(tokio::time::Instant::now() + DRAIN);
            }
            () = &mut until, if ended.is_some() => {
                stdout = None;
                stderr = None;
            }
        }
    }
}

/// The next bytes; an error is the stream's end. Waits for ever where there is none.
async fn read(stream: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

fn report(output: &Output, status: ExitStatus) -> ToolOutcome {
    use std::os::unix::process::ExitStatusExt;
    let text = output.text();
    let end = match (status.code(), status.signal()) {
        (Some(0), _) if text.is_empty() => return ToolOutcome::ok("[no output]"),
        (Some(0), _) => return ToolOutcome::ok(text),
        (Some(code), _) => format!("[exit status {code}]"),
        (None, Some(signal)) => format!("[ended by signal {signal}]"),
        (None, None) => "[ended]".to_owned(),
    };
    let gap = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    ToolOutcome::failed(format!("{text}{gap}{end}"))
}

/// The start and the end of what a command writes, in bounded memory.
#[derive(Default)]
struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: usize,
}

impl Output {
    fn add(&mut self, mut bytes: &[u8]) {
        let room = (HEAD - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        bytes = &bytes[room..];
        self.tail.extend(bytes);
        let over = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..over);
        self.dropped += over;
    }

    fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.dropped == 0 {
            return String::from_utf8_lossy(&[&self.head[..], &tail].concat()).into_owned();
        }
        let (head, tail) = (
            String::from_utf8_lossy(&self.head),
            String::from_utf8_lossy(&tail),
        );
        format!("{head}\n[… {} bytes left out …]\n{tail}", self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    async fn sh(command: &str) -> ToolOutcome {
        run(Path::new("/tmp"), command, LONG).await
    }

    #[tokio::test]
    async fn output_and_a_bad_end_are_reported() {
        assert_eq!(sh("echo hi; echo there >&2").await.text.lines().count(), 2);
        let failed = sh("echo no; exit 3").await;
        assert_eq!(failed, ToolOutcome::failed("no\n[exit status 3]"));
        assert_eq!(sh("true").await.text, "[no output]");
    }

    #[tokio::test]
    async fn a_child_that_keeps_the_output_open_does_not_hold_the_call_up() {
        let start = Instant::now();
        let outcome = sh("echo started; sleep 20 &").await;
        assert_eq!(outcome.text, "started\n");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn the_whole_group_ends_with_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let command = "sh -c 'sleep 3; touch late' & echo begun; wait";
        let outcome = run(folder.path(), command, Duration::from_millis(300)).await;
        assert!(outcome.error && outcome.text.starts_with("begun"));
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(!folder.path().join("late").exists());
    }

    #[tokio::test]
    async fn endless_output_is_bounded_while_it_is_read() {
        let outcome = run(Path::new("/tmp"), "yes", Duration::from_millis(500)).await;
        assert!(outcome.text.len() < HEAD + TAIL + 200);
        assert!(outcome.text.contains("bytes left out"));
    }
}
