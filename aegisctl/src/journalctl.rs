//! The journal, read by journalctl(1): its format is stable, and it knows files,
//! rotation and rights.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::failure::Failure;

/// The program, told to print a JSON object for each entry.
pub(crate) fn command() -> Command {
    let mut command = Command::new("journalctl");
    // Without --all long messages are left out.
    command.args(["--output=json", "--all", "--quiet", "--no-pager"]);
    command
}

/// Starts it.
///
/// # Errors
/// There is no journalctl.
pub(crate) fn spawn(command: &mut Command) -> Result<Child, Failure> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Failure::Journal)
}

/// Why it ended, if it failed. Nothing in the journal is no failure, but its exit code
/// is then 1 with nothing to say.
pub(crate) fn failure_of(child: &mut Child) -> Option<Failure> {
    let mut words = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What cannot be read is not told.
        stderr.read_to_string(&mut words).ok();
    }
    let ended = child.wait().ok()?;
    let first = words.lines().find(|line| !line.trim().is_empty())?;
    (!ended.success()).then(|| Failure::Journalctl(first.trim().to_owned()))
}

/// A field is text, or bytes where it is not UTF-8.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) => {
            let bytes = bytes.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
            let bytes: Option<Vec<u8>> = bytes.collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    }
}
